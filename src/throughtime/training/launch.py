"""Which launch of processes began a run, so that processes that are started again go on with that run and no other."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from throughtime.durable import remove_file, replace_file
from throughtime.errors import ThroughtimeError
from throughtime.training.launcher import TOKEN
from throughtime.training.ranks import Ranks
from throughtime.untrusted import read_text

LAUNCH = "launch"
"""The file in a run folder that names the launch, from the beginning of the training to its end."""
LONGEST = 1000
"""Most bytes of the file that are read."""


def begun_here(folder: Path, ranks: Ranks) -> bool:
    """Whether this launch began the run in the folder. Every process asks; the one that leads looks."""
    return bool(ranks.share(b"1" if ranks.leads and _written(folder) == _token() else b""))


def claim(folder: Path) -> None:
    """Note in the run folder that this launch begins the run."""
    replace_file(folder / LAUNCH, _token().encode())


def release(folder: Path) -> None:
    """Remove the note: the run is at its end, and nothing is to go on with it."""
    if (folder / LAUNCH).exists():
        remove_file(folder / LAUNCH)


def _written(folder: Path) -> str | None:
    try:
        return read_text(folder / LAUNCH, LONGEST)
    except ThroughtimeError:
        return None


def _token() -> str:
    """The launcher's own name for the launch; of torchrun, the process that started this one and starts it again."""
    return os.environ.get(TOKEN) or f"process {os.getppid()} on {platform.node()}, {_began(os.getppid())}"


def _began(process: int) -> str:
    """When a process began, in ticks of the system's clock, for numbers of processes come again; empty where only Linux
    would tell."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
