"""The model folder: model.safetensors, model.json and, in it or above it, tokenizer.json. No pickle anywhere.

Reading it trusts nothing: what is missing, damaged or does not belong to the rest is said in one line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from throughtime.durable import READ_WRITE, replace_file
from throughtime.errors import ThroughtimeError
from throughtime.recipe import Model, Recipe, load
from throughtime.untrusted import parse_json, read_file

FORMAT = 1
WEIGHTS, DESCRIPTION, TOKENIZER = "model.safetensors", "model.json", "tokenizer.json"
RECIPE, JOURNAL = "recipe.toml", "journal.jsonl"
SCALE = ".scale"

Floats = NDArray[np.float32]


class Place(NamedTuple):
    """Where the parts of a model lie."""

    folder: Path
    """The weights and their description."""
    home: Path
    """The tokeniser, and the recipe where there is a run."""


class Description(NamedTuple):
    """What model.json says."""

    settings: Model
    vocabulary_size: int


def find(run: str | Path) -> Place:
    """The best model of a run folder, or the model of a model folder.

    Raises:
        ThroughtimeError: where there is none.
    """
    run = Path(run)
    if not run.is_dir():
        raise ThroughtimeError(f"there is no run folder {run}; `throughtime train` makes one")
    folder = next((found for found in (run / "best", run) if (found / DESCRIPTION).exists()), None)
    if folder is None:
        raise ThroughtimeError(f"{run} is neither a run nor a model folder: it has no {DESCRIPTION}, nor has its best/")
    home = next((found for found in (folder, folder.parent) if (found / TOKENIZER).exists()), None)
    if home is None:
        raise ThroughtimeError(f"{folder} has no {TOKENIZER}, nor has {folder.parent}; copy it from the run")
    return Place(folder, home)


def recipe_beside(place: Place) -> Recipe | None:
    """The recipe a model was trained by; None for a model folder outside its run."""
    path = place.home / RECIPE
    return load(path) if path.exists() else None


def text_digests(folder: Path) -> dict[str, str]:
    """What a run keeps of its texts: the digest of each split, by name; empty where it keeps none.

    A model folder has them in model.json. Models of earlier versions have none: then the checkpoints beside them tell.
    """
    checkpoints = sorted((folder.parent / "checkpoints").glob("step-*/facts.json"), reverse=True)
    for path, section, key in ((folder / DESCRIPTION, "trained", "texts"), *((p, "", "text") for p in checkpoints)):
        try:
            content = parse_json(read_file(path), path)
        except ThroughtimeError:
            continue
        part = content.get(section) if isinstance(content, dict) and section else content
        found = part.get(key) if isinstance(part, dict) else None
        if isinstance(found, dict) and found and all(isinstance(digest, str) for digest in found.values()):
            return found
    return {}


def write_description(folder: Path, description: Description, version: str, trained: Mapping[str, Any]) -> None:
    """Write model.json; `trained` is what is worth knowing of how the weights came about."""
    content = {
        "format": FORMAT,
        "task": "language",
        "vocabulary_size": description.vocabulary_size,
        "model": description.settings.model_dump(),
        "throughtime": version,
        "trained": dict(trained),
    }
    replace_file(folder / DESCRIPTION, (json.dumps(content, indent=2) + "\n").encode())


def read_description(folder: Path, tokens: int) -> Description:
    """What the model in a folder is, checked against the size of its tokeniser.

    Raises:
        ThroughtimeError: where model.json is missing or damaged, or the two do not belong together.
    """
    path = folder / DESCRIPTION
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ThroughtimeError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ThroughtimeError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("task") != "language":
        raise ThroughtimeError(f"{path} is not a language model of format {FORMAT}; was it written by a newer version?")
    try:
        found = Description(Model.model_validate(content["model"]), int(content["vocabulary_size"]))
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise ThroughtimeError(f"{path} does not describe a model: {_line(error)}") from None
    if found.vocabulary_size != tokens:
        raise ThroughtimeError(
            f"the model in {folder} has {found.vocabulary_size} tokens, the tokeniser {tokens}: wrong pair"
        )
    return found


class Weights(NamedTuple):
    """What model.safetensors holds."""

    arrays: dict[str, Floats]
    """By their names, made float32."""
    digest: str
    """SHA-256 of the file."""
    held: str
    """How matrices are held in it: `float32` or `int8`."""


def write_weights(folder: Path, arrays: Mapping[str, Floats], held: str = "float32", mode: int = READ_WRITE) -> None:
    """Write model.safetensors: matrices as `held` says, vectors as float32; with these permissions before the umask.

    An int8 matrix has the array NAME.scale beside it: what 1 counts in each row.
    """
    entries: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        entries[name] = np.ascontiguousarray(array, np.float32)
        if held == "int8" and array.ndim == 2:
            entries[name], entries[name + SCALE] = whole_numbers(entries[name])
    replace_file(folder / WEIGHTS, save(entries), mode)


def read_weights(folder: Path, wanted: Mapping[str, tuple[int, ...]]) -> Weights:
    """The arrays of a model.

    Args:
        folder: the model folder.
        wanted: the names and shapes that there should be.

    Raises:
        ThroughtimeError: where the file is missing or damaged, or an array is missing, unknown, of another type or
            shape, or not finite.
    """
    path = folder / WEIGHTS
    try:
        content = path.read_bytes()
        entries = dict(deserialize(content))
    except OSError as error:
        raise ThroughtimeError(f"cannot read {path}: {error.strerror}") from None
    except SafetensorError as error:
        raise ThroughtimeError(f"cannot read {path}: {_line(error)}") from None
    scales = {
        name + SCALE: shape[:1]
        for name, shape in wanted.items()
        if len(shape) == 2 and name in entries and entries[name]["dtype"] == "I8"
    }
    for name in sorted((wanted.keys() | scales.keys()) ^ entries.keys()):
        known = name in wanted or name in scales
        raise ThroughtimeError(f"{path} {'lacks' if known else 'has an unknown'} array {name}")
    arrays: dict[str, Floats] = {}
    for name, shape in {**scales, **wanted}.items():
        entry = entries[name]
        kind = "I8" if name + SCALE in scales else "F32"
        if (entry["dtype"], entry["shape"]) != (kind, list(shape)):
            raise ThroughtimeError(
                f"{name} in {path} should be {kind} of shape {list(shape)}, got {entry['dtype']} of shape "
                f"{entry['shape']}"
            )
        if kind == "I8":
            arrays[name] = np.frombuffer(entry["data"], np.int8).reshape(shape) * arrays[name + SCALE][:, None]
        else:
            arrays[name] = np.frombuffer(entry["data"], "<f4").reshape(shape)
        if not np.isfinite(arrays[name]).all():
            raise ThroughtimeError(f"{name} in {path} holds values that are not finite")
    return Weights(
        {name: arrays[name] for name in wanted}, hashlib.sha256(content).hexdigest(), "int8" if scales else "float32"
    )


def whole_numbers(matrix: Floats) -> tuple[NDArray[np.int8], Floats]:
    """A matrix as int8, and what 1 counts in each row: the largest number of a row is 127."""
    scale: Floats = np.abs(matrix).max(1) / np.float32(127)
    return np.rint(matrix / np.where(scale > 0, scale, np.float32(1))[:, None]).astype(np.int8), scale


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
