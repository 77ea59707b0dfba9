"""What the commands print: lines, JSON, text of a model; and standard streams that are closed, broken or not UTF-8.

A line shows foreign text (names, keys, tokens) with its control characters escaped. Text that a model wrote, or that a
program reads, stays exact unless it goes to a terminal.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from throughtime.errors import ThroughtimeError
from throughtime.untrusted import printable, to_json


class ReaderGoneError(Exception):
    """Who reads standard output has seen enough, as `head` has: no error."""


def open_standard_streams() -> None:
    """Give a process whose standard streams are closed empty ones, and let names of any characters be printed.

    A file that is opened later would otherwise get the descriptor of a closed stream, and what a library prints would
    go into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        mode = "w" if number else "r"
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, os.O_WRONLY if number else os.O_RDONLY)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(line: str = "") -> None:
    """Print a line on standard output."""
    _write(printable(line) + "\n")


def say_error(line: str, several_lines: bool = False) -> None:
    """Print a line on standard error, if it can be written: there is nowhere else to say it."""
    with suppress(OSError, ValueError):
        print(printable(line, several_lines), file=sys.stderr, flush=True)


def say_in_the_end(lines: Iterable[str]) -> None:
    """Sum up work that is done. That standard output cannot be written is said, and changes nothing about the work."""
    try:
        for line in lines:
            say(line)
    except ReaderGoneError:
        return
    except ThroughtimeError as error:
        say_error(f"throughtime: {error}; the work itself is done")


def say_json(value: Any) -> None:
    """Print a value as one line of JSON; numbers that are not finite are null."""
    text = to_json(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text))  # the same in ASCII
    _write(text + "\n")


def say_text(text: str) -> None:
    """Print text of a model: exactly where a program reads it, without control characters on a terminal.

    Raises:
        ThroughtimeError: where standard output has an encoding that lacks a character.
    """
    if sys.stdout.isatty():
        _write(printable(text, several_lines=True))
        return
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError as error:
        raise ThroughtimeError(
            f"standard output is {encoding}, which has no {text[error.start]!a}; set PYTHONIOENCODING=utf-8"
        ) from None
    _write(text)


def flush() -> None:
    """Bring what was printed to standard output; errors as for `say`."""
    with _writing():
        sys.stdout.flush()


def drop_unwritten() -> None:
    """Throw away what could not be written, so that Python's own attempt at exit changes no exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


def _write(text: str) -> None:
    with _writing():
        sys.stdout.write(text)
        sys.stdout.flush()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ReaderGoneError from None
    except OSError as error:
        raise ThroughtimeError(f"cannot write to standard output: {error.strerror}") from None
