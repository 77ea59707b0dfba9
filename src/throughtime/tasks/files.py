"""Files and streams that a recipe names: where they lie, and whether they can be read again."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from throughtime.errors import SettingError, ThroughtimeError
from throughtime.recipe import expanded
from throughtime.text.sources import BUILTIN, STANDARD_INPUT
from throughtime.untrusted import is_utf8

INPUT_SECONDS = 10.0
"""Seconds that a run which is resumed waits for data on standard input, where that was not named anew."""


def settled_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names of files made absolute.

    Below a folder whose name is not UTF-8, they stay as they were given: recipe.toml cannot hold the whole path.
    """
    return tuple(name if name in (*STANDARD_INPUT, *BUILTIN) else _absolute(name) for name in names)


def _absolute(name: str) -> str:
    path = str(expanded(name).absolute())
    return path if is_utf8(path) else name


def refuse_streams(names: Sequence[str], processes: int) -> None:
    """Refuse data that can be read only once where several processes would read them (SettingError)."""
    for name in names if processes > 1 else ():
        path = expanded(name)
        if name in STANDARD_INPUT or (path.exists() and not (path.is_file() or path.is_dir())):
            what = "standard input" if name in STANDARD_INPUT else name
            raise SettingError(
                f"{what} can be read only once, and {processes} processes read the text; write it to a file"
            )


def await_input(splits: Mapping[str, Sequence[str]], named: Mapping[str, Any], folder: Path) -> None:
    """Check that a run which is resumed does not wait for data that never come.

    Args:
        splits: names of the data of each split.
        named: the splits that were named anew.
        folder: the run folder.

    Raises:
        ThroughtimeError: where the run was trained from standard input, and that is a terminal or no stream at all, or
            stays silent although it was not named anew; or from another pipe or device that was not named anew.
    """
    for split, names in splits.items():
        for name in names:
            path = Path(name)
            if name in STANDARD_INPUT:
                _await_standard_input(folder, split in named)
            elif split not in named and path.exists() and not (path.is_file() or path.is_dir()):
                raise ThroughtimeError(
                    f"{name}, which the run in {folder} was trained on, is no file; it is read only where it is named: "
                    f"throughtime train {name} --out {folder} --resume"
                )


def _await_standard_input(folder: Path, named: bool) -> None:
    try:
        handle = sys.stdin.fileno()
        mode = os.fstat(handle).st_mode
    except (AttributeError, OSError, ValueError):  # closed, or something that is no file
        handle, mode = -1, 0
    piped = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)
    if not piped or not (named or select.select([handle], [], [], INPUT_SECONDS)[0]):
        raise ThroughtimeError(
            f"the run in {folder} was trained from standard input, and nothing comes there; give the same text again: "
            f"throughtime train - --out {folder} --resume < TEXT"
        )


def all_there(names: Sequence[str]) -> bool:
    """Whether every file that is named exists."""
    return all(name in (*STANDARD_INPUT, *BUILTIN) or expanded(name).exists() for name in names)
