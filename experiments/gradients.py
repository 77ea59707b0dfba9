"""Vanishing and exploding gradients by spectral radius, and what clipping and gates each do about them."""

from __future__ import annotations

import math
import statistics
from typing import Any

import torch

import flow
import recall
from common import arguments, once, panels, publish, spread, table

CELLS = ("elman", "gru", "lstm")
RADII = (0.5, 0.75, 1.0, 1.25, 1.5)
FAR = 50
"""The lag whose norm stands in the table, as a share of the norm at lag 1."""
DELAYS = (10, 50)
LEARNT = 0.9
"""Share of right answers from which on a run has learnt the task."""


def main() -> None:
    options = arguments(__doc__, steps=200, remedysteps=1500, seeds=5)
    torch.set_num_threads(1)
    text = options.data / "text" / "shakespeare.txt"
    flows = {
        (cell, radius): [
            once(
                f"gradients/{cell}-{radius}-{seed}-{options.steps}",
                *(flow.before_and_after, cell, radius, seed, options.steps, text),
            )
            for seed in range(options.seeds)
        ]
        for cell in CELLS
        for radius in RADII
    }
    recalls = {
        (delay, name, clip): [
            once(
                f"gradients/recall-{delay}-{'-'.join(map(str, contender))}-{clip}-{seed}-{options.remedysteps}",
                *(recall.learn, contender, clip, delay, seed, options.remedysteps),
            )
            for seed in range(options.seeds)
        ]
        for delay in DELAYS
        for name, contender in recall.CONTENDERS.items()
        for clip in (0.0, 1.0)
    }
    _draw(flows)
    lines = [
        *_flow_table(flows),
        "",
        f"Language models of bytes, {flow.HIDDEN} units, Tiny Shakespeare; mean ± standard deviation over "
        f"{options.seeds} seeds. Slope: of ln |d loss_t / d s_(t-k)| against k = 1 to {flow.LAGS}, in nats per step, "
        f"at the start with an embedding of standard deviation 1 (large inputs) and {flow.SMALL} (small ones), and "
        f"after {options.steps} steps from there of {flow.LANES} windows of {flow.WINDOW} bytes. Lag {FAR}: the norm "
        "as a share of that at lag 1, geometric mean. Radius after training: the largest of the gates' blocks.",
        "",
        "![norm of the gradient against the lag](gradients.svg)",
        *(line for delay in DELAYS for line in _recall_table(delay, recalls)),
        "",
        f"{recall.HIDDEN} units, gradient descent at rate {recall.RATE} with momentum {recall.MOMENTUM}, "
        f"{options.remedysteps:,} steps of {recall.LANES} sequences, {options.seeds} seeds. Arrives: the gradient of "
        "the state that has read the symbol, as a share of that of the last one, before training. Right: over the last "
        "50 steps. Steps lost: with a loss more than 10 % "
        f"above that of guessing. Runs that learnt it: right in {LEARNT:.0%} or more.",
    ]
    publish("gradients", lines)


def _flow_table(flows: dict[tuple[str, float], list[dict[str, Any]]]) -> list[str]:
    rows = []
    for (cell, radius), ends in flows.items():
        row = [cell, f"{radius}", f"{math.log(radius):.3f}"]
        row.append(spread([end["driven"]["slope"] for end in ends]))
        for when in ("before", "after"):
            shares = [end[when]["norms"][FAR - 1] / end[when]["norms"][0] for end in ends]
            row += [spread([end[when]["slope"] for end in ends]), f"{statistics.geometric_mean(shares):.1e}"]
        row.append(f"{statistics.mean(end['after']['radius'] for end in ends):.2f}")
        row.append(spread([end["nats"] for end in ends], 2))
        rows.append(row)
    header = ["cell", "radius", "ln radius", "slope, large inputs", "slope, small inputs", f"lag {FAR}",
              "slope, trained", f"lag {FAR}", "radius", "nats per byte"]  # fmt: skip
    return table(header, rows)


def _recall_table(delay: int, recalls: dict[tuple[int, str, float], list[dict[str, Any]]]) -> list[str]:
    rows = []
    for (at, name, clip), ends in recalls.items():
        if at == delay:
            rows.append(
                [
                    name,
                    f"{clip:g}" if clip else "none",
                    f"{statistics.geometric_mean(end['arrives'] for end in ends):.1e}",
                    spread([end["right"] for end in ends], 2),
                    f"{sum(end['right'] >= LEARNT for end in ends)} of {len(ends)}",
                    f"{statistics.mean(end['worse'] for end in ends):.0%}",
                    f"{max(end['largest'] for end in ends):.3g}",
                    f"{statistics.mean(end['clipped'] for end in ends):.0%}" if clip else "",
                ]
            )
    header = [f"delay of {delay}", "clipped at", "arrives", "right", "runs that learnt it", "steps lost",
              "largest norm", "steps clipped"]  # fmt: skip
    return ["", *table(header, rows)]


def _draw(flows: dict[tuple[str, float], list[dict[str, Any]]]) -> None:
    colours = dict(zip(RADII, ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00"), strict=True))
    with panels("gradients", 2 * len(CELLS), "lag k, steps", "|d loss_t / d s_(t-k)|") as axes:
        places = ((when, cell) for when in ("before", "after") for cell in CELLS)
        for each, (when, cell) in zip(axes, places, strict=True):
            for radius, colour in colours.items():
                for seed, end in enumerate(flows[cell, radius]):
                    label = None if seed else f"{radius}"
                    each.plot(range(1, flow.LAGS + 1, 5), end[when]["norms"][::5], color=colour, lw=1, label=label)
            each.set(title=f"{cell}, {when} training", yscale="log", ylim=(1e-12, 1e4))


if __name__ == "__main__":
    main()
