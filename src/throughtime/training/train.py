"""Beginning a training, and going on with one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from throughtime import recipe as recipes
from throughtime.errors import ThroughtimeError
from throughtime.machine import usable_threads
from throughtime.models.language import LanguageModel
from throughtime.recipe import Recipe
from throughtime.text.dataset import prepare
from throughtime.training.display import Display, Silence
from throughtime.training.lock import locked
from throughtime.training.loop import Result, Trainer, cutting, introduction
from throughtime.training.resume import find_checkpoint
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
    folder = free_folder(out, recipe.text)
    dataset = prepare(recipe.text)
    with locked(folder), closing(display or Silence()) as shown:
        free_folder(folder, recipe.text)  # another training may have come first
        _use_threads(recipe)
        return Trainer(settled(recipe), dataset, folder, shown).run(None)


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
    folder = Path(out)
    if not folder.is_dir():
        raise ThroughtimeError(f"there is no run in {folder} to go on with; leave --resume out to begin one")
    with locked(folder), closing(display or Silence()) as shown:
        found = find_checkpoint(folder, changes or {})
        for note in found.notes:
            shown.say(note)
        _use_threads(found.recipe)
        return Trainer(found.recipe, prepare(found.recipe.text), folder, shown).run(found.checkpoint)


def dry_run(recipe: Recipe) -> list[str]:
    """What `train` would say first. The text is read and tokenised, the model built, nothing trained or written."""
    dataset = prepare(recipe.text)
    _, cut = cutting(recipe, dataset)
    return introduction(recipe, dataset, cut, LanguageModel(recipe.model, dataset.tokenizer.vocabulary_size))


def _use_threads(recipe: Recipe) -> None:
    threads = usable_threads()
    torch.set_num_threads(min(recipe.training.threads or threads, threads))
