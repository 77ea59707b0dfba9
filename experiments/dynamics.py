"""Networks that oscillate, that remember by point attractors, and that are chaotic."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

import numpy as np
import torch

from behaviour import ALONE, BITS, HIDDEN, LANES, PERIOD, SETTLING, SHOWN, oscillate, remember, wander
from common import arguments, figure, once, panels, publish, spread, table
from throughtime.probe.dynamics import CHAOS

CELLS = ("elman", "gru", "lstm")
GAINS = (0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0)
SIZES = (32, 128, 256)
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00")


def main() -> None:
    options = arguments(__doc__, reads_data=False, steps=1000, alone=500, seeds=5, networks=5)
    torch.set_num_threads(1)
    oscillators, memories = (
        {
            cell: [
                once(f"dynamics/{make.__name__}-{cell}-{seed}-{options.steps}", make, cell, seed, options.steps)
                for seed in range(options.seeds)
            ]
            for cell in CELLS
        }
        for make in (oscillate, remember)
    )
    wanderers = {
        (size, gain): [
            once(f"dynamics/wander-{size}-{gain}-{seed}-{options.alone}", wander, size, gain, seed, options.alone)
            for seed in range(options.networks)
        ]
        for size in SIZES
        for gain in GAINS
    }
    _draw_oscillators(oscillators)
    _draw_memories(memories)
    _draw_wanderers(wanderers)
    lines = [
        *_oscillator_table(oscillators),
        "",
        f"{HIDDEN} units, {options.steps:,} steps of training, {options.seeds} seeds (mean ± standard deviation); "
        f"verdicts over four starts each, after {ALONE:,} steps without input, on the next {ALONE:,}.",
        "",
        "![output of the oscillators](dynamics-oscillation.svg)",
        "",
        *_memory_table(memories),
        "",
        f"{HIDDEN} units, {options.steps:,} steps of training on sequences of {SHOWN}; right: share of the steps of "
        f"sequences of {10 * SHOWN} at which all {BITS} bits are. {LANES // 4} starts a network for the verdict, "
        f"{5 * LANES} searches for fixed points. Radius: the largest absolute eigenvalue at any stable one.",
        "",
        "![fixed points of the flip-flops](dynamics-memory.svg)",
        "",
        *_wanderer_table(wanderers),
        "",
        f"Largest Lyapunov exponent, nats per step, mean ± standard deviation over {options.networks} random networks "
        f"with 2 starts each; in brackets how many of the starts are judged chaos. {options.alone:,} steps after "
        f"{SETTLING * options.alone:,} to settle.",
        "",
        "![largest Lyapunov exponent against the gain](dynamics.svg)",
    ]
    publish("dynamics", lines)


def _counted(ends: list[dict[str, Any]]) -> str:
    counts = Counter(verdict for end in ends for verdict in end["verdicts"])
    return ", ".join(f"{verdict} {count}" for verdict, count in counts.most_common())


def _oscillator_table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    rows = []
    for cell, ends in found.items():
        periods = [periods[0] for end in ends for periods in end["periods"] if len(periods) == 1]
        first, second = ([end["exponents"][rank] for end in ends] for rank in (0, 1))
        loss = spread([end["loss"] for end in ends], 5)
        rows.append(
            [cell, loss, _counted(ends), spread(periods) if periods else "", spread(first, 4), spread(second, 4)]
        )
    return table(
        [f"sine of period {PERIOD:g}", "squared error", "verdict", "period, steps", "exponent 1", "exponent 2"], rows
    )


def _memory_table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    rows = [
        [
            cell,
            spread([end["right"] for end in ends], 4),
            _counted(ends),
            *(", ".join(f"{end[name]}" for end in ends) for name in ("stable", "patterns", "unstable")),
            f"{max(end['radius'] for end in ends):.3f}",
        ]
        for cell, ends in found.items()
    ]
    header = ["flip-flop", "right", "verdict", "stable fixed points, by seed", "patterns of bits they stand for",
              "unstable ones", "radius"]  # fmt: skip
    return table(header, rows)


def _wanderer_table(found: dict[tuple[int, float], list[dict[str, Any]]]) -> list[str]:
    rows = []
    for gain in GAINS:
        row = [f"{gain:g}"]
        for size in SIZES:
            ends = found[size, gain]
            verdicts = [verdict for end in ends for verdict in end["verdicts"]]
            row.append(f"{spread([end['exponent'] for end in ends])} ({verdicts.count(CHAOS)}/{len(verdicts)})")
        rows.append([*row, _counted([end for size in SIZES for end in found[size, gain]])])
    return table(["gain", *(f"{size} units" for size in SIZES), "verdicts, all sizes"], rows)


def _draw_oscillators(found: dict[str, list[dict[str, Any]]]) -> None:
    with panels("dynamics-oscillation", len(CELLS), f"steps, {2 * ALONE:,} after the pulse", "output") as axes:
        for each, (cell, ends) in zip(axes, found.items(), strict=True):
            for seed, (end, colour) in enumerate(zip(ends, COLOURS, strict=False)):
                each.plot(end["output"], color=colour, lw=1, label=f"seed {seed}")
            each.set(title=cell, ylim=(-1.6, 1.6))


def _draw_memories(found: dict[str, list[dict[str, Any]]]) -> None:
    with panels("dynamics-memory", len(CELLS), "first principal component", "second") as axes:
        for each, (cell, ends) in zip(axes, found.items(), strict=True):
            for name, label, style in (
                ("visited", "visited", {"marker": ".", "color": "#bbbbbb", "ms": 2}),
                ("repel", "unstable", {"marker": "x", "color": "#d55e00", "ms": 4}),
                ("attract", "stable", {"marker": "o", "color": "#0072b2", "ms": 5}),
            ):
                points_F2 = np.array(ends[0][name]).reshape(-1, 2)
                each.plot(*points_F2.T, ls="", label=label, **style)
            each.set(title=f"{cell}, seed 0")


def _draw_wanderers(found: dict[tuple[int, float], list[dict[str, Any]]]) -> None:
    with figure("dynamics", "gain g", "largest Lyapunov exponent, nats per step") as axes:
        axes.axhline(0, color="#999999", lw=0.8)
        axes.axvline(1, color="#999999", lw=0.8, ls=":")
        for size, colour in zip(SIZES, COLOURS, strict=False):
            means = [statistics.mean(end["exponent"] for end in found[size, gain]) for gain in GAINS]
            axes.plot(GAINS, means, color=colour, lw=1, label=f"{size} units")
            for gain in GAINS:
                ends = found[size, gain]
                axes.plot([gain] * len(ends), [end["exponent"] for end in ends], ".", color=colour, ms=4)


if __name__ == "__main__":
    main()
