"""Long short-term memory."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from throughtime.cells.base import GatedCell, input_matrix, recurrent_matrix, register, unroll_steps
from throughtime.cells.masks import Masks


class LSTMState(NamedTuple):
    """What an LSTM remembers: its output and its cell."""

    hidden_BH: Tensor
    cell_BH: Tensor


def gates_of(sums: Tensor) -> dict[str, Tensor]:
    """The gates and the candidate, from the sums [B, 4H] in the order i, f, g, o."""
    i, f, g, o = sums.chunk(4, dim=1)
    return {
        "input": torch.sigmoid(i),
        "forget": torch.sigmoid(f),
        "candidate": torch.tanh(g),
        "output": torch.sigmoid(o),
    }


def _fused(cell: LSTM, x_TBD: Tensor, state: LSTMState, masks: Masks | None = None) -> tuple[Tensor, LSTMState]:
    if torch.compiler.is_compiling():  # the compiler cannot differentiate oneDNN's form
        return unroll_steps(cell, x_TBD, state, *([] if masks is None else [masks]))
    before = (state.hidden_BH[None], state.cell_BH[None])
    weights = [cell.W, cell.recurrent_weights(masks), cell.b, torch.zeros_like(cell.b)]
    y_TBH, hidden_1BH, cell_1BH = torch.lstm(x_TBD, before, weights, True, 1, 0.0, False, False, False)
    return y_TBH, LSTMState(hidden_1BH[0], cell_1BH[0])


@final
@register("lstm", fused=_fused, native=True)
class LSTM(GatedCell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gate (Gers et al. 2000), without peepholes.

    i_t = sigmoid(W_i x_t + U_i h_(t-1) + b_i)        input gate
    f_t = sigmoid(W_f x_t + U_f h_(t-1) + b_f)        forget gate
    g_t = tanh(W_g x_t + U_g h_(t-1) + b_g)           candidate
    o_t = sigmoid(W_o x_t + U_o h_(t-1) + b_o)        output gate
    c_t = f_t * c_(t-1) + i_t * g_t
    h_t = o_t * tanh(c_t)                             the output too

    The gates stand in the order i, f, g, o in W [4H, D], U [4H, H] and b [4H]. W starts uniform with variance 1/D, U
    orthogonal for each gate, b zero but for b_f = forget_bias. State: h_BH and c_BH.

    Args:
        input_size: D.
        hidden_size: H.
        forget_bias: the forget gate's bias at the start; 1 lets an untrained cell remember (Jozefowicz et al. 2015).
        generator: seeds the initial weights.
    """

    equations = """\
i_t = sigmoid(W_i x_t + U_i h_(t-1) + b_i)
f_t = sigmoid(W_f x_t + U_f h_(t-1) + b_f)
g_t = tanh(W_g x_t + U_g h_(t-1) + b_g)
o_t = sigmoid(W_o x_t + U_o h_(t-1) + b_o)
c_t = f_t * c_(t-1) + i_t * g_t
h_t = o_t * tanh(c_t)"""
    recurrent = "U"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        forget_bias: float = 1.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__(input_size, hidden_size)
        self.W = input_matrix(4 * hidden_size, input_size, generator)
        self.U = recurrent_matrix(4, hidden_size, generator)
        self.b = nn.Parameter(torch.zeros(4 * hidden_size))
        with torch.no_grad():
            self.b[hidden_size : 2 * hidden_size] = forget_bias

    def initial_state(self, batch_size: int) -> LSTMState:
        return LSTMState(self.zeros(batch_size), self.zeros(batch_size))

    def gates(self, x_BD: Tensor, state: LSTMState, masks: Masks | None = None) -> dict[str, Tensor]:
        return gates_of(linear(x_BD, self.W, self.b) + self.product(state.hidden_BH, masks))

    def step(self, x_BD: Tensor, state: LSTMState, masks: Masks | None = None) -> tuple[Tensor, LSTMState]:
        i, f, g, o = self.gates(x_BD, state, masks).values()
        cell_BH = f * state.cell_BH + i * g
        hidden_BH = o * torch.tanh(cell_BH)
        return hidden_BH, LSTMState(hidden_BH, cell_BH)
