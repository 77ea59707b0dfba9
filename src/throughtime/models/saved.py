"""Model folders: model.safetensors and model.json, and the codec's file in them or above. No pickle anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from throughtime import folder as folders
from throughtime.durable import make_own_folder
from throughtime.errors import ThroughtimeError
from throughtime.models.backend import runtime_model
from throughtime.models.base import SequenceModel
from throughtime.models.language import LanguageModel
from throughtime.recipe import Recipe
from throughtime.runtime.model import Model as RuntimeModel
from throughtime.text import tokenizer as tokenizers
from throughtime.text.tokenizer import Tokenizer
from throughtime.version import VERSION


class Loaded(NamedTuple):
    """A trained model and what belongs to it."""

    model: LanguageModel
    tokenizer: Tokenizer
    recipe: Recipe | None
    """None for a model folder outside its run."""
    folder: Path
    """Where the model lies."""

    @property
    def separator(self) -> str:
        """Text after which a document ends and the state is reset; empty: none."""
        described = folders.read_description(self.folder, self.tokenizer.vocabulary_size)
        return folders.separator_of(folders.find(self.folder), described)


def load(run: str | Path) -> Loaded:
    """The best model of a run folder, or the model of a model folder.

    Raises:
        ThroughtimeError: where a part is missing, damaged, or does not belong to the others.
    """
    place = folders.find(run)
    model, _, tokenizer = _read(place)
    return Loaded(model, tokenizer, folders.recipe_beside(place), place.folder)


def load_runtime(run: str | Path) -> RuntimeModel:
    """The same model with the interface of the runtime, run by PyTorch: for cells that have no kernel.

    Raises:
        ThroughtimeError: as `load` does; and SettingError where the cell is not registered.
    """
    place = folders.find(run)
    model, digest, tokenizer = _read(place)
    described = folders.read_description(place.folder, tokenizer.vocabulary_size)
    return runtime_model(model, tokenizer, folders.separator_of(place, described), digest)


def _read(place: folders.Place) -> tuple[LanguageModel, str, Tokenizer]:
    """The model, the digest of its weights, and its tokenizer."""
    tokenizer = tokenizers.load(place.home / folders.TOKENIZER)
    return *_model(place.folder, tokenizer.vocabulary_size, tokenizer.fingerprint), tokenizer


def save_model(
    folder: Path,
    model: SequenceModel,
    facts: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None = None,
    description: folders.Description | None = None,
) -> None:
    """Write a model folder's own two files, or put new ones in their place, at no moment without a model there.

    Args:
        folder: made if need be.
        model: what it is.
        facts: what is worth knowing of how the weights came about.
        weights: by name; None: the model's.
        description: what model.json says of it; None: the model's own, which knows nothing of the data.
    """
    arrays = model.state_dict() if weights is None else weights
    make_own_folder(folder)
    folders.write_weights(folder, {name: array.numpy() for name, array in arrays.items()})
    folders.write_description(folder, description or model.description(), VERSION, facts)


def load_model(folder: Path, vocabulary_size: int, tokenizer: str | None = None) -> LanguageModel:
    """The model in a folder, checked against its description, and the size and fingerprint of the tokeniser.

    Raises:
        ThroughtimeError: where a part is missing, damaged, or does not belong to the others.
    """
    return _model(folder, vocabulary_size, tokenizer)[0]


def _model(folder: Path, vocabulary_size: int, tokenizer: str | None) -> tuple[LanguageModel, str]:
    """The model, and the digest of its weights."""
    settings = folders.read_description(folder, vocabulary_size, tokenizer).settings
    try:
        with torch.device("meta"):
            model = LanguageModel(settings, vocabulary_size)
    except (RuntimeError, TypeError, OverflowError) as error:
        line = " ".join(str(error).split())
        raise ThroughtimeError(f"{folder / folders.DESCRIPTION} does not describe a model: {line}") from None
    wanted = {name: tuple(array.shape) for name, array in model.state_dict().items()}
    weights = folders.read_weights(folder, wanted)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.arrays.items()}, assign=True)
    return model.requires_grad_(False).eval(), weights.digest
