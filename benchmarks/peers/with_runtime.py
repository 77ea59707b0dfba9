"""Ours, in a process without PyTorch, as in a product.

Axes: B batch, D input, H hidden.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from pipe import serve_passes
from throughtime import runtime
from throughtime.runtime import Layer, Network, Streams
from throughtime.version import VERSION


def prepare(what: str, weights: str, **given: Any) -> Callable[[], list[Any]]:
    """`step` of a layer, `draw` for many streams, `write` a text: each by what the passes of the others do."""
    if what == "step":
        with np.load(given["arrays"]) as file:
            arrays = dict(file)
        x_BD = arrays.pop("x")
        network = Network([Layer(given["cell"], arrays)], weights=weights)
        state = network.initial_state(len(x_BD))
        return lambda: [network.step(x_BD, state)[0]]
    model = runtime.load(given["folder"], weights)
    if what == "write":
        return lambda: [[len("".join(model.generate(max_tokens=given["tokens"], seed=0)))]]
    streams = Streams(model)
    for seed in range(given["batch"]):
        streams.join(seed=seed)

    def draw() -> list[Any]:
        streams.write(given["tokens"])
        return []

    return draw


if __name__ == "__main__":
    assert "torch" not in sys.modules
    serve_passes({"throughtime": VERSION}, prepare, lambda: None)
