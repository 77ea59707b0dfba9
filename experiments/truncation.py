"""The truncations of back-propagation through time: quality at equal tokens and equal time, bias and variance."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import throughtime
from common import RUNS, arguments, excerpt, figure, once, outcome, publish, shakespeare, spread, table
from throughtime.gradient.truncation import Position, truncation
from throughtime.models.language import LanguageModel
from throughtime.recipe import Gradient
from throughtime.streams.partition import Place, SequentialPartition
from throughtime.streams.window import Int64, Tokens
from throughtime.text.dataset import tokenise

WINDOW, LANES = 16, 32
WAYS: dict[str, dict[str, Any]] = {
    "fixed": {},
    "fixed, reach 48": {"reach": 48},
    "variable, normal": {"truncation": "variable", "deviation": 4.0},
    "variable, geometric": {"truncation": "variable", "lengths": "geometric"},
    "random": {"truncation": "random"},
    "none": {"truncation": "none"},
}
WINDOWS = (1, 2, 4, 8, 16, 32, 64)
"""Of fixed truncation, for the picture."""
MEASURED = LANES * 20 * WINDOW + WINDOW
"""Bytes of training text that gradients are measured on: whole windows."""


def recipe(way: str, seed: int, epochs: float, options: Any) -> dict[str, Any]:
    """The ways differ in truncation alone; but without any, the few updates there are all have their rate."""
    pool, valid, test = shakespeare(options)
    return {
        "text": {
            "sources": [excerpt(f"truncation-{options.bytes}", pool[: options.bytes])],
            "valid": [excerpt("valid", valid)],
            "test": [excerpt("test", test)],
        },
        "streams": {"window": WINDOW, "lanes": LANES},
        "model": {"cell": "gru", "hidden_size": options.hidden},
        "gradient": WAYS[way],
        "training": {"epochs": epochs, "seed": seed, "sample_tokens": 0, "validations": 3, "threads": 1,
                     "warmup": 0.0 if way == "none" else 0.02},
    }  # fmt: skip


class Epoch(NamedTuple):
    """The gradients of an epoch, at weights that stay the same."""

    updates_UP: Tensor
    """Of each update U, by parameter P, so scaled that their mean is the gradient of the epoch."""
    seconds: float


def epoch(model: LanguageModel, tokens: Tokens, gradient: Gradient, window: int, draw: int) -> Epoch:
    """What one draw of a truncation finds. The text, and where it begins, are the same in every draw."""
    way = truncation(gradient, window, draw)
    lengths = None
    if way.lengths is not None:
        of_text, generator = way.lengths, np.random.default_rng(draw)

        def lengths(_: np.random.Generator, steps: int) -> Int64:
            return of_text(generator, steps)

    cut = SequentialPartition(tokens, LANES, window, 0, lengths)
    position = Position(Place(), model.initial_state(LANES))
    found: list[Tensor] = []
    seconds = rates = 0.0
    while position.place.epoch == 0:
        model.zero_grad()
        begin = time.perf_counter()
        update = way.update(model, cut, position)
        seconds += time.perf_counter() - begin
        gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        found.append(update.rate * torch.cat(gradients).double())
        rates += update.rate
        position = update.position
    return Epoch(torch.stack(found) * (len(found) / rates), seconds)


def gradients(run: Path, text: str, draws: int) -> dict[str, Any]:
    """Of a trained model: for each way how its gradients lie about the exact one, whose norm is 1; and its seconds."""
    torch.set_num_threads(1)
    loaded = throughtime.load(run)
    assert loaded.recipe is not None
    model, tokens = loaded.model.requires_grad_(True), tokenise([text], loaded.tokenizer, loaded.recipe.text)
    settings = {way: Gradient(**WAYS[way]) for way in WAYS}
    found: dict[str, list[Epoch]] = {way: [] for way in WAYS}
    for draw in range(draws):
        for way, epochs in found.items():
            epochs.append(epoch(model, tokens, settings[way], WINDOW, draw))
    exact_P = found["none"][0].updates_UP[0]
    return {
        "ways": {way: about(epochs, exact_P) for way, epochs in found.items()},
        "seconds": {way: [one.seconds for one in epochs] for way, epochs in found.items()},
        "by window": [_bias_at(model, tokens, window) for window in WINDOWS],
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


def _bias_at(model: LanguageModel, tokens: Tokens, window: int) -> float:
    fixed, exact = (epoch(model, tokens, Gradient(truncation=way), window, 0) for way in ("fixed", "none"))
    return about([fixed], exact.updates_UP[0])["bias"]


def main() -> None:
    options = arguments(__doc__, epochs=3.0, bytes=150_000, hidden=128, seeds=3, draws=10)
    seeds = range(options.seeds)
    folder = f"truncation/{options.bytes}-{options.hidden}"

    def trained(way: str, seed: int, epochs: float) -> dict[str, Any]:
        return outcome(f"{folder}/{way}-{seed}-{epochs:.2f}", recipe(way, seed, epochs, options))

    # Seeds in the outer loop: whatever else the machine does falls on all ways.
    by_tokens = [{way: trained(way, seed, options.epochs) for way in WAYS} for seed in seeds]
    text = excerpt("measured", shakespeare(options)[0][:MEASURED])
    found = []
    for seed in seeds:
        run = RUNS / f"{folder}/fixed-{seed}-{options.epochs:.2f}"
        found.append(
            once(f"{folder}/gradients-{seed}-{options.draws}-{options.epochs:.2f}", gradients, run, text, options.draws)
        )
    costs = {way: _cost(found, way) for way in WAYS}
    by_time = [
        {way: trained(way, seed, options.epochs / costs[way]) for way in WAYS if way != "fixed"} for seed in seeds
    ]
    for seed in seeds:
        by_time[seed]["fixed"] = by_tokens[seed]["fixed"]
    rows, lying = [], []
    for way in WAYS:
        equal = [[ends[way]["bits_per_byte"] for ends in runs] for runs in (by_tokens, by_time)]
        updates = [runs[0][way]["step"] for runs in (by_tokens, by_time)]
        rows.append(
            [way, spread(equal[0]), f"{updates[0]:,}", f"{costs[way]:.2f}", spread(equal[1]), f"{updates[1]:,}"]
        )
        figures = [one["ways"][way] for one in found]
        lying.append(
            [way, *(spread([each[name] for each in figures], 2) for name in ("along", "bias", "draw", "update"))]
        )
    _draw(found)
    lines = [
        *table(["truncation", "at equal tokens", "updates", "time per token", "at equal time", "updates"], rows),
        "",
        f"Bits per byte of the test text, mean ± standard deviation over {options.seeds} seeds: a GRU of "
        f"{options.hidden} units, windows of {WINDOW} characters on {LANES} lanes, {options.epochs:g} epochs of "
        f"{options.bytes:,} characters, or as many as take as long. Times are beside fixed truncation, all taken in "
        f"turn, the median of {options.draws * options.seeds} rounds.",
        "",
        *table(
            ["truncation", "mean along the exact gradient", "bias", "sd between draws", "sd between updates"], lying
        ),
        "",
        f"Gradients of {MEASURED:,} characters at the weights that fixed truncation ended with, in norms of the exact "
        f"gradient, {options.draws} draws, mean ± standard deviation over {options.seeds} models.",
        "",
        "![bias of fixed truncation by window](truncation.svg)",
    ]
    publish("truncation", lines)


def _cost(found: Sequence[dict[str, Any]], way: str) -> float:
    """Time beside fixed truncation."""
    rounds = [pair for one in found for pair in zip(one["seconds"][way], one["seconds"]["fixed"], strict=True)]
    return float(statistics.median(own / fixed for own, fixed in rounds))


def _draw(found: Sequence[dict[str, Any]]) -> None:
    with figure("truncation", "window of fixed truncation, characters", "bias, in norms of the exact gradient") as axes:
        for seed, one in enumerate(found):
            axes.plot(WINDOWS, one["by window"], "o-", color="#0072b2", lw=1, ms=4, label=None if seed else "a model")
        axes.set_xscale("log", base=2)
        axes.set_xticks(WINDOWS, [str(window) for window in WINDOWS])
        axes.set_ylim(bottom=0)


if __name__ == "__main__":
    main()
