"""How the gradients that truncations give lie about the exact one, at the weights of a trained model.

Axes: E draw of an epoch, U update, P parameter.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import throughtime
from throughtime.gradient.settings import Gradient
from throughtime.gradient.truncation import Position, make_truncation
from throughtime.models.language import LanguageModel
from throughtime.streams.batch import Int64, Tokens
from throughtime.streams.batches import BatchIndex, SequentialBatches
from throughtime.text.dataset import tokenise

WINDOWS = (1, 2, 4, 8, 16, 32, 64)
"""Of fixed truncation, whose bias is measured by window."""


class Epoch(NamedTuple):
    """The gradients of an epoch, at weights that stay the same."""

    updates_UP: Tensor
    """Of each update, so scaled that their mean is the gradient of the epoch."""
    seconds: float


def epoch(model: LanguageModel, tokens: Tokens, gradient: Gradient, lanes: int, window: int, draw: int = 0) -> Epoch:
    """What one draw of a truncation finds. The text, and where it begins, are the same in every draw."""
    way = make_truncation(gradient, window, draw)
    lengths = None
    if way.lengths is not None:
        of_text, generator = way.lengths, np.random.default_rng(draw)

        def lengths(_: np.random.Generator, steps: int) -> Int64:
            return of_text(generator, steps)

    cut = SequentialBatches(tokens, lanes, window, 0, lengths=lengths)
    position = Position(BatchIndex(), model.initial_state(lanes))
    found: list[Tensor] = []
    seconds = rates = 0.0
    while position.at.epoch == 0:
        model.zero_grad()
        begin = time.perf_counter()
        update = way.update(model, cut, position)
        seconds += time.perf_counter() - begin
        gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        found.append(update.rate * torch.cat(gradients).double())
        rates += update.rate
        position = update.position
    return Epoch(torch.stack(found) * (len(found) / rates), seconds)


def gradients(run: Path, text: str, ways: Mapping[str, Gradient], draws: int) -> dict[str, Any]:
    """What each way of truncation makes of a text, at the weights of a run and with its windows.

    Returns:
        `ways`: of each, what `about` finds. `seconds`: of each, by draw; the ways take turns. `by window`: the bias of
        fixed truncation at WINDOWS.
    """
    torch.set_num_threads(1)
    loaded = throughtime.load(run)
    assert loaded.recipe is not None
    streams, text_settings = loaded.recipe.streams, loaded.recipe.text
    model, tokens = loaded.model.requires_grad_(True), tokenise([text], loaded.tokenizer, text_settings).ids
    found: dict[str, list[Epoch]] = {way: [] for way in ways}
    for draw in range(draws):
        for way, epochs in found.items():
            epochs.append(epoch(model, tokens, ways[way], streams.lanes, streams.window, draw))
    exact_P = epoch(model, tokens, Gradient(truncation="none"), streams.lanes, streams.window).updates_UP[0]
    return {
        "ways": {way: about(epochs, exact_P) for way, epochs in found.items()},
        "seconds": {way: [one.seconds for one in epochs] for way, epochs in found.items()},
        "by window": [_bias_of_fixed(model, tokens, streams.lanes, window) for window in WINDOWS],
    }


def about(epochs: Sequence[Epoch], exact_P: Tensor) -> dict[str, float]:
    """How the gradients of draws lie about the exact one.

    Returns:
        `along`: the mean's component along the exact one. `bias`: how far the mean is from it, what chance adds with so
        many draws taken off. `draw`: standard deviation between draws. `update`: that between the updates of a draw.
        All in norms of the exact one.
    """
    draws_EP = torch.stack([one.updates_UP.mean(0) for one in epochs])
    mean_P, size = draws_EP.mean(0), float(exact_P.square().sum())
    variance = float(draws_EP.var(0).sum()) if len(draws_EP) > 1 else 0.0
    far = float((mean_P - exact_P).square().sum()) - variance / len(draws_EP)
    between = [float((one.updates_UP - one.updates_UP.mean(0)).square().sum(1).mean()) for one in epochs]
    return {
        "along": float(mean_P @ exact_P) / size,
        "bias": math.sqrt(max(0.0, far) / size),
        "draw": math.sqrt(variance / size),
        "update": math.sqrt(statistics.mean(between) / size),
    }


def _bias_of_fixed(model: LanguageModel, tokens: Tokens, lanes: int, window: int) -> float:
    fixed, exact = (epoch(model, tokens, Gradient(truncation=way), lanes, window) for way in ("fixed", "none"))
    return about([fixed], exact.updates_UP[0])["bias"]
