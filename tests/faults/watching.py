"""What is written below a folder, operation by operation: told to whoever asks, who may kill, fail or record there.

It stands between Python and the system: `os.open` and the like are replaced while it watches. That nothing goes past it
is seen where `disk.py` makes the same folder from what was told.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

NAMES = ("open", "fdopen", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir")


class Operation(NamedTuple):
    """One thing asked of the file system. Paths are below the folder that is watched."""

    kind: str
    """`create`, `write`, `sync`, `rename`, `unlink`, `mkdir`, `rmdir` or `nothing`."""
    path: str
    to: str = ""
    """The new name, of a rename."""
    offset: int = 0
    data: bytes = b""


class Hook(Protocol):
    def __call__(self, operation: Operation, perform: Callable[[], Any], half: Callable[[], Any]) -> Any:
        """Stand in for an operation. `perform` does it; `half` does half of a write, and nothing of the rest."""


@contextmanager
def watching(root: Path, hook: Hook) -> Iterator[None]:
    """Everything that is written below `root` goes through `hook`."""
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

    def rename(source: Any, target: Any) -> Any:
        place, to = located(source), located(target)
        if place is None or to is None:
            return real["rename"](source, target)
        return hook(Operation("rename", place, to), lambda: real["rename"](source, target), lambda: None)

    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        place = located(path, dir_fd)
        if place is None or not flags & os.O_CREAT:
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
        if located(handle) is None or mode != "wb":
            return real["fdopen"](handle, mode, *rest, **more)
        return io.BufferedWriter(Raw(handle, "wb"))

    replaced = {"open": open_, "fdopen": fdopen, "replace": rename, "rename": rename, "fsync": simple("sync", "fsync")}
    replaced |= {name: simple(name, name) for name in ("unlink", "mkdir", "rmdir")}
    for name in NAMES:
        setattr(os, name, replaced[name])
    try:
        yield
    finally:
        for name in NAMES:
            setattr(os, name, real[name])


def half_of(data: bytes) -> bytes:
    return data[: len(data) // 2]


def recorded(root: Path, job: Callable[[], Any]) -> list[Operation]:
    """The operations of a job, which is done. One that fails, as a file removed that is not there, is `nothing`."""
    found: list[Operation] = []

    def record(operation: Operation, perform: Callable[[], Any], half: Callable[[], Any]) -> Any:  # noqa: ARG001
        found.append(Operation("nothing", operation.path))
        result = perform()
        found[-1] = operation
        return result

    with watching(root, record):
        job()
    return found
