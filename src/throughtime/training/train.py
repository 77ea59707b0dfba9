"""Beginning a training, and going on with one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import torch

from throughtime import recipe as recipes
from throughtime.errors import ThroughtimeError
from throughtime.folder import RECIPE
from throughtime.machine import usable_threads
from throughtime.recipe import Recipe
from throughtime.text.dataset import Dataset, prepare
from throughtime.training.display import Display, Silence
from throughtime.training.introduction import introduction
from throughtime.training.learner import Learner
from throughtime.training.lock import locked
from throughtime.training.loop import Result, Trainer
from throughtime.training.ranks import Ranks, started_again, this_rank
from throughtime.training.resume import find_checkpoint, identity
from throughtime.training.run import free_folder, settled


def train(
    recipe: Recipe | Mapping[str, Any] | str, out: str | Path | None = None, display: Display | None = None
) -> Result:
    """Train a model as a recipe says.

    Args:
        recipe: a Recipe, a tree of settings, the name of a recipe, or a TOML file.
        out: the run folder, which must not hold anything yet; None: a new one under runs/.
        display: shows how it goes; None: nothing does.

    PyTorch goes on with the recipe's number of threads afterwards.

    Raises:
        ThroughtimeError: where a setting is wrong, a text cannot be read, the folder is in use, or the loss is no
            longer finite.
        TerminationError: where the system asked it to end; `resume` goes on.
    """
    if isinstance(recipe, str):
        recipe = recipes.read(recipe)
    if not isinstance(recipe, Recipe):
        recipe = recipes.build(recipe)
    mine = this_rank()
    if started_again() and _has_begun(out, mine):
        return _go_on(Path(str(out)), {}, display, mine)
    dataset = _prepare(recipe, mine)
    folder = Path(os.fsdecode(mine.share(os.fsencode(free_folder(out, recipe.text)) if mine.leads else b"")))
    with _held(folder, mine), closing(_shown(display, mine)) as shown:
        if mine.leads:
            free_folder(folder, recipe.text)  # another training may have come first
        return Trainer(settled(recipe), dataset, folder, shown, mine).run(None)


def resume(out: str | Path, changes: Mapping[str, Any] | None = None, display: Display | None = None) -> Result:
    """Go on with a run from its newest checkpoint that holds, as if nothing had happened.

    Args:
        out: the run folder.
        changes: a tree of settings to be laid over the run's own; those that decide the numbers must be the same.
        display: as for `train`.

    Raises:
        ThroughtimeError, TerminationError: as `train` does; and where there is no run, its budget is used up, or its
            recipe, text or tokeniser was another.
    """
    return _go_on(Path(out), changes or {}, display, this_rank())


def dry_run(recipe: Recipe) -> list[str]:
    """What `train` would say first. The text is read and tokenised, the model built, nothing trained or written."""
    dataset = prepare(recipe.text)
    learner = Learner(recipe, dataset, Ranks())
    return introduction(recipe, dataset, learner.partition, learner.model)


def _go_on(folder: Path, changes: Mapping[str, Any], display: Display | None, mine: Ranks) -> Result:
    if mine.leads and not folder.is_dir():
        raise ThroughtimeError(f"there is no run in {folder} to go on with; leave --resume out to begin one")
    with _held(folder, mine), closing(_shown(display, mine)) as shown:
        found = find_checkpoint(folder, changes) if mine.leads else None
        for note in found.notes if found else ():
            shown.say(note)
        tree = json.loads(mine.share(json.dumps(found.recipe.model_dump(mode="json") if found else {}).encode()))
        recipe = recipes.build(tree)
        return Trainer(recipe, _prepare(recipe, mine), folder, shown, mine).run(found.checkpoint if found else None)


def _has_begun(out: str | Path | None, mine: Ranks) -> bool:
    """Whether the run of processes that had died is there."""
    if out is None:
        raise ThroughtimeError("the processes were started again, and only --out tells which run was theirs")
    return bool(mine.share(b"1" if mine.leads and (Path(out) / RECIPE).exists() else b""))


def _prepare(recipe: Recipe, mine: Ranks) -> Dataset:
    """The text, read by one process of a machine first; and as many threads as are this process's."""
    threads = max(1, usable_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(min(recipe.training.threads or threads, threads))
    with mine.in_turn():
        dataset = prepare(recipe.text)
    digests = json.dumps(identity(dataset)).encode()
    if mine.share(digests) != digests:
        raise ThroughtimeError(
            f"{', '.join(recipe.text.sources)} is another text here than where the first process runs; "
            "give every machine the same"
        )
    return dataset


def _held(folder: Path, mine: Ranks) -> AbstractContextManager[None]:
    return locked(folder) if mine.leads else nullcontext()


def _shown(display: Display | None, mine: Ranks) -> Display:
    return display if display is not None and mine.leads else Silence()
