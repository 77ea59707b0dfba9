"""The model folder: model.safetensors, model.json and, in it or above it, tokenizer.json. No pickle anywhere.

Reading it trusts nothing: what is missing, damaged or does not belong to the rest is said in one line.
"""

from __future__ import annotations

import hashlib
import math
import os
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
from throughtime.models.settings import Model
from throughtime.recipe import Recipe, load, read
from throughtime.text.settings import Text
from throughtime.untrusted import first_finding, open_regular, parse_json, printable, read_file, to_json

FORMAT = 1
WEIGHTS, DESCRIPTION, TOKENIZER = "model.safetensors", "model.json", "tokenizer.json"
RECIPE, JOURNAL = "recipe.toml", "journal.jsonl"
SCALE = ".scale"
METADATA, CHECKSUM = "__metadata__", "sha256"
LARGEST_HEADER = 1 << 22
"""Bytes of JSON at the beginning of a file of weights."""

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
    tokenizer: str | None = None
    """Fingerprint of the tokeniser; None in a folder of an older version."""
    separator: str | None = None
    """Text after which a document ends and the state is reset, empty where there is none; None in a folder of an older
    version, whose recipe.toml says it."""


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
    """The recipe a model was trained by; None for a model folder outside its run.

    Raises:
        ThroughtimeError: where recipe.toml cannot be read or is no recipe.
    """
    path = place.home / RECIPE
    return load(path) if path.exists() else None


def separator_of(place: Place, description: Description) -> str:
    """The text after which a model's documents end, empty where there is none.

    Raises:
        ThroughtimeError: where recipe.toml has to say it, and cannot be read.
    """
    if description.separator is not None:
        return description.separator
    text = (_recipe_tree(place) or {}).get("text")
    found = text.get("separator", "") if isinstance(text, dict) else ""
    return found if isinstance(found, str) else ""


def _recipe_tree(place: Place) -> dict[str, Any] | None:
    path = place.home / RECIPE
    return read(path) if path.exists() else None


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
        "tokenizer": description.tokenizer,
        "separator": description.separator,
        "model": description.settings.model_dump(),
        "throughtime": version,
        "trained": dict(trained),
    }
    content = {name: value for name, value in content.items() if value is not None}
    replace_file(folder / DESCRIPTION, (to_json(content, indent=2) + "\n").encode())


