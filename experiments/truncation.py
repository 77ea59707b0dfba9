"""The truncations of back-propagation through time: quality at equal tokens and equal time, bias and variance."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from common import RUNS, arguments, excerpt, figure, once, outcome, publish, shakespeare, spread, table
from estimates import WINDOWS, gradients
from throughtime.gradient.settings import Gradient

WINDOW, LANES = 16, 32
WAYS: dict[str, dict[str, Any]] = {
    "fixed": {},
    "fixed, reach 48": {"reach": 48},
    "variable, normal": {"truncation": "variable", "deviation": 4.0},
    "variable, geometric": {"truncation": "variable", "lengths": "geometric"},
    "random": {"truncation": "random"},
    "none": {"truncation": "none"},
}
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


def main() -> None:
    options = arguments(__doc__, epochs=3.0, bytes=150_000, hidden=128, seeds=3, draws=10)
    seeds, name = range(options.seeds), f"truncation/{options.bytes}-{options.hidden}"
    ways = {way: Gradient(**settings) for way, settings in WAYS.items()}

    def trained(way: str, seed: int, epochs: float) -> dict[str, Any]:
        return outcome(f"{name}/{way}-{seed}-{epochs:.2f}", recipe(way, seed, epochs, options))

    by_tokens = [{way: trained(way, seed, options.epochs) for way in ways} for seed in seeds]
    text = excerpt("measured", shakespeare(options)[0][:MEASURED])
    found = []
    for seed in seeds:
        of_model = f"{seed}-{options.epochs:.2f}"
        run = RUNS / name / f"fixed-{of_model}"
        found.append(once(f"{name}/gradients-{of_model}-{options.draws}", gradients, run, text, ways, options.draws))
    costs = {way: _cost(found, way) for way in ways}
    by_time = [{way: trained(way, seed, options.epochs / costs[way]) for way in ways} for seed in seeds]
    _draw(found)
    lines = [
        *table(
            ["truncation", "at equal tokens", "updates", "time per token", "at equal time", "updates"],
            [[way, *_ended(by_tokens, way), f"{costs[way]:.2f}", *_ended(by_time, way)] for way in ways],
        ),
        "",
        f"Bits per byte of the test text, mean ± standard deviation over {options.seeds} seeds: a GRU of "
        f"{options.hidden} units, windows of {WINDOW} characters on {LANES} lanes, {options.epochs:g} epochs of "
        f"{options.bytes:,} characters, or as many as take as long. Times are beside fixed truncation, all taken in "
        f"turn, the median of {options.draws * options.seeds} rounds.",
        "",
        *table(
            ["truncation", "mean along the exact gradient", "bias", "sd between draws", "sd between updates"],
            [
                [
                    way,
                    *(
                        spread([one["ways"][way][what] for one in found], 3)
                        for what in ("along", "bias", "draw", "update")
                    ),
                ]
                for way in ways
            ],
        ),
        "",
        f"Gradients of {MEASURED:,} characters at the weights that fixed truncation ended with, in norms of the exact "
        f"gradient, {options.draws} draws, mean ± standard deviation over {options.seeds} models.",
        "",
        "![bias of fixed truncation by window](truncation.svg)",
    ]
    publish("truncation", lines)


def _ended(runs: Sequence[dict[str, dict[str, Any]]], way: str) -> tuple[str, str]:
    """Quality and updates over seeds."""
    updates = statistics.mean(ends[way]["step"] for ends in runs)
    return spread([ends[way]["bits_per_byte"] for ends in runs]), f"{updates:,.0f}"


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
