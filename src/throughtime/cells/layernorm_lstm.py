"""Long short-term memory with layer normalisation."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from throughtime.cells.base import GatedCell, input_matrix, recurrent_matrix, register
from throughtime.cells.lstm import LSTMState, gates_of
from throughtime.cells.masks import Masks
from throughtime.engine.forms import EPSILON


@final
@register("layernorm-lstm", native=True)
class LayerNormLSTM(GatedCell):
    """LSTM with layer normalisation (Ba, Kiros & Hinton 2016, "Layer Normalization", equations 20 to 22).

    a_t = LN(W x_t; gain_x) + LN(U h_(t-1); gain_h) + b
    i_t = sigmoid(a_i)                            input gate
    f_t = sigmoid(a_f)                            forget gate
    g_t = tanh(a_g)                               candidate
    o_t = sigmoid(a_o)                            output gate
    c_t = f_t * c_(t-1) + i_t * g_t               carried as it is
    h_t = o_t * tanh(LN(c_t; gain_c, shift_c))    the output too
    LN(v; gain, shift) = gain * (v - mean(v)) / sqrt(var(v) + 1e-5) + shift

    Mean and variance (the biased one) are those of a row: of all 4H entries of a product, the gates together, and of
    the H entries of c_t. The products have no shift of their own: b is the shift.

    The gates stand in the order i, f, g, o in W [4H, D], U [4H, H], b, gain_x and gain_h [4H]; gain_c and shift_c are
    [H]. W starts uniform with variance 1/D, U orthogonal for each gate, gains 1 and shifts 0 as the paper has them, but
    for b_f = forget_bias. State: h_BH and c_BH.

    Args:
        input_size: D.
        hidden_size: H.
        forget_bias: the forget gate's bias at the start; 1 lets an untrained cell remember (Jozefowicz et al. 2015).
        generator: seeds the initial weights.
    """

    equations = """\
a_t = LN(W x_t; gain_x) + LN(U h_(t-1); gain_h) + b
i_t = sigmoid(a_i)
f_t = sigmoid(a_f)
g_t = tanh(a_g)
o_t = sigmoid(a_o)
c_t = f_t * c_(t-1) + i_t * g_t
h_t = o_t * tanh(LN(c_t; gain_c, shift_c))
LN(v; gain, shift) = gain * (v - mean(v)) / sqrt(var(v) + 1e-5) + shift"""
    recurrent = "U"
    epsilon: ClassVar[float] = EPSILON

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
        self.gain_x = nn.Parameter(torch.ones(4 * hidden_size))
        self.gain_h = nn.Parameter(torch.ones(4 * hidden_size))
        self.gain_c = nn.Parameter(torch.ones(hidden_size))
        self.shift_c = nn.Parameter(torch.zeros(hidden_size))
        with torch.no_grad():
            self.b[hidden_size : 2 * hidden_size] = forget_bias

    def initial_state(self, batch_size: int) -> LSTMState:
        return LSTMState(self.zeros(batch_size), self.zeros(batch_size))

    def gates(self, x_BD: Tensor, state: LSTMState, masks: Masks | None = None) -> dict[str, Tensor]:
        from_x = layer_norm(linear(x_BD, self.W), self.gain_x.shape, self.gain_x, self.b, self.epsilon)
        from_h = layer_norm(self.product(state.hidden_BH, masks), self.gain_h.shape, self.gain_h, None, self.epsilon)
        return gates_of(from_x + from_h)

    def step(self, x_BD: Tensor, state: LSTMState, masks: Masks | None = None) -> tuple[Tensor, LSTMState]:
        i, f, g, o = self.gates(x_BD, state, masks).values()
        cell_BH = f * state.cell_BH + i * g
        normal_BH = layer_norm(cell_BH, self.gain_c.shape, self.gain_c, self.shift_c, self.epsilon)
        hidden_BH = o * torch.tanh(normal_BH)
        return hidden_BH, LSTMState(hidden_BH, cell_BH)
