"""Going on with a run: which settings may be others, and whether the text and the machine are the same.

Texts are compared by their digests: where they lie may change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from throughtime import engine
from throughtime import folder as folders
from throughtime import recipe as recipes
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.recipe import Recipe
from throughtime.tasks.base import Data
from throughtime.tasks.registry import make_task
from throughtime.training.card import CARD, is_ended
from throughtime.training.checkpoint import Checkpoint, Checkpoints
from throughtime.training.facts import accepted, recipe_of
from throughtime.training.ranks import Ranks
from throughtime.training.run import with_cell_source
from throughtime.training.settings import Training
from throughtime.untrusted import printable
from throughtime.version import VERSION

CHECKPOINTS = "checkpoints"
MODELS = "best", "last"


class Resumed(NamedTuple):
    """A run that can go on."""

    recipe: Recipe
    checkpoint: Checkpoint | None
    """None: there was none yet, and the run begins anew."""
    notes: list[str]
    """What the user should know, in lines."""


def store(folder: Path, recipe: Recipe) -> Checkpoints:
    """The checkpoints of a run."""
    training = recipe.training
    return Checkpoints(folder / CHECKPOINTS, training.checkpoint_keep, training.checkpoint_keep_every, accepted)


def find_checkpoint(folder: Path, changes: Mapping[str, Any]) -> Resumed:
    """What a run goes on from.

    Args:
        folder: the run's.
        changes: settings to be laid over those of the run, which are those of its recipe.toml.

    Raises:
        ThroughtimeError: where there is no run, or it could only begin anew and something would be lost by that.
        SettingError: where a setting is wrong, or decides the numbers and is another than the run's.
    """
    found = Checkpoints(folder / CHECKPOINTS, accept=accepted).newest()
    notes = list(found.notes)
    if found.checkpoint is not None:
        recipe = recipe_of(found.checkpoint.facts)
        told, remarks = _told(folder, recipe)
        notes += [*remarks, f"going on after step {found.checkpoint.step:,}, from {found.checkpoint.folder}"]
    elif notes:
        raise ThroughtimeError(f"no checkpoint in {folder} holds: {'; '.join(notes)}; begin a new run")
    elif (folder / folders.RECIPE).exists():
        _refuse_loss(folder)
        recipe = told = recipes.load(folder / folders.RECIPE)
        notes.append(f"{folder} was ended before its first checkpoint: it begins anew")
    else:
        raise ThroughtimeError(f"there is no run in {folder} to go on with; leave --resume out to begin one")
    wanted = recipes.build(recipes.change(told.model_dump(mode="json"), changes))
    wanted = make_task(with_cell_source(wanted)).settled()
    _refuse_others(folder, recipe, wanted)
    return Resumed(wanted, found.checkpoint, notes)


def _told(folder: Path, recipe: Recipe) -> tuple[Recipe, list[str]]:
    """What the run's recipe.toml tells, where it can be read, and how that differs from the checkpoint's, in lines.

    Raises:
        SettingError: where somebody wrote a setting into it that is unknown or wrong.
    """
    path = folder / folders.RECIPE
    if not path.exists():
        return recipe, []
    try:
        tree = recipes.read(path)
    except SettingError as error:
        return recipe, [f"{error}; going by the recipe of the checkpoint"]
    try:
        told = recipes.build(tree)
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from None
    return told, [
        f"{path} was changed: {name} was {old!r}, now it is {new!r}" for name, old, new in _differences(recipe, told)
    ]


def _differences(recipe: Recipe, other: Recipe) -> Iterator[tuple[str, Any, Any]]:
    for section in Recipe.model_fields:
        for name, old in getattr(recipe, section):
            if (new := getattr(getattr(other, section), name)) != old:
                yield f"{section}.{name}", old, new


def _refuse_loss(folder: Path) -> None:
    """Refuse to begin anew where models or a journal would be written over.

    A run has an empty folder of checkpoints from its beginning to the first one. Where that is not there, or the run
    came to its end, or this is a model folder and no run, there was more than can be made again by beginning anew.
    """
    held = [name for name in (CARD, folders.WEIGHTS, folders.DESCRIPTION) if (folder / name).exists()]
    if not (folder / CHECKPOINTS).is_dir():
        held += [name for name in (*MODELS, folders.JOURNAL) if (folder / name).exists()]
    if held:
        raise ThroughtimeError(
            f"{folder} has no checkpoint to go on from, and {', '.join(held)}, which would be lost if it began anew; "
            f"train into another folder: throughtime train --recipe {folder / folders.RECIPE} --out NEW"
        )


def ended(training: Training, progress: float, since_best: int) -> str | None:
    """Why there is nothing left to train, `budget` or `patience`; None where there is."""
    if progress >= 1:
        return "budget"
    return "patience" if 0 < training.patience <= since_best else None


def refuse_finished(folder: Path, ending: str | None, steps: int, since_best: int) -> None:
    """Refuse to go on with a run that was brought to its end and has nothing left to train (ThroughtimeError)."""
    if ending and is_ended(folder):
        raise ThroughtimeError(
            f"{folder} has used up its {ending} after {steps:,} steps; give it more to go on, such as --"
            + (f"steps {2 * steps}" if ending == "budget" else f"set training.patience={2 * since_best}")
        )


Keep = Callable[[str, str, Tensor], Tensor]
"""File, name, array of a checkpoint -> what a process holds of it."""


def share(found: Checkpoint | None, ranks: Ranks, keep: Keep) -> Checkpoint | None:
    """The checkpoint that the process that leads has found, for all, array by array."""
    parts = {} if found is None else found.arrays
    about = (
        {}
        if found is None
        else {
            "step": found.step,
            "facts": found.facts,
            "folder": str(found.folder),
            "parts": {part: list(arrays) for part, arrays in parts.items()},
        }
    )
    about = json.loads(ranks.share(json.dumps(about).encode()))
    if not about:
        return None

    def passed(part: str, name: str) -> Tensor:
        if ranks.count == 1:
            return parts[part][name]
        return load(ranks.share(save({name: parts[part][name]}) if ranks.leads else b""))[name]

    arrays = {
        part: {name: keep(part, name, passed(part, name)) for name in names} for part, names in about["parts"].items()
    }
    return Checkpoint(about["step"], arrays, about["facts"], Path(about["folder"]))


def circumstances(data: Data, ranks: Ranks) -> dict[str, Any]:
    """What a run must find again, or the numbers would be others: the text; and what it should, to the last bit."""
    return {
        **data.fingerprints(),
        "machine": {
            "throughtime": VERSION,
            "PyTorch": torch.__version__,
            "kernels": engine.level() or "none",
            "processes": ranks.count,
            "threads": torch.get_num_threads(),
        },
    }


def check(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Hold the circumstances of a checkpoint against those of now; what differs without being wrong, in lines.

    Raises:
        ThroughtimeError: where the text or the tokeniser is another.
    """
    for split in sorted(before["text"].keys() | now["text"].keys()):
        if before["text"].get(split) != now["text"].get(split):
            raise ThroughtimeError(
                f"the {printable(split)} text is not the one that {folder} was trained on; begin a new run with it"
            )
    if before["tokeniser"] != now["tokeniser"]:
        raise ThroughtimeError(f"the tokeniser is not the one that {folder} was trained with; begin a new run")
    differing = {name: (before["machine"].get(name, "unknown"), value) for name, value in now["machine"].items()}
    return [
        f"{name} was {printable(str(old))}, now it is {value}: the last bits of the numbers may be others"
        for name, (old, value) in differing.items()
        if old != value
    ]


def _refuse_others(folder: Path, recipe: Recipe, wanted: Recipe) -> None:
    differing = [
        f"{name} (was {old!r}, now {new!r})"
        for name, old, new in _differences(recipe, wanted)
        if name not in recipes.changeable()
    ]
    if differing:
        raise SettingError(f"{folder} cannot go on with another {', '.join(differing)}; begin a new run for that")
