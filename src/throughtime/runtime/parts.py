"""What lies in a model folder, and the network that it makes up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from throughtime import folder as folders
from throughtime import parameters
from throughtime.models.settings import Model as Settings
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
    form, found = form_of(settings.cell), parameters.outer(settings, vocabulary_size)
    for prefix, *sizes in parameters.layers(settings):
        found |= {prefix + name: shape for name, shape in form.shapes(*sizes).items()}
    return found


class Built(NamedTuple):
    """What a `Network` is made of."""

    layers: list[Layer]
    embedding: Floats
    head: tuple[Floats, Floats]


def built(settings: Settings, arrays: Mapping[str, Floats]) -> Built:
    """The network of a language model. Tied, one matrix is both: what is read from it is multiplied by H^1/2 (H of the
    last layer)."""
    names = form_of(settings.cell).shapes(1, 1)
    layers = [
        Layer(settings.cell, {name: arrays[layer.prefix + name] for name in names}, settings.cell_options)
        for layer in parameters.layers(settings)
    ]
    rows_VD, bias_V = arrays[parameters.EMBEDDING], arrays[parameters.BIAS]
    if settings.tied:
        return Built(layers, rows_VD * np.float32(settings.widths[-1] ** 0.5), (rows_VD, bias_V))
    return Built(layers, rows_VD, (arrays[parameters.OUTPUT], bias_V))
