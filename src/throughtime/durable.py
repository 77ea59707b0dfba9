"""Crash-safe writes: a file or folder appears under its final name complete and synced to disk, or not at all.

Content is written under a temporary name that ends in `.partial`, and synced; then it takes its final name in one step,
and the folder that holds the name is synced. A reader finds the old or the new content at any moment, and after a power
cut. A writer holds a lock on its temporary file or folder; a killed process leaves one without a lock, which the next
writer of that name removes, or `remove_leftovers`.

Nothing is written through a symbolic link, and only a regular file is replaced: a link, pipe, device or folder in its
place is an error. Every write of the project goes through this module (tests/layout/test_writes.py). Three kinds are
not crash-safe: lines added to the journal (`append`), the text in a lock file (`write_holder`), and pipes and devices
that the user names (`open_stream`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self, final

from throughtime.errors import ThroughtimeError
from throughtime.untrusted import FILE_KINDS

PARTIAL = ".partial"
Piece = bytes | memoryview
"""Part of the content of a file."""
READ_WRITE = 0o666
"""Permissions of a new file, before the umask."""
_TEMPORARY = re.compile(r"(?:(.+)\.)?[0-9a-f]{16}\.partial", re.DOTALL)
_LONGEST_STEM = 200
"""Bytes of a final name in the temporary one: file systems take names of up to 255 bytes."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@final
class NewFile:
    """A file being written. It gets its name from `publish`; without that, it leaves nothing behind.

    Any number of processes may write the same file at once.

    Args:
        folder: where it will be.
        name: its final name, where that is known: a file of that name passes on its permissions, and what killed
            writers of that name left is removed.
        mode: permissions, before the umask; of a file that is replaced, reading and writing are kept only as far as
            these allow it.

    Raises:
        ThroughtimeError: where the name is that of something other than a regular file.
    """

    def __init__(self, folder: Path, name: str = "", mode: int = READ_WRITE):
        self._folder, self._name, self._mode = folder, name, mode
        self._path = folder / _temporary(name)

    def __enter__(self) -> Self:
        with _naming(self._folder / self._name):
            replaced = check_regular(self._folder / self._name) if self._name else None
            if self._name:
                remove_leftovers(self._folder, self._name)
            self.file = _create_locked(self._path, self._mode if replaced is None else self._mode & 0o600)
            if replaced is not None:
                _take_permissions(self.file.fileno(), replaced, self._mode)
        return self

    def publish(self, name: str, replace: bool = True) -> Path:
        """Give the file its name; nothing can be written to it any more.

        Args:
            name: the final name.
            replace: whether it takes the place of another file of that name.

        Raises:
            FileExistsError: where there is one, unless `replace`.
            ThroughtimeError: where the name is that of something other than a regular file.
        """
        target = self._folder / name
        with _naming(target):
            _sync(self.file)
            if replace:
                check_regular(target)
                os.replace(self._path, target)
            else:
                _claim(self._path, target)
            sync_folder(self._folder)
        return target

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            error.filename = str(self._folder / self._name)
        with suppress(OSError):  # published, it is on disk; if not, it is thrown away, and an error is on its way
            self.file.close()
        self._path.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path, replace: bool = True, mode: int = READ_WRITE) -> Iterator[BinaryIO]:
    """A file to write, which gets its name at the end of the block; arguments and errors as for `NewFile`."""
    with NewFile(path.parent, path.name, mode) as new:
        yield new.file
        new.publish(path.name, replace)


def replace_file(path: Path, content: bytes, mode: int = READ_WRITE) -> None:
    """Write a file of the project's own folders, in place of another where there is one; `mode` as for `NewFile`."""
    _remove_if_abandoned(path.with_name(path.name + PARTIAL))  # as earlier versions called it
    with new_file(path, mode=mode) as file:
        file.write(content)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill with `write_file`, which gets its name at the end of the block.

    Any number of processes may make the same folder at once: one of them succeeds.

    Raises:
        OSError: where there is something of that name that is not an empty folder.
    """
    make_folder(path.parent)
    with _naming(path):
        remove_leftovers(path.parent, path.name)
        partial, handle = _create_locked_folder(path)
    try:
        yield partial
        with _naming(path):
            sync_folder(partial)
            os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(handle)
    sync_folder(path.parent)


def write_file(path: Path, content: Iterable[Piece], mode: int = READ_WRITE) -> None:
    """Write a file in a folder from `new_folder`, piece by piece, with these permissions before the umask.

    Its content is on disk afterwards; its name is once the folder has been synced.
    """
    with _naming(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "wb") as file:
        for piece in content:
            with _naming(path):
                file.write(piece)
        with _naming(path):
            _sync(file)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where there are none; its name is on disk afterwards, whoever made it."""
    if not folder.is_dir():
        if not folder.parent.is_dir():
            make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def make_own_folder(folder: Path) -> None:
    """As `make_folder`, for a folder within a run or model folder.

    Raises:
        ThroughtimeError: where a symbolic link lies in its place.
    """
    if folder.is_symlink():
        raise _not_written(folder, "a symbolic link", "a folder")
    make_folder(folder)


