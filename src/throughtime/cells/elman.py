"""The Elman network: one matrix on the state, one on the input, a squashing function."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from throughtime.cells.base import Cell, input_matrix, recurrent_matrix, register
from throughtime.cells.masks import Masks
from throughtime.cells.state import HiddenState
from throughtime.errors import SettingError


def _fused(cell: Elman, x_TBD: Tensor, state: HiddenState, masks: Masks | None = None) -> tuple[Tensor, HiddenState]:
    run = torch.rnn_tanh if cell.activation == "tanh" else torch.rnn_relu
    weights = [cell.W_hx, cell.recurrent_weights(masks), cell.b_h, torch.zeros_like(cell.b_h)]
    y_TBH, hidden_1BH = run(x_TBD, state.hidden_BH[None], weights, True, 1, 0.0, False, False, False)
    return y_TBH, HiddenState(hidden_1BH[0])


@final
@register("elman", fused=_fused, native=True)
class Elman(Cell):
    """Elman's simple recurrent network (Elman 1990, "Finding structure in time").

    h_t = phi(W_hh h_(t-1) + W_hx x_t + b_h), phi = tanh or relu; the output is h_t.

    W_hx [H, D] starts uniform with variance 1/D, W_hh [H, H] orthogonal, b_h [H] zero. State: h_BH.

    Args:
        input_size: D.
        hidden_size: H.
        activation: `tanh` or `relu`.
        generator: seeds the initial weights.
    """

    equations = "h_t = phi(W_hh h_(t-1) + W_hx x_t + b_h)        phi = tanh, or relu by activation = 'relu'"
    recurrent = "W_hh"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        activation: str = "tanh",
        generator: torch.Generator | None = None,
    ):
        super().__init__(input_size, hidden_size)
        if activation not in ("tanh", "relu"):
            raise SettingError(f"activation of an elman cell must be tanh or relu, got {activation!r}")
        self.activation = activation
        self.W_hx = input_matrix(hidden_size, input_size, generator)
        self.W_hh = recurrent_matrix(1, hidden_size, generator)
        self.b_h = nn.Parameter(torch.zeros(hidden_size))

    def initial_state(self, batch_size: int) -> HiddenState:
        return HiddenState(self.zeros(batch_size))

    def step(self, x_BD: Tensor, state: HiddenState, masks: Masks | None = None) -> tuple[Tensor, HiddenState]:
        phi = torch.tanh if self.activation == "tanh" else torch.relu
        hidden_BH = phi(self.product(state.hidden_BH, masks) + linear(x_BD, self.W_hx, self.b_h))
        return hidden_BH, HiddenState(hidden_BH)
