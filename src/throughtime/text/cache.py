"""The cache: plain texts, tokenisers and ids, each under the hash of what it was made from.

It lies in `$THROUGHTIME_CACHE`, else in `$XDG_CACHE_HOME/throughtime`, else in `~/.cache/throughtime`. Everything in
it can be deleted at any time; the next run makes it again. Its content is believed only where nobody but its user can
write into it, and where the checksum of an entry holds.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from throughtime import durable
from throughtime.durable import NewFile
from throughtime.errors import ThroughtimeError
from throughtime.untrusted import open_regular

PARTS = ("plain", "tokenizers", "ids")
REMEDY = "set THROUGHTIME_CACHE to a folder of your own"


def cache_base() -> Path:
    """The folder of the cache, which may not exist yet."""
    if place := os.environ.get("THROUGHTIME_CACHE"):
        return Path(place)
    if above := os.environ.get("XDG_CACHE_HOME"):
        return Path(above, "throughtime")
    try:
        return Path.home() / ".cache" / "throughtime"
    except RuntimeError:
        raise ThroughtimeError(f"there is no home folder for the cache to lie in; {REMEDY}") from None


def cache_folder(part: str = "") -> Path:
    """The folder for one kind of entry, made if need be, for its user alone.

    Raises:
        ThroughtimeError: where it cannot be made, or another user can write into it.
    """
    base = cache_base()
    for folder in (base, base / part):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = folder.stat()
        except OSError as error:
            raise ThroughtimeError(f"cannot make the cache folder {folder}: {error.strerror}; {REMEDY}") from None
        if facts.st_uid not in (os.geteuid(), 0):
            raise ThroughtimeError(f"the cache folder {folder} belongs to another user, who can change it; {REMEDY}")
        if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ThroughtimeError(
                f"other users can write into the cache folder {folder}; `chmod go-w {shlex.quote(str(folder))}`, "
                f"or {REMEDY}"
            )
    return base / part


@contextmanager
def new_entry(folder: Path) -> Iterator[NewFile]:
    """A file of the cache in the making. Files that killed processes left in the making are removed first.

    Raises:
        ThroughtimeError: where the folder cannot be written.
    """
    durable.remove_leftovers(folder)
    try:
        with NewFile(folder) as new:
            yield new
    except OSError as error:
        raise ThroughtimeError(
            f"cannot write into the cache folder {folder}: {error.strerror}; make room there, or {REMEDY}"
        ) from error


def remove_leftovers() -> None:
    """Remove what killed processes left in the making, in every part of the cache that there is."""
    for part in PARTS:
        if (cache_base() / part).is_dir():
            durable.remove_leftovers(cache_folder(part))


def entry_name(key: str, content: bytes, suffix: str) -> str:
    """The name of an entry of a single file: its key, and a checksum of both.

    Args:
        key: what it was made from, by `hash_of`.
        content: SHA-256 of the file.
        suffix: the end of the name.
    """
    return f"{key}-{hash_of(key, content)}{suffix}"


def find_entry(folder: Path, key: str, suffix: str) -> Path | None:
    """The entry of a key, if there is one whose checksum holds. A damaged one is removed, to be made anew."""
    for path in sorted(folder.glob(f"{key}-*{suffix}")):
        with suppress(ThroughtimeError), open_regular(path) as file:
            if path.name == entry_name(key, hashlib.file_digest(file, "sha256").digest(), suffix):
                return path
        remove_entry(path)
    return None


def remove_entry(path: Path) -> None:
    """Remove a file of the cache; a folder in its place is left, and said where the entry is made anew."""
    with suppress(OSError):
        path.unlink()


def make_way(path: Path) -> None:
    """Remove what is no regular file from the place of an entry: a new entry replaces regular files only."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        remove_entry(path)


def hash_of(*parts: str | bytes) -> str:
    """SHA-256 over the parts in order, with their lengths, as 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:32]
