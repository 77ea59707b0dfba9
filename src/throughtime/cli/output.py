"""Files that the user names for a command to write.

A regular file appears under its name when all of it is written, or not at all; without --force it takes no other
file's place. A pipe or a device is written into. A symbolic link is an error, except those by which a process names
its own descriptors, such as /dev/stdout.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from throughtime.cli.streams import say_error, say_in_the_end
from throughtime.errors import ThroughtimeError


@contextmanager
def new_file(path: Path, force: bool, made_from: Sequence[Path | str] = ()) -> Iterator[BinaryIO]:
    """A file to write.

    Args:
        path: its name.
        force: whether it may take another file's place, or be written onto a disk.
        made_from: files whose content is in it: nobody can read or write it who cannot do so with each of these.

    Raises:
        ThroughtimeError: where there is one of that name already, unless `force`; or where it is a symbolic link, a
            folder or a socket.
    """
    from throughtime import durable

    descriptor = _own_descriptor(path)
    try:
        mode = None if descriptor is not None else os.lstat(path).st_mode
    except FileNotFoundError:
        mode = None
    if descriptor is not None:
        with _streaming(path, durable.open_stream(descriptor)) as stream:
            yield stream
    elif mode is not None and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or (stat.S_ISBLK(mode) and force)):
        with _streaming(path, durable.open_stream(path)) as stream:
            yield stream
    elif mode is not None and not force and (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise _taken(path)
    else:
        durable.check_regular(path)
        try:
            with durable.new_file(path, replace=force, mode=permissions(made_from)) as file:
                yield file
        except FileExistsError:
            raise _taken(path) from None


def permissions(made_from: Sequence[Path | str]) -> int:
    """Permissions, before the umask, of what holds the content of these files; what is no file does not count."""
    mode = 0o666
    for path in made_from:
        if os.path.isfile(path):
            mode &= os.stat(path).st_mode
    return mode


def sum_up(out: Path, lines: Sequence[str]) -> None:
    """Say in the end what was written: on standard error where `out` is standard output itself."""
    if _own_descriptor(out) == 1:
        for line in lines:
            say_error(line)
    else:
        say_in_the_end(lines)


def _taken(path: Path) -> ThroughtimeError:
    return ThroughtimeError(f"{path} is there already; name another with --out, or give --force")


@contextmanager
def _streaming(path: Path, stream: BinaryIO) -> Iterator[BinaryIO]:
    try:
        with stream:
            yield stream
    except BrokenPipeError:
        raise ThroughtimeError(f"cannot write {path}: its reader has closed it") from None
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _own_descriptor(path: Path) -> int | None:
    """The number of the descriptor of this process that a name such as /dev/stdout or /dev/fd/3 stands for."""
    descriptors = f"/proc/{os.getpid()}/fd"
    for _ in range(8):  # /dev/stdout is a link to /proc/self/fd/1
        folder = os.path.realpath(path.parent)
        if folder == descriptors and path.name.isdecimal():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = Path(folder, os.readlink(path))
    return None
