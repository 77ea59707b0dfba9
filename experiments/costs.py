"""What an update of a recurrent network costs beside those of its rivals, taken in turn on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

import rivals
from throughtime.gradient.clipping import Clipping
from throughtime.gradient.settings import Gradient
from throughtime.gradient.truncation import Position, make_truncation
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model
from throughtime.recipe import build
from throughtime.streams.batches import BatchIndex, SequentialBatches
from throughtime.text.dataset import prepare
from throughtime.training.optimizer import make_optimizer
from throughtime.training.settings import Training

UPDATES, ROUNDS = 20, 15
"""Timed at once, and how often."""


RATE = Training().learning_rate


def seconds(
    text: str, settings: Mapping[str, Any], others: Mapping[str, Callable[[float], rivals.Network]]
) -> dict[str, list[float]]:
    """Seconds of UPDATES updates, by round, of the recurrent network (by its cell's name) and of each rival."""
    torch.set_num_threads(1)
    updates = {settings["cell"]: _recurrent(text, settings)}
    for name, make in others.items():
        rival = make(0.0)
        method = make_optimizer(rival.parameters(), Training())
        updates[name] = partial(rivals.update, rival, rivals.ids_of(Path(text).read_bytes()), method, RATE)
    found: dict[str, list[float]] = {name: [] for name in updates}
    for number in range(1 + ROUNDS):
        for name, update in updates.items():
            begin = time.perf_counter()
            for _ in range(UPDATES):
                update()
            if number:  # the first round sets everything up
                found[name].append(time.perf_counter() - begin)
    return found


def _recurrent(text: str, settings: Mapping[str, Any]) -> Callable[[], None]:
    dataset = prepare(build({"text": {"sources": [text], "tokens": "byte", "split": [1.0, 0.0, 0.0]}}).text)
    model = LanguageModel(Model(**settings), dataset.tokenizer.vocabulary_size)
    cut = SequentialBatches(dataset.train, rivals.LANES, rivals.CHUNK, 0)
    way, clip = make_truncation(Gradient(), rivals.CHUNK, 0), Clipping(Gradient(clip_norm=rivals.CLIP_NORM))
    parameters = list(model.parameters())
    method, position = make_optimizer(parameters, Training()), Position(BatchIndex(), model.initial_state(rivals.LANES))

    def update() -> None:
        nonlocal position
        position = way.update(model, cut, position).position
        clip(parameters)
        method.step(RATE)
        method.clear_gradients()

    return update
