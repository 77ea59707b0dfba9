"""Arguments as the native code takes them; what is of a wrong kind or out of range is a SettingError that names it."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable
from typing import Any

from throughtime.errors import SettingError

LARGEST = (1 << 31) - 1
"""Largest count of tokens, lanes or the like."""
LARGEST_FLOAT = sys.float_info.max
SEEDS = 1 << 64
SHOWN = 60
"""Characters of a wrong value that an error shows."""


def whole(name: str, value: Any, least: int, most: int = LARGEST) -> int:
    """A whole number from `least` to `most`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise SettingError(f"{name} must be a whole number, got {shown(value)}") from None
    if number < least:
        negative = "not be negative" if least == 0 else f"be at least {least}"
        raise SettingError(f"{name} must {negative}, got {shown(value)}")
    if number > most:
        raise SettingError(f"{name} must be at most {most}, got {shown(value)}")
    return number


def number(name: str, value: Any, least: float, most: float, should: str, above: bool = False) -> float:
    """A finite number from `least` (or above it) to `most`; `should` says so in words."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        found = float(value)
    except (TypeError, ValueError):
        raise SettingError(f"{name} must be a number, got {shown(value)}") from None
    except OverflowError:
        found = float("inf")
    if found == float("inf"):
        raise SettingError(f"{name} must be finite, got {shown(value)}")
    if not (least < found <= most if above else least <= found <= most):
        raise SettingError(f"{name} must {should}, got {shown(value)}")
    return found


def text(name: str, value: Any) -> str:
    """A string that UTF-8 can hold."""
    if not isinstance(value, str):
        raise SettingError(f"{name} must be a string, got {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise SettingError(f"{name} is no text at character {error.start}: {error.reason}") from None
    return value


def texts(name: str, value: Any) -> list[str]:
    """Strings, of which one may stand alone."""
    if isinstance(value, str):
        return [text(name, value)]
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise SettingError(f"{name} must be a string or several, got {shown(value)}")
    return [text(name, one) for one in value]


def stops(value: Any) -> list[bytes]:
    """Strings that end a text."""
    found = [one.encode() for one in texts("stop", value)]
    if b"" in found:
        raise SettingError("a stop string must not be empty")
    return found


def characters(value: Any) -> str | None:
    """Characters in one string, from a string or several; None stays None."""
    return None if value is None else "".join(texts("characters", value))


def shown(value: Any) -> str:
    """A wrong value in an error: short, and on one line."""
    try:
        line = " ".join(repr(value).split())
    except ValueError:  # a whole number of too many digits
        return "a number of thousands of digits"
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."
