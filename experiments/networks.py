"""Small recurrent networks that read numbers and put out numbers, and the loop that trains them.

Axes: T time, B batch (lane), D input, H hidden, K output.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from throughtime import cells
from throughtime.cells.base import input_matrix
from throughtime.cells.stack import Stack
from throughtime.cells.state import State
from throughtime.gradient.clipping import Clipping
from throughtime.gradient.settings import Gradient

ADAM = functools.partial(torch.optim.Adam, fused=True)


@final
class Network(nn.Module):
    """o_t = W_ho h_t + b_o on top of a stack; W_ho [K, H] starts uniform with variance 1/H, b_o [K] zero."""

    def __init__(self, cell: str, inputs: int, hidden: int, outputs: int, seed: int, layers: int = 1):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.stack = Stack(
            [cells.create(cell, hidden if level else inputs, hidden, generator=generator) for level in range(layers)]
        )
        self.W_ho = input_matrix(outputs, hidden, generator)
        self.b_o = nn.Parameter(torch.zeros(outputs))

    def forward(self, x_TBD: Tensor, state: State = None) -> Tensor:
        """The outputs, [T, B, K]."""
        y_TBH, _ = self.stack(x_TBD, state)
        return linear(y_TBH, self.W_ho, self.b_o)

    @property
    def size(self) -> int:
        """Count of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


class Step(NamedTuple):
    """What a step of training met."""

    loss: float
    norm: float
    """The gradient's, before clipping."""
    bound: bool
    """Whether it was clipped."""


def fit(
    module: nn.Module,
    loss: Callable[[], Tensor],
    steps: int,
    rate: float,
    clip: float = 1.0,
    optimiser: Callable[..., torch.optim.Optimizer] = ADAM,
) -> list[Step]:
    """Train, with a rate that falls evenly to 0; it ends early where the loss or its gradient is not finite.

    Args:
        module: whose parameters learn.
        loss: draws a minibatch, and gives its loss.
        steps: at the most.
        rate: at the start.
        clip: largest norm of the gradient; 0: any.
        optimiser: by its class, called with the parameters and `lr`.
    """
    parameters = list(module.parameters())
    updates = optimiser(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(updates, lambda step: 1 - step / steps)
    clipping = Clipping(Gradient(clip_norm=clip))
    met = []
    for _ in range(steps):
        updates.zero_grad()
        value = loss()
        value.backward()
        norm, bound = clipping(parameters)
        met.append(Step(value.item(), norm, bound))
        if not math.isfinite(met[-1].loss + norm):
            break
        updates.step()
        schedule.step()
    return met
