"""Layers of cells: h_t^l = phi(W^l [h_t^(l-1); h_(t-1)^l]), for every kind of cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from throughtime.cells.base import Cell
from throughtime.cells.state import State


@final
class Stack(nn.Module):
    """Cells one above the other, used like a single cell. Its state is the tuple of its layers' states.

    Args:
        cells: from the input up; each takes what the one below puts out.
        dropout: probability that a unit is dropped between two layers (Zaremba et al. 2014: not on the recurrence).
    """

    def __init__(self, cells: Sequence[Cell], dropout: float = 0.0):
        super().__init__()
        for below, above in zip(cells, cells[1:], strict=False):
            if above.input_size != below.hidden_size:
                raise ValueError(f"a layer of input {above.input_size} cannot stand on {below.hidden_size} units")
        self.cells = nn.ModuleList(cells)
        self.dropout = dropout
        self.input_size, self.hidden_size = cells[0].input_size, cells[-1].hidden_size
        self.engine = cells[0].engine

    def initial_state(self, batch_size: int) -> State:
        return tuple(cell.initial_state(batch_size) for cell in self._layers())

    def step(self, x_BD: Tensor, state: State) -> tuple[Tensor, State]:
        after = []
        for cell, layer_state in zip(self._layers(), state, strict=True):
            x_BD, layer_state = cell.step(x_BD, layer_state)
            after.append(layer_state)
        return x_BD, tuple(after)

    def forward(
        self,
        x_TBD: Tensor,
        state: State = None,
        fresh_TB: Tensor | None = None,
        flow_TB: Tensor | None = None,
        noise: torch.Generator | None = None,
    ) -> tuple[Tensor, State]:
        """Run a sequence through every layer; arguments as in `Cell.forward`.

        Args:
            noise: where dropout takes its masks from. Without it nothing is dropped.
        """
        after = []
        states = [None] * len(self.cells) if state is None else state
        for level, (cell, layer_state) in enumerate(zip(self._layers(), states, strict=True)):
            if level:
                x_TBD = drop(x_TBD, self.dropout, noise)
            x_TBD, layer_state = cell(x_TBD, layer_state, fresh_TB, flow_TB)
            after.append(layer_state)
        return x_TBD, tuple(after)

    def _layers(self) -> Sequence[Cell]:
        return self.cells  # type: ignore[return-value]


def drop(array: Tensor, probability: float, noise: torch.Generator | None) -> Tensor:
    """Inverted dropout with masks from `noise`; the array itself where there is no noise or nothing to drop."""
    if noise is None or not probability:
        return array
    return array * torch.empty_like(array).bernoulli_(1 - probability, generator=noise).div_(1 - probability)
