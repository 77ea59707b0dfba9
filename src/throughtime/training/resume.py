"""Going on with a run: which settings may be others, and whether the text and the machine are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
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
from throughtime.text.dataset import Dataset
from throughtime.training.checkpoint import Checkpoint, Checkpoints
from throughtime.training.ranks import Ranks
from throughtime.training.run import settled
from throughtime.version import VERSION

CHECKPOINTS = "checkpoints"
MAY_CHANGE = (
    "text.workers",
    *(
        f"training.{name}"
        for name in (
            *recipes.BUDGETS, "validations", "patience", "sample_tokens", "nonfinite", "rollback_rate", "threads",
            "signs_every", "shard", "checkpoint_every", "checkpoint_minutes", "checkpoint_keep",
            "checkpoint_keep_every",
        )
    ),
)  # fmt: skip
"""Settings that a run may go on with another value of."""


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
    return Checkpoints(folder / CHECKPOINTS, training.checkpoint_keep, training.checkpoint_keep_every)


def find_checkpoint(folder: Path, changes: Mapping[str, Any]) -> Resumed:
    """What a run goes on from.

    Args:
        folder: the run's.
        changes: settings to be laid over those of the run.

    Raises:
        ThroughtimeError: where there is no run.
        SettingError: where a setting is wrong, or decides the numbers and is another than the run's.
    """
    found = Checkpoints(folder / CHECKPOINTS).newest()
    notes = list(found.notes)
    if found.checkpoint is not None:
        recipe = recipes.build(found.checkpoint.facts["recipe"])
        notes.append(f"going on after step {found.checkpoint.step:,}, from {found.checkpoint.folder}")
    elif notes:
        raise ThroughtimeError(f"no checkpoint in {folder} holds: {'; '.join(notes)}; begin a new run")
    elif (folder / folders.RECIPE).exists():
        recipe = recipes.build(recipes.read(str(folder / folders.RECIPE)))
        notes.append(f"{folder} was ended before its first checkpoint: it begins anew")
    else:
        raise ThroughtimeError(f"there is no run in {folder} to go on with; leave --resume out to begin one")
    wanted = settled(recipes.build(recipes.change(recipe.model_dump(mode="json"), changes)))
    _refuse_others(folder, recipe, wanted)
    return Resumed(wanted, found.checkpoint, notes)


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


def identity(dataset: Dataset) -> dict[str, Any]:
    """Which text is read, and in which tokens: by digests."""
    return {
        "text": {name: ids.facts.text for name, ids in dataset.splits().items()},
        "tokeniser": dataset.tokenizer.digest,
    }


def circumstances(dataset: Dataset, ranks: Ranks) -> dict[str, Any]:
    """What a run must find again, or the numbers would be others: the text; and what it should, to the last bit."""
    return {
        **identity(dataset),
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
                f"the {split} text is not the one that {folder} was trained on; begin a new run with it"
            )
    if before["tokeniser"] != now["tokeniser"]:
        raise ThroughtimeError(f"the tokeniser is not the one that {folder} was trained with; begin a new run")
    return [
        f"{name} was {before['machine'][name]}, now it is {value}: the last bits of the numbers may be others"
        for name, value in now["machine"].items()
        if before["machine"][name] != value
    ]


def _refuse_others(folder: Path, recipe: Recipe, wanted: Recipe) -> None:
    differing = [
        f"{section}.{name} (was {old!r}, now {new!r})"
        for section in Recipe.model_fields
        for name, old in getattr(recipe, section)
        if (new := getattr(getattr(wanted, section), name)) != old and f"{section}.{name}" not in MAY_CHANGE
    ]
    if differing:
        raise SettingError(f"{folder} cannot go on with another {', '.join(differing)}; begin a new run for that")
