"""What is checked before a training begins, so that a wrong start is refused once, and before processes are started."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from throughtime.errors import ThroughtimeError
from throughtime.recipe import Recipe
from throughtime.tasks.base import Data
from throughtime.tasks.registry import make_task
from throughtime.training.budget import Budget
from throughtime.training.learner import check_model, cut
from throughtime.training.lock import locked
from throughtime.training.ranks import Ranks
from throughtime.training.resume import check, circumstances, ended, find_checkpoint, refuse_finished
from throughtime.training.run import check_free


def check_start(recipe: Recipe, out: Path, processes: int) -> None:
    """Refuse what so many processes could not train on.

    Raises:
        ThroughtimeError: as `train` does.
    """
    task = make_task(recipe)
    check_free(out)
    task.refuse_streams(processes)
    _cut(recipe, task.read(), processes)
    with locked(out):
        check_free(out)


def check_resume(folder: Path, changes: Mapping[str, Any], processes: int) -> None:
    """Refuse what so many processes could not go on with.

    Raises:
        ThroughtimeError: as `resume` does.
    """
    refuse_no_run(folder)
    with locked(folder):
        found = find_checkpoint(folder, changes)
        recipe = found.recipe
        task = make_task(recipe)
        task.refuse_streams(processes)
        data = task.read_again(folder)
        budget = _cut(recipe, data, processes)
        if found.checkpoint is None:
            return
        facts = found.checkpoint.facts
        check(folder, facts, circumstances(data, Ranks(0, processes)))
        steps, since_best = facts["learner"]["counts"]["steps"], facts["watch"]["since_best"]
        ending = ended(recipe.training, budget.progress(steps, facts["seconds"]), since_best)
        refuse_finished(folder, ending, steps, since_best)


def refuse_no_run(folder: Path) -> None:
    """Refuse to go on where there is no folder (ThroughtimeError)."""
    if not folder.is_dir():
        raise ThroughtimeError(f"there is no run in {folder} to go on with; leave --resume out to begin one")


def _cut(recipe: Recipe, data: Data, processes: int) -> Budget:
    """What the processes will make of the data and the model, without making it."""
    truncation, source = cut(recipe, data, Ranks(0, processes))
    check_model(recipe, data)
    return Budget.of(recipe.training, partial(truncation.updates, source))
