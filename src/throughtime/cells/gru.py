"""The gated recurrent unit, with the reset gate behind the product."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from throughtime.cells.base import GatedCell, input_matrix, recurrent_matrix, register
from throughtime.cells.masks import Masks
from throughtime.cells.state import HiddenState


def _fused(cell: GRU, x_TBD: Tensor, state: HiddenState, masks: Masks | None = None) -> tuple[Tensor, HiddenState]:
    recurrent_bias = torch.cat([cell.c_n.new_zeros(2 * cell.hidden_size), cell.c_n])
    weights = [cell.W, cell.recurrent_weights(masks), cell.b, recurrent_bias]
    y_TBH, hidden_1BH = torch.gru(x_TBD, state.hidden_BH[None], weights, True, 1, 0.0, False, False, False)
    return y_TBH, HiddenState(hidden_1BH[0])


@final
@register("gru", fused=_fused, native=True)
class GRU(GatedCell):
    """Gated recurrent unit (Cho et al. 2014), in the variant that resets after the product, as PyTorch and cuDNN do.

    r_t = sigmoid(W_r x_t + U_r h_(t-1) + b_r)                   reset gate
    z_t = sigmoid(W_z x_t + U_z h_(t-1) + b_z)                   update gate
    n_t = tanh(W_n x_t + b_n + r_t * (U_n h_(t-1) + c_n))        candidate
    h_t = (1 - z_t) * n_t + z_t * h_(t-1)                        the output too

    The gates stand in the order r, z, n in W [3H, D], U [3H, H] and b [3H]; c_n [H] is the bias that is reset. W starts
    uniform with variance 1/D, U orthogonal for each gate, b and c_n zero. State: h_BH.

    Args:
        input_size: D.
        hidden_size: H.
        generator: seeds the initial weights.
    """

    equations = """\
r_t = sigmoid(W_r x_t + U_r h_(t-1) + b_r)
z_t = sigmoid(W_z x_t + U_z h_(t-1) + b_z)
n_t = tanh(W_n x_t + b_n + r_t * (U_n h_(t-1) + c_n))
h_t = (1 - z_t) * n_t + z_t * h_(t-1)"""
    recurrent = "U"

    def __init__(self, input_size: int, hidden_size: int, *, generator: torch.Generator | None = None):
        super().__init__(input_size, hidden_size)
        self.W = input_matrix(3 * hidden_size, input_size, generator)
        self.U = recurrent_matrix(3, hidden_size, generator)
        self.b = nn.Parameter(torch.zeros(3 * hidden_size))
        self.c_n = nn.Parameter(torch.zeros(hidden_size))

    def initial_state(self, batch_size: int) -> HiddenState:
        return HiddenState(self.zeros(batch_size))

    def gates(self, x_BD: Tensor, state: HiddenState, masks: Masks | None = None) -> dict[str, Tensor]:
        x_r, x_z, x_n = linear(x_BD, self.W, self.b).chunk(3, dim=1)
        h_r, h_z, h_n = self.product(state.hidden_BH, masks).chunk(3, dim=1)
        reset = torch.sigmoid(x_r + h_r)
        update = torch.sigmoid(x_z + h_z)
        candidate = torch.tanh(x_n + reset * (h_n + self.c_n))
        return {"reset": reset, "update": update, "candidate": candidate}

    def step(self, x_BD: Tensor, state: HiddenState, masks: Masks | None = None) -> tuple[Tensor, HiddenState]:
        _, update, candidate = self.gates(x_BD, state, masks).values()
        hidden_BH = torch.rsub(update, 1) * candidate + update * state.hidden_BH
        return hidden_BH, HiddenState(hidden_BH)
