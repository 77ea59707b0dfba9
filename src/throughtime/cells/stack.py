"""Layers of cells: h_t^l = phi(W^l [h_t^(l-1); h_(t-1)^l]), for every kind of cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from throughtime.cells.base import Cell, Embedded
from throughtime.cells.masks import Masks, draw_mask, drop
from throughtime.cells.state import State


@final
class Stack(nn.Module):
    """Cells one above the other, used like a single cell. Its state is the tuple of its layers' states.

    Args:
        cells: from the input up; each takes what the one below puts out.
        dropout: probability that a unit is dropped between two layers (Zaremba et al. 2014: not on the recurrence).
        weight_drop: probability that a weight is left out of the product with the state (`Masks.weights`).
        recurrent_dropout: probability that a unit of the state is left out of it (`Masks.state_BH`).

    Raises:
        SettingError: where something is to be left out of a product that a cell does not have.
    """

    def __init__(
        self, cells: Sequence[Cell], dropout: float = 0.0, weight_drop: float = 0.0, recurrent_dropout: float = 0.0
    ):
        super().__init__()
        for below, above in zip(cells, cells[1:], strict=False):
            if above.input_size != below.hidden_size:
                raise ValueError(f"a layer of input {above.input_size} cannot stand on {below.hidden_size} units")
        if weight_drop or recurrent_dropout:
            for cell in cells:
                cell.recurrent_weights()  # a cell without says so now, not at the first window
        self.cells = nn.ModuleList(cells)
        self.dropout, self.weight_drop, self.recurrent_dropout = dropout, weight_drop, recurrent_dropout
        self.input_size, self.hidden_size = cells[0].input_size, cells[-1].hidden_size
        self.engine, self.reason = cells[0].engine, cells[0].reason
        if self.engine == "torch" and recurrent_dropout:
            self.engine, self.reason = "reference", "PyTorch's forms leave nothing out of the state"

    def initial_state(self, batch_size: int) -> State:
        return tuple(cell.initial_state(batch_size) for cell in self.layers())

    def step(self, x_BD: Tensor, state: State) -> tuple[Tensor, State]:
        after = []
        for cell, layer_state in zip(self.layers(), state, strict=True):
            x_BD, layer_state = cell.step(x_BD, layer_state)
            after.append(layer_state)
        return x_BD, tuple(after)

    def forward(
        self,
        x: Tensor | Embedded,
        state: State = None,
        fresh_TB: Tensor | None = None,
        flow_TB: Tensor | None = None,
        noise: torch.Generator | None = None,
    ) -> tuple[Tensor, State]:
        """Run a sequence through every layer; arguments as in `Cell.forward`.

        Args:
            noise: where masks are drawn from, once a call. Without it nothing is dropped. The order: for each layer,
                from the input up, its input (not the first's), the weights on its state, its state.
        """
        after = []
        states = [None] * len(self.cells) if state is None else state
        y_TBH = torch.empty(0)
        lanes = (x.ids_TB if isinstance(x, Embedded) else x).shape[1]
        for level, (cell, layer_state) in enumerate(zip(self.layers(), states, strict=True)):
            below = x if level == 0 else drop(y_TBH, self.dropout, noise)
            y_TBH, layer_state = cell(below, layer_state, fresh_TB, flow_TB, self._masks(cell, lanes, noise))
            after.append(layer_state)
        return y_TBH, tuple(after)

    def _masks(self, cell: Cell, lanes: int, noise: torch.Generator | None) -> Masks | None:
        if noise is None or not (self.weight_drop or self.recurrent_dropout):
            return None
        return Masks(
            weights=draw_mask(cell.recurrent_weights(), self.weight_drop, noise),
            state_BH=draw_mask(cell.zeros(lanes), self.recurrent_dropout, noise),
        )

    def layers(self) -> Sequence[Cell]:
        """The cells, from the input up."""
        return self.cells  # type: ignore[return-value]
