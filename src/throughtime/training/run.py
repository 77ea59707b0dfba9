"""The folder of a run.

A run holds recipe.toml, the codec's files (tokenizer.json), journal.jsonl, checkpoints/, best/, last/, curve.svg and
card.md. best/ and last/ are model folders (`models.saved`).
"""

from __future__ import annotations

import stat
from itertools import count
from pathlib import Path
from typing import final

from throughtime.cells.outside import registered_by
from throughtime.cells.registry import family
from throughtime.durable import is_temporary
from throughtime.errors import ThroughtimeError
from throughtime.folder import RECIPE
from throughtime.recipe import Recipe
from throughtime.training.card import is_ended
from throughtime.training.launch import LAUNCH
from throughtime.training.lock import LOCK


@final
class Whereabouts:
    """Remembers which folder lies under the path of a run folder, so that no other is written to."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._identity = self._look()

    def check(self) -> None:
        """Raise a ThroughtimeError where the folder was moved or removed since."""
        if self._look() != self._identity:
            raise ThroughtimeError(
                f"the run folder {self._folder} was moved or removed while its training ran, which ends here; where it "
                "was moved, it goes on from its last checkpoint with --resume and its new name as --out"
            )

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._folder.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def free_folder(name: str) -> Path:
    """The folder for a new run, not made yet: the next free one under runs/ of this name."""
    free = (Path("runs", name + (f"-{n}" if n > 1 else "")) for n in count(1))
    return next(folder for folder in free if not folder.exists())


def check_free(folder: Path) -> None:
    """Check that a new run may use a folder.

    Raises:
        ThroughtimeError: where it holds something already, be it an unfinished run.
    """
    if (folder / RECIPE).exists() and not is_ended(folder):
        raise ThroughtimeError(f"{folder} holds an unfinished run; go on with --resume, or give another --out")
    if folder.exists() and (not folder.is_dir() or not all(map(_was_left_by_killed, folder.iterdir()))):
        raise ThroughtimeError(f"{folder} holds something already; give --out a folder that is new or empty")


def _was_left_by_killed(path: Path) -> bool:
    """Whether it is what a training leaves that is killed before it has written its recipe."""
    names = path.name in (LOCK, LAUNCH) or is_temporary(path.name, RECIPE) or is_temporary(path.name, LAUNCH)
    return names and stat.S_ISREG(path.lstat().st_mode)


def with_cell_source(recipe: Recipe) -> Recipe:
    """The recipe with the module or file that its cell comes from (`model.registered_by`).

    Raises:
        SettingError: where the cell is not registered.
    """
    family(recipe.model.cell, recipe.model.registered_by)
    model = recipe.model.model_copy(update={"registered_by": registered_by(recipe.model.cell)})
    return recipe.model_copy(update={"model": model})
