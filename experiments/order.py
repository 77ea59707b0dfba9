"""Does the order of the samples matter? Its spread beside that of the initialisation, crossed, at equal everything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common import arguments, excerpt, figure, outcome, publish, shakespeare, table
from throughtime.models.registry import make_model
from throughtime.recipe import build
from throughtime.tasks.registry import make_task
from throughtime.training.display import Display
from throughtime.training.lock import locked
from throughtime.training.loop import Trainer
from throughtime.training.ranks import Ranks

PARTITIONS = ("random", "sequential")


EPOCHS = 2
BATCH = 1024


def recipe(partition: str, order: int, options: Any) -> dict[str, Any]:
    """The seed decides offsets and the order of windows. Every epoch is a whole one: all read the same text."""
    pool, valid, test = shakespeare(options)
    training = pool[: options.steps // EPOCHS * BATCH + BATCH // 2]
    return {
        "text": {
            "sources": [excerpt(f"order-{options.steps}", training)],
            "valid": [excerpt("valid", valid)],
            "test": [excerpt("test", test)],
        },
        "streams": {"partition": partition, "window": 32, "lanes": 32},
        "model": {"cell": "gru", "hidden_size": options.hidden},
        "training": {"epochs": EPOCHS, "seed": order, "sample_tokens": 0, "validations": 4, "threads": 1},
    }


def train_from(initialisation: int, tree: Mapping[str, Any], folder: Path, display: Display) -> None:
    """Train a recipe, whose seed is then that of the order alone, from weights of another seed."""
    recipe = build(tree)
    task = make_task(recipe)
    data = task.read()
    torch.set_num_threads(recipe.training.threads)
    generator = torch.Generator().manual_seed(initialisation)
    weights = make_model(data.task, recipe.model, data.sizes(), generator).state_dict()
    with locked(folder):
        trainer = Trainer(task.settled(), data, folder, display, Ranks())
        trainer.model.load_state_dict(weights)
        trainer.run(None)


def spreads(bits_IO: NDArray[np.float64]) -> dict[str, float]:
    """Standard deviations of a two-way layout with one run a place.

    Args:
        bits_IO: of initialisation I trained in order O.

    Returns:
        `order`: between orders, the initialisation held; `initialisation`: the other way round; then what adds up to
        them: `order itself` and `initialisation itself`, which shift all runs alike (unbiased estimates of variance
        components, 0 where negative), and `pairing`, which is of the one with the other.
    """
    inits, orders = bits_IO.shape
    apart_IO = bits_IO - bits_IO.mean(1, keepdims=True) - bits_IO.mean(0) + bits_IO.mean()
    pairing = float((apart_IO**2).sum()) / ((inits - 1) * (orders - 1))
    order, initialisation = bits_IO.var(1, ddof=1).mean(), bits_IO.var(0, ddof=1).mean()
    variances = {
        "order": order,
        "initialisation": initialisation,
        "order itself": order - pairing,
        "initialisation itself": initialisation - pairing,
        "pairing": pairing,
    }
    return {name: math.sqrt(max(0.0, variance)) for name, variance in variances.items()}


def main() -> None:
    options = arguments(__doc__, steps=400, hidden=128, seeds=5)
    found: dict[str, NDArray[np.float64]] = {}
    for partition in PARTITIONS:
        bits = [
            [
                outcome(
                    f"order/{partition}-{options.hidden}-{options.steps}-{initialisation}-{order}",
                    recipe(partition, order, options),
                    partial(train_from, initialisation),
                )["bits_per_byte"]
                for order in range(options.seeds)
            ]
            for initialisation in range(options.seeds)
        ]
        found[partition] = np.array(bits)
    rows = []
    for partition, bits_IO in found.items():
        deviations = [f"{deviation:.4f}" for deviation in spreads(bits_IO).values()]
        rows.append([partition, f"{bits_IO.mean():.3f}", f"{np.ptp(bits_IO):.3f}", *deviations])
    header = ["partition", "mean", "largest - smallest", "sd: order alone", "sd: initialisation alone",
              "order itself", "initialisation itself", "pairing"]  # fmt: skip
    _draw(found)
    lines = [
        *table(header, rows),
        "",
        f"Bits per byte of the test text; {options.seeds} initialisations x {options.seeds} orders, {EPOCHS} epochs of "
        f"{options.steps // EPOCHS:,} steps of {BATCH:,} characters, a GRU of {options.hidden} units.",
        "",
        "![bits per byte of every run, by initialisation](order.svg)",
    ]
    publish("order", lines)


def _draw(found: dict[str, NDArray[np.float64]]) -> None:
    styles = {"random": ("#d55e00", "s", -0.1), "sequential": ("#0072b2", "^", 0.1)}
    with figure("order", "initialisation", "bits per byte, test text") as axes:
        for partition, bits_IO in found.items():
            colour, marker, shift = styles[partition]
            for initialisation, bits_O in enumerate(bits_IO):
                place, label = initialisation + shift, None if initialisation else f"{partition}: a mark an order"
                axes.plot([place] * len(bits_O), bits_O, marker, color=colour, ms=4, label=label)
        axes.set_xticks(range(len(found["random"])))


if __name__ == "__main__":
    main()
