"""The lock of a run folder: one training at a time writes there."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from throughtime.durable import make_folder
from throughtime.errors import ThroughtimeError

LOCK = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder, which is made if need be. The lock is gone with the process, however it ends.

    The file stays; it is the lock on it that counts, not that it is there.

    Raises:
        ThroughtimeError: where another training holds it, or the folder cannot be written or locked.
    """
    try:
        make_folder(folder)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ThroughtimeError(
            f"cannot write to the run folder {folder}: {error.strerror}; name another with --out"
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode("utf-8", "replace").strip() or "another process"
            raise ThroughtimeError(f"{folder} is held by {holder}; end that training, or name another --out") from None
        except OSError as error:
            raise ThroughtimeError(
                f"cannot lock {folder / LOCK}: {error.strerror}; name an --out whose file system has locks"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
