"""Reading what somebody else may have made, and showing it: files, JSON, text for a terminal.

A run folder, a model folder, a state, a compressed file and a text are input like any other. A file is read only if it
is a regular one and no larger than it may be, so that a pipe or a device in its place neither blocks nor fills memory.
JSON is read within limits and written without the numbers that JSON does not have. Text that others chose is shown
without the control characters that a terminal would obey.
"""

from __future__ import annotations

import json
import math
import os
import stat
import unicodedata
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from throughtime.errors import ThroughtimeError

if TYPE_CHECKING:
    from pydantic import ValidationError

DOCUMENT_BYTES = 1 << 26
"""Largest JSON or TOML document that is read."""
PLACE_CHARACTERS = 100
"""Most characters of the place of a finding that an error shows."""
JSON_DEPTH = 64
"""Most levels of lists and objects within one another."""
FILE_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
SHOWN_CONTROLS = "\n\t"
"""Control characters that `printable` leaves as they are where it may show several lines."""


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file, or a symbolic link to one, for reading in binary.

    Raises:
        ThroughtimeError: where there is no such file, it cannot be opened, or it is a folder, pipe, socket or device.
    """
    try:
        _check_regular(path, os.stat(path).st_mode)
        # Whatever takes the file's place meanwhile must not block either.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ThroughtimeError(f"cannot read {path}: {error.strerror}") from None
    except ThroughtimeError:
        raise
    except ValueError as error:  # a NUL in the name
        raise ThroughtimeError(f"cannot read {str(path)!r}: {error}") from None
    file = os.fdopen(handle, "rb")
    try:
        _check_regular(path, os.fstat(handle).st_mode)
    except ThroughtimeError:
        file.close()
        raise
    return file


def read_file(path: str | Path, limit: int = DOCUMENT_BYTES) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        ThroughtimeError: as `open_regular` does, and where the file is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ThroughtimeError(f"cannot read {path}: it has {size:,} bytes, and may have at most {limit:,}")
        try:
            content = file.read(size + 1)  # no more: as much memory is taken at once
        except OSError as error:
            raise ThroughtimeError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > size:
        raise ThroughtimeError(f"cannot read {path}: it grew past {size:,} bytes while it was read")
    return content


def read_text(path: str | Path, limit: int = DOCUMENT_BYTES) -> str:
    """The content of a regular UTF-8 file; line ends stay as they are.

    Raises:
        ThroughtimeError: as `read_file` does, and where the file is not UTF-8.
    """
    try:
        return read_file(path, limit).decode()
    except UnicodeDecodeError as error:
        raise ThroughtimeError(f"cannot read {path}: byte {error.start:,} is not UTF-8") from None


def parse_json(content: str | bytes, name: str | Path, constants_as_null: bool = False) -> Any:
    """The value of a JSON document.

    Args:
        content: the document, in UTF-8 where it is bytes.
        name: what it is called in an error.
        constants_as_null: whether NaN and Infinity, which Python writes and JSON does not have, are read as null.

    Raises:
        ThroughtimeError: where it is not JSON, holds a number that is not finite or half of a surrogate pair, or is
            nested deeper than JSON_DEPTH.
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
        constant = _null if constants_as_null else _refuse_number
        value = json.loads(text, parse_constant=constant, parse_float=_finite_float)
    except (ValueError, RecursionError) as error:
        raise ThroughtimeError(f"{name} is not JSON: {' '.join(str(error).split())}") from None
    if text.count("[") + text.count("{") > JSON_DEPTH and _depth(value) > JSON_DEPTH:
        raise ThroughtimeError(f"{name} is nested deeper than {JSON_DEPTH} levels")
    if "\\u" in text and any(_has_surrogate(string) for string in _strings(value)):
        raise ThroughtimeError(f"{name} holds half of a surrogate pair, which is no character")
    return value


def first_finding(error: ValidationError, whole: str = "") -> str:
    """The first thing that a pydantic model found wrong, in a line: where, and what.

    Args:
        error: raised by the model.
        whole: what stands for the place where the input as a whole is wrong.
    """
    finding = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = printable(".".join(map(str, finding["loc"])))[:PLACE_CHARACTERS] or whole
    return f"{where}: {finding['msg']}" if where else finding["msg"]


def to_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON, with null for numbers that are not finite: JSON has no others."""
    return json.dumps(_jsonable(value), ensure_ascii=False, allow_nan=False, indent=indent)


def is_utf8(text: str) -> bool:
    """Whether a text can be written in UTF-8; names of files that are not UTF-8 cannot: they hold half surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str, several_lines: bool = False) -> str:
    """Text with its control characters escaped, so that a terminal shows them and does not obey them.

    Args:
        text: any.
        several_lines: whether line ends and tabs stay as they are.
    """
    kept = SHOWN_CONTROLS if several_lines else ""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept or unicodedata.category(c) == "Zs" else _escape(c) for c in text)


def _check_regular(path: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = FILE_KINDS.get(stat.S_IFMT(mode), "something else")
        raise ThroughtimeError(f"cannot read {path}: it is {kind}, not a regular file")


def _refuse_number(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _null(name: str) -> None:  # noqa: ARG001
    return None


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits:.20} is out of range")
    return value


def _depth(value: Any) -> int:
    """Levels of lists and objects, found level by level."""
    depth, level = 0, [value]
    while level := [held for held in level if isinstance(held, list | dict)]:
        depth += 1
        level = [inner for held in level for inner in (held.values() if isinstance(held, dict) else held)]
    return depth


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        held = waiting.pop()
        if isinstance(held, str):
            yield held
        elif isinstance(held, list):
            waiting += held
        elif isinstance(held, dict):
            waiting += [*held, *held.values()]


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _jsonable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(inner) for inner in value]
    return value


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
