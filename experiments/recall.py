"""A symbol to be recalled after a delay full of noise, by networks that start with a radius, and gates open or not.

Axes: T time, B batch (lane), H hidden, K output.
"""

from __future__ import annotations

import functools
import math
import statistics
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, one_hot

from flow import norms, scale
from networks import Network, fit

SYMBOLS, HIDDEN, LANES = 4, 32, 32
RATE, MOMENTUM = 0.1, 0.9


class Contender(NamedTuple):
    """A network as it starts."""

    cell: str
    radius: float
    keep: float = 0.0
    """Bias of the gate that keeps the state: z of a GRU, f of an LSTM."""
    enter: float = 0.0
    """Bias of the gate that lets new things in beside, i of an LSTM."""


CONTENDERS = {
    "elman, radius 0.8": Contender("elman", 0.8),
    "elman, radius 1": Contender("elman", 1.0),
    "elman, radius 1.5": Contender("elman", 1.5),
    "gru": Contender("gru", 1.0),
    "gru, gate's bias 4": Contender("gru", 1.0, 4.0),
    "lstm, gate's bias 1": Contender("lstm", 1.0, 1.0),
    "lstm, gate's bias 4": Contender("lstm", 1.0, 4.0),
    "lstm, gates' biases 4, -4": Contender("lstm", 1.0, 4.0, -4.0),
}


def learn(contender: Contender, clip: float, delay: int, seed: int, steps: int) -> dict[str, Any]:
    """Train a network to say, after a delay full of noise, which symbol it read first."""
    network = Network(contender.cell, 2 * SYMBOLS + 1, HIDDEN, SYMBOLS, seed)
    (layer,) = network.stack.layers()
    scale(layer, contender.radius)
    if contender.cell != "elman":
        biases_GH = dict(layer.named_parameters())["b"].detach().view(-1, layer.hidden_size)
        biases_GH[0], biases_GH[1] = contender.enter, contender.keep
    noise = torch.Generator().manual_seed(seed)
    right: list[float] = []

    def draw() -> tuple[Tensor, Tensor]:
        read_TB = torch.randint(SYMBOLS, 2 * SYMBOLS, (delay + 2, LANES), generator=noise)
        read_TB[0] -= SYMBOLS
        read_TB[-1] = 2 * SYMBOLS
        return one_hot(read_TB, 2 * SYMBOLS + 1).float(), read_TB[0]

    def loss() -> Tensor:
        x_TBD, asked_B = draw()
        outputs_BK = network(x_TBD)[-1]
        right.append((outputs_BK.argmax(1) == asked_B).float().mean().item())
        return cross_entropy(outputs_BK, asked_B)

    x_TBD, asked_B = draw()
    norms_K = norms(
        network.stack,
        x_TBD,
        torch.tensor([delay + 1]),
        delay + 1,
        lambda y_BH: cross_entropy(linear(y_BH, network.W_ho, network.b_o), asked_B[:1]),
    )
    met = fit(network, loss, steps, RATE, clip, functools.partial(torch.optim.SGD, momentum=MOMENTUM))
    worse = [not step.loss < 1.1 * math.log(SYMBOLS) for step in met]
    return {
        "arrives": norms_K[-1] / norms_K[0],
        "right": statistics.mean(right[-50:]),
        "worse": (sum(worse) + steps - len(met)) / steps,
        "largest": max(step.norm for step in met),
        "clipped": statistics.mean(step.bound for step in met),
    }
