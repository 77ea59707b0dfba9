"""What is written below a folder, operation by operation: told to whoever asks, who may kill, fail or record there.

It stands between Python and the system: the functions of `os` that durable.py writes with are replaced while it
watches. That nothing goes past durable.py is held by tests/layout/test_writes.py and tests/writes.py; that nothing goes
past this, whoever writes, is seen where `disk.py` makes the same folder from what was told.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any, NamedTuple, Protocol

NAMES = (
    "open", "fdopen", "fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir", "ftruncate", "pwrite",
)  # fmt: skip


class Operation(NamedTuple):
    """One thing asked of the file system. Paths are below the folder that is watched."""

    kind: str
    """`create`, `write`, `truncate`, `sync`, `rename`, `link`, `unlink`, `mkdir`, `rmdir` or `nothing`."""
    path: str
    to: str = ""
    """The new name, of a rename or link."""
    offset: int = 0
    """Where it is written, or the new size."""
    data: bytes = b""


class Hook(Protocol):
    def __call__(self, operation: Operation, perform: Callable[[], Any], half: Callable[[], Any]) -> Any:
        """Stand in for an operation. `perform` does it; `half` does half of a write, and nothing of the rest."""


@contextmanager
def watching(root: Path, hook: Hook, names: str = "") -> Iterator[None]:
    """Everything that is written below `root` goes through `hook`.

    Temporary names are the same each time, so that two recordings can be joined; other `names` give others.
    """
    real = {name: getattr(os, name) for name in NAMES}
    paths: dict[int, str] = {}
    top = os.path.abspath(root)

    def located(path: Any, dir_fd: int | None = None) -> str | None:
        path = paths.get(path, "") if isinstance(path, int) else os.fspath(path)
        whole = os.path.abspath(path if dir_fd is None else os.path.join(paths[dir_fd], path))
        return os.path.relpath(whole, top) if whole == top or whole.startswith(top + os.sep) else None

    def simple(kind: str, name: str) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, dir_fd: int | None = None, **more: Any) -> Any:
            if dir_fd is not None:
                more["dir_fd"] = dir_fd
            place = located(path, dir_fd)
            if place is None:
                return real[name](path, *rest, **more)
            return hook(Operation(kind, place), lambda: real[name](path, *rest, **more), lambda: None)

        return call

    def naming(kind: str) -> Callable[..., Any]:
        def call(source: Any, target: Any) -> Any:
            place, to = located(source), located(target)
            if place is None or to is None:
                return real[kind](source, target)
            return hook(Operation(kind, place, to), lambda: real[kind](source, target), lambda: None)

        return call

    def truncate(handle: int, size: int) -> None:
        place = located(handle)
        if place is None:
            return real["ftruncate"](handle, size)
        return hook(Operation("truncate", place, offset=size), lambda: real["ftruncate"](handle, size), lambda: None)

    def pwrite(handle: int, data: bytes, offset: int) -> Any:
        place = located(handle)
        if place is None:
            return real["pwrite"](handle, data, offset)
        return hook(
            Operation("write", place, offset=offset, data=data),
            lambda: real["pwrite"](handle, data, offset),
            lambda: real["pwrite"](handle, half_of(data), offset),
        )

    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        place = located(path, dir_fd)
        if place is None or not flags & os.O_CREAT or os.path.lexists(path):
            handle: int = real["open"](path, flags, mode, dir_fd=dir_fd)
        else:
            handle = hook(Operation("create", place), lambda: real["open"](path, flags, mode), lambda: None)
        paths[handle] = os.path.abspath(path if dir_fd is None else os.path.join(paths[dir_fd], path))
        return handle

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            whole = bytes(data)
            operation = Operation("write", str(located(self.fileno())), offset=self.tell(), data=whole)
            written: int = hook(
                operation, lambda: super(Raw, self).write(whole), lambda: super(Raw, self).write(half_of(whole))
            )
            return written

    def fdopen(handle: int, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if located(handle) is None or mode not in ("wb", "ab"):
            return real["fdopen"](handle, mode, *rest, **more)
        raw = Raw(handle, mode)
        return raw if more.get("buffering") == 0 else io.BufferedWriter(raw)

    replaced = {"open": open_, "fdopen": fdopen, "fsync": simple("sync", "fsync"), "link": naming("link")}
    replaced |= {"replace": naming("rename"), "rename": naming("rename"), "ftruncate": truncate, "pwrite": pwrite}
    replaced |= {name: simple(name, name) for name in ("unlink", "mkdir", "rmdir")}
    for name in NAMES:
        setattr(os, name, replaced[name])
    random, secrets.token_hex = secrets.token_hex, _tokens(names)
    try:
        yield
    finally:
        secrets.token_hex = random
        for name in NAMES:
            setattr(os, name, real[name])


def _tokens(names: str) -> Callable[[int | None], str]:
    numbers = count()
    return lambda size: Random(f"{names}{next(numbers)}").randbytes(size or 16).hex()


def half_of(data: bytes) -> bytes:
    return data[: len(data) // 2]


def recorded(root: Path, job: Callable[[], Any], names: str = "") -> list[Operation]:
    """The operations of a job, which is done. One that fails, as a file removed that is not there, is `nothing`.

    Args:
        root: the folder that is watched.
        job: what is done.
        names: as for `watching`.
    """
    found: list[Operation] = []
    turn = Lock()  # a checkpoint is written by a thread of its own

    def record(operation: Operation, perform: Callable[[], Any], half: Callable[[], Any]) -> Any:  # noqa: ARG001
        with turn:
            found.append(Operation("nothing", operation.path))
            number = len(found) - 1
        result = perform()
        found[number] = operation
        return result

    with watching(root, record, names):
        job()
    return found
