"""The folder of a run, and the model folder in it.

A run holds recipe.toml, tokenizer.json, journal.jsonl, best/, last/, curve.svg and card.md. best/ and last/ each hold
model.safetensors and model.json; one of them beside a tokenizer.json is a model folder. No pickle anywhere.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from throughtime import recipe as recipes
from throughtime.errors import ThroughtimeError
from throughtime.models.language import LanguageModel
from throughtime.recipe import Model, Recipe, Text
from throughtime.text import tokenizer as tokenizers
from throughtime.text.tokenizer import Tokenizer
from throughtime.version import VERSION

FORMAT = 1


class Loaded(NamedTuple):
    """A trained model and what belongs to it."""

    model: LanguageModel
    tokenizer: Tokenizer
    recipe: Recipe | None
    """None for a model folder outside its run."""
    folder: Path
    """Where the model lies."""


def load(run: str | Path) -> Loaded:
    """The best model of a run folder, or the model of a model folder.

    Raises:
        ThroughtimeError: where a part is missing, damaged, or does not belong to the others.
    """
    run = Path(run)
    if not run.is_dir():
        raise ThroughtimeError(f"there is no run folder {run}; `throughtime train` makes one")
    folder = next((found for found in (run / "best", run) if (found / "model.json").exists()), None)
    if folder is None:
        raise ThroughtimeError(f"{run} is neither a run nor a model folder: it has no model.json, nor has its best/")
    home = next((found for found in (folder, folder.parent) if (found / "tokenizer.json").exists()), None)
    if home is None:
        raise ThroughtimeError(f"{folder} has no tokenizer.json, nor has {folder.parent}; copy it from the run")
    tokenizer = tokenizers.load(home / "tokenizer.json")
    recipe = home / "recipe.toml"
    return Loaded(
        load_model(folder, tokenizer.vocabulary_size),
        tokenizer,
        recipes.build(recipes.read(str(recipe))) if recipe.exists() else None,
        folder,
    )


def free_folder(out: str | Path | None, text: Text) -> Path:
    """The folder for a new run, not made yet: `out`, or the next free name under runs/, after the text.

    Raises:
        ThroughtimeError: where `out` holds something already.
    """
    if out is not None:
        folder = Path(out)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ThroughtimeError(f"{folder} holds something already; give --out a folder that is new or empty")
        return folder
    first = text.sources[0] if text.sources else ""
    stem = Path(first.replace("*", "").replace(":", "-")).stem.strip("-") or "text"
    folders = (Path("runs", f"{stem}-{text.tokens}" + (f"-{n}" if n > 1 else "")) for n in count(1))
    return next(folder for folder in folders if not folder.exists())


def settled(recipe: Recipe) -> Recipe:
    """The recipe with its files named from the root, so that it means the same from any folder."""

    def from_root(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            name if name in ("-", "builtin", "builtin:stdlib") else str(Path(name).expanduser().absolute())
            for name in names
        )

    text = recipe.text
    moved = {name: from_root(getattr(text, name)) for name in ("sources", "valid", "test")}
    return recipe.model_copy(update={"text": text.model_copy(update=moved)})


def save_model(folder: Path, model: LanguageModel, facts: Mapping[str, Any]) -> None:
    """Write a model folder's own two files: aside, then in place of the old one."""
    aside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file({name: array.contiguous() for name, array in model.state_dict().items()}, aside / "model.safetensors")
    description = {
        "format": FORMAT,
        "task": "language",
        "vocabulary_size": model.vocabulary_size,
        "model": model.settings.model_dump(),
        "throughtime": VERSION,
        "trained": dict(facts),
    }
    (aside / "model.json").write_text(json.dumps(description, indent=2) + "\n", "utf-8")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_model(folder: Path, vocabulary_size: int) -> LanguageModel:
    """The model in a folder, checked against its description and the tokeniser's size."""
    description = _describe(folder / "model.json")
    try:
        settings = Model.model_validate(description["model"])
        told = int(description["vocabulary_size"])
    except (KeyError, TypeError, ValidationError) as error:
        raise ThroughtimeError(f"{folder / 'model.json'} does not describe a model: {_line(error)}") from None
    if told != vocabulary_size:
        raise ThroughtimeError(f"the model in {folder} has {told} tokens, the tokeniser {vocabulary_size}: wrong pair")
    try:
        arrays = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ThroughtimeError(f"cannot read {folder / 'model.safetensors'}: {_line(error)}") from None
    with torch.device("meta"):
        model = LanguageModel(settings, vocabulary_size)
    _check(folder, {name: array for name, array in model.state_dict().items()}, arrays)
    model.load_state_dict(arrays, assign=True)
    return model.requires_grad_(False)


def _describe(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ThroughtimeError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ThroughtimeError(f"{path} is not JSON: {error}") from None
    if (
        not isinstance(description, dict)
        or description.get("format") != FORMAT
        or description.get("task") != "language"
    ):
        raise ThroughtimeError(f"{path} is not a language model of format {FORMAT}; was it written by a newer version?")
    return description


def _check(folder: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    weights = folder / "model.safetensors"
    for name in sorted(wanted.keys() ^ found.keys()):
        raise ThroughtimeError(f"{weights} {'lacks' if name in wanted else 'has an unknown'} array {name}")
    for name, array in wanted.items():
        if (array.shape, array.dtype) != (found[name].shape, found[name].dtype):
            raise ThroughtimeError(
                f"{name} in {weights} should be {array.dtype} of shape {list(array.shape)}, "
                f"got {found[name].dtype} of shape {list(found[name].shape)}"
            )
        if not bool(found[name].isfinite().all()):
            raise ThroughtimeError(f"{name} in {weights} holds values that are not finite")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