def remove_file(path: Path) -> None:
    """Remove a file where there is one; on disk afterwards."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_folders(folders: list[Path]) -> None:
    """Remove folders that lie side by side. A half removed one has a temporary name."""
    doomed = [folder.with_name(_temporary(folder.name)) for folder in folders]
    for folder, partial in zip(folders, doomed, strict=True):
        os.rename(folder, partial)
    if doomed:
        sync_folder(doomed[0].parent)
    for partial in doomed:
        shutil.rmtree(partial)


def remove_leftovers(folder: Path, name: str | None = None, sole_writer: bool = False) -> None:
    """Remove the temporary files and folders that killed processes left. Those of living writers stay.

    What cannot be removed stays too. Where the file system has no locks, nothing is removed unless `sole_writer`.

    Args:
        folder: where they lie.
        name: remove those of this final name only; None: all.
        sole_writer: whether no other process writes here, and all names that end in `.partial` are the project's.
    """
    try:
        entries = os.listdir(folder)
    except OSError:
        return
    for entry in entries:
        found = _TEMPORARY.fullmatch(entry)
        if sole_writer and entry.endswith(PARTIAL):
            _remove(folder / entry)
        elif found and (name is None or found[1] == _stem(name)):
            _remove_if_abandoned(folder / entry)


def is_temporary(entry: str, name: str) -> bool:
    """Whether a folder's entry has a name that a file, whose final name this is, has while it is written."""
    found = _TEMPORARY.fullmatch(entry)
    return entry == name + PARTIAL or (found is not None and found[1] == _stem(name))


def append(path: Path, content: bytes) -> None:
    """Add to a file that exists. It is not synced; where it fails, the file is cut back to what it was."""
    with _naming(path), os.fdopen(_open_in_place(path, os.O_WRONLY | os.O_APPEND), "ab", buffering=0) as file:
        size, left = os.fstat(file.fileno()).st_size, memoryview(content)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            os.ftruncate(file.fileno(), size)
            raise


def open_lock(path: Path) -> int:
    """Descriptor of a lock file, which is made if need be; the lock itself is left to the caller."""
    return _open_in_place(path, os.O_RDWR | os.O_CREAT)


def write_holder(lock: int, text: bytes) -> None:
    """Write who holds a lock into its file, unless that has a second name: it may be somebody's file then."""
    if os.fstat(lock).st_nlink == 1:
        os.ftruncate(lock, 0)
        os.pwrite(lock, text, 0)


def open_stream(path: Path | int) -> BinaryIO:
    """A pipe or device that the user names, or an open descriptor, to write into; a pipe waits for its reader."""
    if isinstance(path, int):
        return os.fdopen(os.dup(path), "wb")
    with _naming(path):
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC), "wb")


def check_regular(path: Path) -> os.stat_result | None:
    """What is known of the regular file that may be written or replaced; None where there is nothing of that name.

    Raises:
        ThroughtimeError: where it is something else, such as a symbolic link, a pipe or a folder.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFLNK: "a symbolic link", **FILE_KINDS}
        raise _not_written(path, kinds.get(stat.S_IFMT(found.st_mode), "something else"), "a regular file")
    return found


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk, where its file system can do so and the folder may be read."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def _temporary(name: str) -> str:
    return ".".join(filter(None, (_stem(name), secrets.token_hex(8)))) + PARTIAL


def _stem(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_LONGEST_STEM])


def _not_written(path: Path, found: str, wanted: str) -> ThroughtimeError:
    return ThroughtimeError(f"cannot write {path}: it is {found}, not {wanted}; remove it, or name another place")


def _create_locked(path: Path, mode: int) -> BinaryIO:
    while True:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        _lock(handle)
        if os.fstat(handle).st_nlink:
            return os.fdopen(handle, "wb")
        os.close(handle)  # taken for a leftover, and removed, before it was locked


def _create_locked_folder(path: Path) -> tuple[Path, int]:
    while True:
        partial = path.with_name(_temporary(path.name))
        partial.mkdir()
        with suppress(FileNotFoundError):  # taken for a leftover, and removed, before it was locked
            handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _lock(handle)
            if partial.exists():
                return partial, handle
            os.close(handle)


def _lock(handle: int) -> None:
    with suppress(OSError):  # without locks nobody removes it
        fcntl.flock(handle, fcntl.LOCK_EX)


def _remove_if_abandoned(partial: Path) -> None:
    try:
        handle = os.open(partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is being written, or there are no locks here
        return
    else:
        _remove(partial)  # locked until it is gone: see `_create_locked`
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)


def _take_permissions(handle: int, replaced: os.stat_result, mode: int) -> None:
    """Owner, group and permissions of the file that is replaced, as far as this process may set them."""
    allowed = stat.S_IMODE(replaced.st_mode) & 0o777 & ~(READ_WRITE & ~mode)
    mine = os.fstat(handle)
    if (mine.st_uid, mine.st_gid) != (replaced.st_uid, replaced.st_gid):
        try:
            os.fchown(handle, replaced.st_uid, replaced.st_gid)
        except OSError:
            if mine.st_gid != replaced.st_gid:
                allowed &= ~0o070  # another group must not gain what that of the old file had
    os.fchmod(handle, allowed)


def _claim(partial: Path, target: Path) -> None:
    """Give a file a name that nothing has."""
    try:
        os.link(partial, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.replace(partial, target)


def _open_in_place(path: Path, flags: int) -> int:
    check_regular(path)
    with _naming(path):
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, READ_WRITE)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _not_written(path, "no regular file any more", "a regular file")
    return handle


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """The final name in errors of the system, in place of a temporary one or none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
