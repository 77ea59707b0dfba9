"""The lock of a run folder: one training at a time writes there."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from throughtime.durable import make_folder, open_lock, remove_leftovers, write_holder
from throughtime.errors import ThroughtimeError
from throughtime.untrusted import printable

LOCK = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder, which is made if need be. The lock is gone with the process, however it ends.

    The file stays; it is the lock on it that counts, not that it is there. What killed processes left half written in
    the run folder, and in the folders in it, is removed.

    Raises:
        ThroughtimeError: where another training holds it, the folder cannot be written or locked, or the lock is
            something other than a regular file.
    """
    try:
        make_folder(folder)
        handle = open_lock(folder / LOCK)
    except OSError as error:
        raise ThroughtimeError(
            f"cannot write to the run folder {folder}: {error.strerror}; name another with --out"
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = printable(os.pread(handle, 200, 0).decode("utf-8", "replace").strip()) or "another process"
            raise ThroughtimeError(f"{folder} is held by {holder}; end that training, or name another --out") from None
        except OSError as error:
            raise ThroughtimeError(
                f"cannot lock {folder / LOCK}: {error.strerror}; name an --out whose file system has locks"
            ) from None
        try:
            write_holder(handle, f"process {os.getpid()} on {platform.node()}\n".encode())
        except OSError as error:
            raise ThroughtimeError(f"cannot write {folder / LOCK}: {error.strerror}") from None
        for place in (folder, *(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())):
            remove_leftovers(place)
        yield
    finally:
        os.close(handle)
