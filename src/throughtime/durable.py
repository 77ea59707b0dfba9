"""What is written so that it stays: a file or a folder appears under its name whole and on disk, or not at all.

It is written aside, under a name that ends in `.partial`, and synced; then it takes its name in one step, and the
folder that holds the name is synced. So whoever reads finds the old or the new, at any moment and after a power cut. A
process that is killed leaves a `.partial` behind, nothing else.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self, final

PARTIAL = ".partial"
Piece = bytes | memoryview
"""Of what is written."""


@final
class NewFile:
    """A file in the making. It takes its name when it is published, or leaves nothing behind.

    Two processes that make the same file do each other no harm, unless they name where it lies until then (`aside`).
    """

    def __init__(self, folder: Path, aside: str | None = None):
        self._folder = folder
        self._path = folder / (aside or secrets.token_hex(8) + PARTIAL)

    def __enter__(self) -> Self:
        self.file = _create(self._path)
        return self

    def publish(self, name: str) -> Path:
        """Give the file its name, in place of another that may have it; nothing can be written to it any more."""
        _sync(self.file)
        os.replace(self._path, self._folder / name)
        sync_folder(self._folder)
        return self._folder / name

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self._path.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its name where the block ends well."""
    with NewFile(path.parent) as new:
        yield new.file
        new.publish(path.name)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, in place of another where there is one. What a killed writer left aside is written over.

    Only one process at a time may write to this path.
    """
    with NewFile(path.parent, path.name + PARTIAL) as new:
        new.file.write(content)
        new.publish(path.name)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to be filled by the functions here, which takes its name where the block ends well.

    There must be no folder of that name, and only one process at a time may make it.
    """
    partial = path.with_name(path.name + PARTIAL)
    if partial.exists():
        shutil.rmtree(partial)
    make_folder(path.parent)
    partial.mkdir()
    try:
        yield partial
        sync_folder(partial)
        os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(path.parent)


def write_file(path: Path, content: Iterable[Piece]) -> None:
    """Write a file of a folder in the making, piece by piece.

    It is on disk afterwards; its name is once the folder has been synced.
    """
    with _create(path) as file:
        for piece in content:
            file.write(piece)
        _sync(file)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where there are none; its name is on disk afterwards, whoever made it."""
    if not folder.is_dir():
        if not folder.parent.is_dir():
            make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def remove_folders(folders: list[Path]) -> None:
    """Remove folders that lie side by side. One that is half removed is a `.partial`, not half of what it was."""
    doomed = [folder.with_name(folder.name + PARTIAL) for folder in folders]
    for folder, partial in zip(folders, doomed, strict=True):
        os.rename(folder, partial)
    if doomed:
        sync_folder(doomed[0].parent)
    for partial in doomed:
        shutil.rmtree(partial)


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


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666), "wb")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
