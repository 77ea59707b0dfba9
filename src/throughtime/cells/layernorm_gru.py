"""The gated recurrent unit with layer normalisation."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from throughtime.cells.base import GatedCell, input_matrix, recurrent_matrix, register
from throughtime.cells.masks import Masks
from throughtime.cells.state import HiddenState
from throughtime.engine.forms import EPSILON


@final
@register("layernorm-gru", native=True)
class LayerNormGRU(GatedCell):
    """GRU with layer normalisation (after Ba, Kiros & Hinton 2016, "Layer Normalization"), resetting after the product.

    p_t = LN(W x_t; gain_x)
    q_t = LN(U h_(t-1); gain_h)
    r_t = sigmoid(p_r + q_r + b_r)               reset gate
    z_t = sigmoid(p_z + q_z + b_z)               update gate
    n_t = tanh(p_n + b_n + r_t * (q_n + c_n))    candidate
    h_t = (1 - z_t) * n_t + z_t * h_(t-1)        the output too
    LN(v; gain) = gain * (v - mean(v)) / sqrt(var(v) + 1e-5)

    Mean and variance (the biased one) are those of a row of all 3H entries, the gates together, as in the paper's LSTM;
    the paper's GRU normalises r and z apart from n.

    The gates stand in the order r, z, n in W [3H, D], U [3H, H], b, gain_x and gain_h [3H]; c_n [H] is the bias that is
    reset. W starts uniform with variance 1/D, U orthogonal for each gate, gains 1, b and c_n zero. State: h_BH.

    Args:
        input_size: D.
        hidden_size: H.
        generator: seeds the initial weights.
    """

    equations = """\
p_t = LN(W x_t; gain_x)
q_t = LN(U h_(t-1); gain_h)
r_t = sigmoid(p_r + q_r + b_r)
z_t = sigmoid(p_z + q_z + b_z)
n_t = tanh(p_n + b_n + r_t * (q_n + c_n))
h_t = (1 - z_t) * n_t + z_t * h_(t-1)
LN(v; gain) = gain * (v - mean(v)) / sqrt(var(v) + 1e-5)"""
    recurrent = "U"
    epsilon: ClassVar[float] = EPSILON

    def __init__(self, input_size: int, hidden_size: int, *, generator: torch.Generator | None = None):
        super().__init__(input_size, hidden_size)
        self.W = input_matrix(3 * hidden_size, input_size, generator)
        self.U = recurrent_matrix(3, hidden_size, generator)
        self.b = nn.Parameter(torch.zeros(3 * hidden_size))
        self.c_n = nn.Parameter(torch.zeros(hidden_size))
        self.gain_x = nn.Parameter(torch.ones(3 * hidden_size))
        self.gain_h = nn.Parameter(torch.ones(3 * hidden_size))

    def initial_state(self, batch_size: int) -> HiddenState:
        return HiddenState(self.zeros(batch_size))

    def gates(self, x_BD: Tensor, state: HiddenState, masks: Masks | None = None) -> dict[str, Tensor]:
        from_x = layer_norm(linear(x_BD, self.W), self.gain_x.shape, self.gain_x, self.b, self.epsilon)
        from_h = layer_norm(self.product(state.hidden_BH, masks), self.gain_h.shape, self.gain_h, None, self.epsilon)
        x_r, x_z, x_n = from_x.chunk(3, dim=1)
        h_r, h_z, h_n = from_h.chunk(3, dim=1)
        reset = torch.sigmoid(x_r + h_r)
        update = torch.sigmoid(x_z + h_z)
        candidate = torch.tanh(x_n + reset * (h_n + self.c_n))
        return {"reset": reset, "update": update, "candidate": candidate}

    def step(self, x_BD: Tensor, state: HiddenState, masks: Masks | None = None) -> tuple[Tensor, HiddenState]:
        _, update, candidate = self.gates(x_BD, state, masks).values()
        hidden_BH = torch.rsub(update, 1) * candidate + update * state.hidden_BH
        return hidden_BH, HiddenState(hidden_BH)
