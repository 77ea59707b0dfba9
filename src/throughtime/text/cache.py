"""The cache: plain texts, tokenisers and ids, each under the hash of what it was made from.

It lies in `$THROUGHTIME_CACHE`, else in `$XDG_CACHE_HOME/throughtime`, else in `~/.cache/throughtime`. Everything in
it can be deleted at any time; the next run makes it again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from throughtime.errors import ThroughtimeError


def cache_folder(part: str = "") -> Path:
    """The folder for one kind of thing, made if need be."""
    base = os.environ.get("THROUGHTIME_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "throughtime"
    )
    folder = Path(base) / part
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ThroughtimeError(
            f"cannot make the cache folder {folder}: {error.strerror}; set THROUGHTIME_CACHE to one that can be written"
        ) from None
    return folder


def hash_of(*parts: str | bytes) -> str:
    """SHA-256 over the parts in order, with their lengths, as 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:32]
