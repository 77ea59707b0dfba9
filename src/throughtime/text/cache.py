"""The cache: plain texts, tokenisers and ids, each under the hash of what it was made from.

It lies in `$THROUGHTIME_CACHE`, else in `$XDG_CACHE_HOME/throughtime`, else in `~/.cache/throughtime`. Everything in
it can be deleted at any time; the next run makes it again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Self, final

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


@final
class NewFile:
    """A file in the making. It takes its place in one step, whole and on disk, or leaves nothing behind.

    A reader never sees half of it, and two processes that make the same file do each other no harm.
    """

    def __init__(self, part: str):
        self._folder = cache_folder(part)

    def __enter__(self) -> Self:
        handle, path = tempfile.mkstemp(".partial", dir=self._folder)
        self._path, self.file = Path(path), os.fdopen(handle, "wb")
        return self

    def publish(self, name: str) -> Path:
        """Give the file its name; nothing can be written to it any more."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self._path.chmod(0o644)
        return self._path.replace(self._folder / name)

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self._path.unlink(missing_ok=True)


def hash_of(*parts: str | bytes) -> str:
    """SHA-256 over the parts in order, with their lengths, as 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:32]
