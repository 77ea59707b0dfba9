"""What recurrent networks compute: six rules, learnt on short sequences, tested on up to ten times the length."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch

from common import arguments, once, panels, publish, spread, table
from networks import Network, fit
from sequences import TASKS, Task, loss_of

CELLS = {"elman": (96, 1), "gru": (56, 1), "lstm": (48, 1), "mingru": (68, 2)}
"""Units and layers, for about 10,000 parameters. Only between layers does a minGRU do more than mix its state."""
FACTORS = (1, 2, 10)
RATE, LANES, TESTED = 3e-3, 32, 400
CLOSE = 0.04
"""A sum is right that is as close as this (Hochreiter & Schmidhuber 1997)."""
STYLES = {"elman": ("#d55e00", "s"), "gru": ("#0072b2", "^"), "lstm": ("#009e73", "o"), "mingru": ("#cc79a7", "D")}


def run(task: Task, cell: str, seed: int, steps: int) -> dict[str, Any]:
    """Train one network on one task; what it gets right at each factor of the length."""
    hidden, layers = CELLS[cell]
    noise = np.random.default_rng(seed)
    network = Network(cell, task.inputs, hidden, task.outputs, seed, layers)

    def loss() -> torch.Tensor:
        batch = task.draw(noise.integers(task.shortest, task.longest + 1, LANES), noise)
        return loss_of(task, batch, network(batch.x_TBD))

    fit(network, loss, steps, RATE)
    return {"parameters": network.size, **{str(factor): _test(task, network, factor) for factor in FACTORS}}


@torch.no_grad()
def _test(task: Task, network: Network, factor: int) -> dict[str, float]:
    """Over all lengths that this factor of the longest has and the one before it has not."""
    stretch = range(max(task.shortest, (factor - 1) * task.longest + 1), factor * task.longest + 1)
    batch = task.draw(np.resize(np.array(stretch), TESTED), np.random.default_rng(10_000 + factor))
    outputs_TBK = network(batch.x_TBD)
    if task.outputs == 1:
        errors_TB = (outputs_TBK[..., 0] - batch.targets_TB)[batch.scored_TB]
        return {
            "answers": float(errors_TB.square().mean()),
            "sequences": float((errors_TB.abs() < CLOSE).float().mean()),
        }
    right_TB = outputs_TBK.argmax(2) == batch.targets_TB
    there_B = batch.scored_TB.any(0)
    return {
        "answers": float(right_TB[batch.scored_TB].float().mean()),
        "sequences": float((right_TB | ~batch.scored_TB).all(0)[there_B].float().mean()),
    }


def main() -> None:
    options = arguments(__doc__, reads_data=False, steps=2000, seeds=3)
    torch.set_num_threads(1)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, task in TASKS.items():
        steps = options.steps * task.effort
        for cell in CELLS:
            found[name, cell] = [
                once(f"tasks/{name.replace(' ', '')}-{cell}-{seed}-{steps}", run, task, cell, seed, steps)
                for seed in range(options.seeds)
            ]
    _draw(found)
    parameters = [end["parameters"] for ends in found.values() for end in ends]
    lines = [
        *(line for name in TASKS for line in _table(name, found, options.steps * TASKS[name].effort)),
        f"Mean ± standard deviation over {options.seeds} seeds; {LANES} sequences a step, {TESTED} a test; "
        f"{min(parameters):,} to {max(parameters):,} parameters.",
        "",
        "![share of sequences right against the factor of their length](tasks.svg)",
    ]
    publish("tasks", lines)


def _table(name: str, found: dict[tuple[str, str], list[dict[str, Any]]], steps: int) -> list[str]:
    number = TASKS[name].outputs == 1
    kinds = {"sequences": "sequences", "answers": "squared error" if number else "answers"}
    digits = {"sequences": 3, "answers": 5 if number else 3}
    places = [(kind, f"{factor}") for kind in kinds for factor in FACTORS]
    header = [f"{name}, {steps:,} steps", *(f"{kinds[kind]}, {factor}x" for kind, factor in places)]
    rows = [
        [cell, *(spread([end[factor][kind] for end in found[name, cell]], digits[kind]) for kind, factor in places)]
        for cell in CELLS
    ]
    return [*table(header, rows), ""]


def _draw(found: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    with panels("tasks", len(TASKS), "length", "sequences right") as axes:
        for each, name in zip(axes, TASKS, strict=True):
            for cell in CELLS:
                colour, marker = STYLES[cell]
                shares = [[end[str(factor)]["sequences"] for factor in FACTORS] for end in found[name, cell]]
                means = [statistics.mean(at) for at in zip(*shares, strict=True)]
                each.plot(FACTORS, means, f"{marker}-", color=colour, label=cell, ms=4)
                for share in shares:
                    each.plot(FACTORS, share, marker, color=colour, ms=3, alpha=0.4)
            each.set(title=name, xscale="log", ylim=(-0.05, 1.05))
            each.set_xticks(FACTORS, [f"{factor}x" for factor in FACTORS])
            each.minorticks_off()


if __name__ == "__main__":
    main()
