"""What this project's own commands write, told by its content, so that it is not taken for a text beside others."""

from __future__ import annotations

import os
from pathlib import Path

from throughtime.durable import PARTIAL, is_temporary
from throughtime.errors import ThroughtimeError
from throughtime.folder import DESCRIPTION, JOURNAL, RECIPE, WEIGHTS
from throughtime.untrusted import open_regular, printable

STARTS = (b"throughtime\x00", b"throughtime embedded ", b"<!doctype html>\n<!-- throughtime report -->")
"""How compressed files, files for C and reports begin."""
MODEL = {DESCRIPTION, WEIGHTS}
RUN = ({RECIPE, JOURNAL}, {RECIPE, "lock"}, {RECIPE, "checkpoints"})


def is_output_folder(folder: Path) -> bool:
    """Whether a folder is a run, one that was not brought to its end too, or a model.

    Raises:
        ThroughtimeError: where it cannot be read.
    """
    try:
        names = set(os.listdir(folder))
    except OSError as error:
        raise ThroughtimeError(f"cannot read the folder {printable(str(folder))}: {error.strerror}") from None
    if folder.name.endswith(PARTIAL) or names >= MODEL or any(names >= marks for marks in RUN):
        return True
    return "lock" in names and any(is_temporary(name, RECIPE) for name in names)


def is_output(path: Path) -> bool:
    """Whether a regular file is one that a command wrote, or had not finished."""
    if path.name.endswith(PARTIAL):
        return True
    with open_regular(path) as file:
        head = file.read(max(map(len, STARTS)))
    return head.startswith(STARTS)