def read_description(folder: Path, tokens: int, tokenizer: str | None = None) -> Description:
    """What the model in a folder is, checked against its tokeniser.

    Args:
        folder: the model folder.
        tokens: size of the tokeniser's vocabulary.
        tokenizer: the tokeniser's fingerprint; None: only its size is compared.

    Raises:
        ThroughtimeError: where model.json is missing or damaged, or the two do not belong together.
    """
    path = folder / DESCRIPTION
    content = parse_json(read_file(path), path)
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("task") != "language":
        raise ThroughtimeError(f"{path} is not a language model of format {FORMAT}; was it written by a newer version?")
    try:
        size, digest, separator = (content.get(name) for name in ("vocabulary_size", "tokenizer", "separator"))
        if not isinstance(size, int) or isinstance(size, bool):
            raise ValueError("vocabulary_size should be a whole number")
        if not isinstance(digest, str | None):
            raise ValueError("tokenizer should be a digest")
        if separator is not None:
            Text.model_validate({"separator": separator})
        found = Description(Model.model_validate(content["model"]), size, digest, separator)
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise ThroughtimeError(f"{path} does not describe a model: {_line(error)}") from None
    if found.vocabulary_size != tokens:
        raise ThroughtimeError(
            f"the model in {folder} has {found.vocabulary_size} tokens, the tokeniser {tokens}: wrong pair"
        )
    if None not in (tokenizer, found.tokenizer) and tokenizer != found.tokenizer:
        raise ThroughtimeError(
            f"the {TOKENIZER} of {folder} is not the one its model was trained with, though it has as many tokens; "
            "copy it from the model's run"
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
        entries[name] = np.asarray(array, np.float32, order="C")
        if held == "int8" and array.ndim == 2:
            entries[name], entries[name + SCALE] = whole_numbers(entries[name])
    replace_file(folder / WEIGHTS, save(entries, {CHECKSUM: _checksum(entries)}), mode)


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
    content, told = _read_entries(path, wanted)
    try:
        entries = dict(deserialize(content))
        if entries.keys() != {*wanted, *_scales(wanted, entries)}:
            raise SafetensorError("it names an array twice")
        if told not in (None, _checksum({name: entry["data"] for name, entry in entries.items()})):
            raise SafetensorError("SHA-256 mismatch of its arrays")
    except SafetensorError as error:
        raise ThroughtimeError(f"cannot read {path}: {_line(error)}") from None
    scales = _scales(wanted, entries)
    arrays: dict[str, Floats] = {}
    for name, shape in {**scales, **wanted}.items():
        data = entries[name]["data"]
        if name + SCALE in scales:
            arrays[name] = np.frombuffer(data, np.int8).reshape(shape) * arrays[name + SCALE][:, None]
        else:
            arrays[name] = np.frombuffer(data, "<f4").reshape(shape)
        if not np.isfinite(arrays[name]).all():
            raise ThroughtimeError(f"{name} in {path} holds values that are not finite")
    return Weights(
        {name: arrays[name] for name in wanted}, hashlib.sha256(content).hexdigest(), "int8" if scales else "float32"
    )


def _checksum(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of the names and bytes of arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(name.encode())
        digest.update(array)
    return digest.hexdigest()


def _scales(wanted: Mapping[str, tuple[int, ...]], entries: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the arrays that scale int8 matrices."""
    return {
        name + SCALE: shape[:1]
        for name, shape in wanted.items()
        if len(shape) == 2 and name in entries and entries[name]["dtype"] == "I8"
    }


def _read_entries(path: Path, wanted: Mapping[str, tuple[int, ...]]) -> tuple[bytes, Any]:
    """The content of a file of weights, which is read only when its header names the arrays that are wanted; and the
    checksum in that header, None in a file of an older version."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if not 2 <= length <= min(size - 8, LARGEST_HEADER):
            raise ThroughtimeError(f"cannot read {path}: it is no safetensors file, or cut short")
        start += file.read(length)
        header = parse_json(start[8:], path)
        entries = (
            {name: entry for name, entry in header.items() if name != METADATA} if isinstance(header, dict) else {}
        )
        if not all(isinstance(entry, dict) and {"dtype", "shape"} <= entry.keys() for entry in entries.values()):
            raise ThroughtimeError(f"cannot read {path}: its header does not describe arrays")
        scales = _scales(wanted, entries)
        for name in sorted((wanted.keys() | scales.keys()) ^ entries.keys()):
            known = name in wanted or name in scales
            raise ThroughtimeError(f"{path} {'lacks' if known else 'has an unknown'} array {printable(name)}")
        expected = 8 + length
        for name, shape in {**scales, **wanted}.items():
            entry, kind = entries[name], "I8" if name + SCALE in scales else "F32"
            if (entry["dtype"], entry["shape"]) != (kind, list(shape)):
                found = printable(f"{entry['dtype']} of shape {entry['shape']}")
                raise ThroughtimeError(f"{name} in {path} should be {kind} of shape {list(shape)}, got {found:.200}")
            expected += math.prod(shape) * (1 if kind == "I8" else 4)
        if size != expected:
            raise ThroughtimeError(f"cannot read {path}: it has {size:,} bytes where its arrays need {expected:,}")
        metadata = header.get(METADATA)
        checksum = metadata.get(CHECKSUM) if isinstance(metadata, dict) else None
        return start + file.read(expected - len(start)), checksum


def whole_numbers(matrix: Floats) -> tuple[NDArray[np.int8], Floats]:
    """A matrix as int8, and what 1 counts in each row: the largest number of a row is 127."""
    scale: Floats = np.abs(matrix).max(1) / np.float32(127)
    return np.rint(matrix / np.where(scale > 0, scale, np.float32(1))[:, None]).astype(np.int8), scale


def _line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return first_finding(error)
    return " ".join(str(error).split())
