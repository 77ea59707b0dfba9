"""Watches, while tests run, that the project writes to files through durable.py alone.

Python tells a hook of every file that is opened, renamed, removed or made, by whatever means of its own. What a library
writes by itself is seen where tests/faults makes a folder again from what was told of its making.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "src" / "throughtime"
DURABLE = str(PACKAGE / "durable.py")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.link", "os.symlink", "os.truncate", "os.mkdir"}
"""Besides opening to write. What is removed is not looked at: the cache is deleted from elsewhere."""
_roots: list[str] = []


@pytest.fixture(scope="session", autouse=True)
def _writes_go_through_durable(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Below the folder for temporary files: libraries keep caches of their own elsewhere."""
    if not _roots:
        sys.addaudithook(_look)
    _roots.append(str(tmp_path_factory.getbasetemp()))


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        if not isinstance(arguments[2], int) or not arguments[2] & WRITING:
            return
    elif event not in CHANGES:
        return
    path = arguments[0]
    if not isinstance(path, str | bytes | os.PathLike) or not _is_watched(os.fsdecode(path)):
        return
    writer = _writer(sys._getframe(1))
    if writer is not None and writer.f_code.co_filename != DURABLE and not _makes_cache_folder(event, writer):
        raise AssertionError(
            f"{event} of {path!r} goes past durable.py, from {writer.f_code.co_filename}:{writer.f_lineno}"
        )


def _is_watched(path: str) -> bool:
    whole = os.path.abspath(path)
    return any(whole.startswith(root + os.sep) for root in _roots)


def _writer(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the project; None where a test writes itself."""
    while frame is not None:
        place = frame.f_code.co_filename
        if place.startswith(str(PACKAGE) + os.sep):
            return frame
        if place.startswith(str(TESTS) + os.sep):
            return None
        frame = frame.f_back
    return None


def _makes_cache_folder(event: str, writer: FrameType) -> bool:
    return event == "os.mkdir" and writer.f_code.co_filename == str(PACKAGE / "text" / "cache.py")
