"""What lies in a model folder, and the network that it makes up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from throughtime import folder as folders
from throughtime.recipe import Model as Settings
from throughtime.runtime.network import Floats, Layer, form_of
from throughtime.text import tokenizer as tokenizers
from throughtime.text.tokenizer import Tokenizer


class Parts(NamedTuple):
    """What lies in a model folder."""

    place: folders.Place
    tokenizer: Tokenizer
    settings: Settings
    weights: folders.Weights
    separator: str
    """Text after which a document ends and the state is reset; empty: none."""


def read_parts(run: str | Path) -> Parts:
    """The parts of a run's best model, or of a model folder, each checked against the others.

    Raises:
        ThroughtimeError: where a part is missing, damaged, or does not belong to the others.
    """
    place = folders.find(run)
    tokenizer = tokenizers.load(place.home / folders.TOKENIZER)
    described = folders.read_description(place.folder, tokenizer.vocabulary_size, tokenizer.fingerprint)
    weights = folders.read_weights(place.folder, shapes(described.settings, tokenizer.vocabulary_size))
    return Parts(place, tokenizer, described.settings, weights, folders.separator_of(place, described))


def shapes(settings: Settings, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """The arrays of a language model by the names they have in its file."""
    hidden, size = settings.hidden_size, settings.embedding_size or settings.hidden_size
    found: dict[str, tuple[int, ...]] = {"embedding": (vocabulary_size, size), "b_o": (vocabulary_size,)}
    if not settings.tied:
        found["W_o"] = (vocabulary_size, hidden)
    for level in range(settings.layers):
        of_cell = form_of(settings.cell).shapes(hidden if level else size, hidden)
        found |= {f"stack.cells.{level}.{name}": shape for name, shape in of_cell.items()}
    return found


class Built(NamedTuple):
    """What a `Network` is made of."""

    layers: list[Layer]
    embedding: Floats
    head: tuple[Floats, Floats]


def built(settings: Settings, arrays: Mapping[str, Floats]) -> Built:
    """The network of a language model. Tied, one matrix is both: what is read from it is multiplied by H^1/2."""
    names = form_of(settings.cell).shapes(1, 1)
    layers = [
        Layer(settings.cell, {name: arrays[f"stack.cells.{level}.{name}"] for name in names}, settings.cell_options)
        for level in range(settings.layers)
    ]
    rows_VD = arrays["embedding"]
    if settings.tied:
        return Built(layers, rows_VD * np.float32(settings.hidden_size**0.5), (rows_VD, arrays["b_o"]))
    return Built(layers, rows_VD, (arrays["W_o"], arrays["b_o"]))
