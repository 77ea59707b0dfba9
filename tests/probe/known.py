"""Recurrences whose behaviour is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from throughtime import cells
from throughtime.cells.base import Cell
from throughtime.cells.state import HiddenState

LORENZ_STEP = 0.01
"""Units of time in a step."""


class Map(Cell):
    """h_t = f(h_(t-1)), whatever is read."""

    equations = "h_t = f(h_(t-1))"

    def __init__(self, function: Callable[[Tensor], Tensor], size: int):
        super().__init__(1, size)
        self.function = function

    def initial_state(self, batch_size):
        return HiddenState(torch.zeros(batch_size, self.hidden_size, dtype=torch.float64))

    def step(self, x_BD, state):  # noqa: ARG002
        hidden_BH = self.function(state.hidden_BH)
        return hidden_BH, HiddenState(hidden_BH)


def henon():
    return Map(lambda h: torch.stack([1 - 1.4 * h[:, 0] ** 2 + h[:, 1], 0.3 * h[:, 0]], 1), 2)


def lorenz():
    """By Runge & Kutta's method of fourth order."""

    def velocity(h):
        x, y, z = h.unbind(1)
        return torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], 1)

    def step(h):
        k1 = velocity(h)
        k2 = velocity(h + LORENZ_STEP / 2 * k1)
        k3 = velocity(h + LORENZ_STEP / 2 * k2)
        k4 = velocity(h + LORENZ_STEP * k3)
        return h + LORENZ_STEP / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    return Map(step, 3)


def logistic(rate):
    return Map(lambda h: rate * h * (1 - h), 1)


def rotation(*periods, factor=1.0):
    """A plane for each period, in steps."""
    turns = [
        torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
        for a in 2 * math.pi / torch.tensor(periods).double()
    ]
    turn = factor * torch.block_diag(*turns).double()
    return Map(lambda h: h @ turn.T, len(turn))


def limit_cycle(period):
    """A plane that is turned, stretched and squashed back to a circle of radius 1/2^1/2, whatever it starts from."""
    angle = 2 * math.pi / period
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    return Map(lambda h: (1.5 - h.square().sum(1, keepdim=True)) * h @ turn.T, 2)


def elman(recurrent_HH):
    cell = cells.create("elman", 1, len(recurrent_HH), engine="reference").double()
    with torch.no_grad():
        cell.W_hh.copy_(recurrent_HH)
    return cell


def random_elman(gain, size=100, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return elman(gain * size**-0.5 * torch.randn(size, size, generator=noise, dtype=torch.float64))
