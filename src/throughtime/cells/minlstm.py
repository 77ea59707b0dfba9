"""Minimal long short-term memory: its gates and its candidate see the input alone."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid

from throughtime.cells.base import GatedCell, input_matrix, register
from throughtime.cells.mingru import candidate_function
from throughtime.cells.state import HiddenState


@final
@register("minlstm", native=True)
class MinLSTM(GatedCell):
    """Minimal LSTM (Feng et al. 2024, "Were RNNs All We Needed?"), in the form whose gates sum to 1.

    f_t = sigmoid(W_f x_t + b_f)                                   forget gate
    i_t = sigmoid(W_i x_t + b_i)                                   input gate
    n_t = g(W_n x_t + b_n)                                         candidate
    h_t = f_t / (f_t + i_t) * h_(t-1) + i_t / (f_t + i_t) * n_t    the output too
    g(a) = a; by candidate = 'positive', a + 0.5 where a >= 0, sigmoid(a) below

    There is no matrix on the state, nor a squashing function; the state is carried as it is, not its logarithm.

    The gates stand in the order f, i, n in W [3H, D] and b [3H]. W starts uniform with variance 1/D, b zero but for
    b_f = forget_bias and b_i = -forget_bias. State: h_BH.

    Args:
        input_size: D.
        hidden_size: H.
        candidate: `linear`, the paper's plain form, or `positive`, what its log-space form computes.
        forget_bias: f_t / (f_t + i_t) starts around sigmoid(forget_bias), as the forget gate of an LSTM does; by b_f
            alone it could not start above 2/3. At 0 it starts at 1/2, as in a minGRU.
        generator: seeds the initial weights.
    """

    equations = """\
f_t = sigmoid(W_f x_t + b_f)
i_t = sigmoid(W_i x_t + b_i)
n_t = g(W_n x_t + b_n)
h_t = f_t / (f_t + i_t) * h_(t-1) + i_t / (f_t + i_t) * n_t
g(a) = a; by candidate = 'positive', a + 0.5 where a >= 0, sigmoid(a) below"""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        candidate: str = "linear",
        forget_bias: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__(input_size, hidden_size)
        self.candidate, self.g = candidate, candidate_function(candidate)
        self.W = input_matrix(3 * hidden_size, input_size, generator)
        self.b = nn.Parameter(torch.zeros(3 * hidden_size))
        with torch.no_grad():
            self.b[:hidden_size] = forget_bias
            self.b[hidden_size : 2 * hidden_size] = -forget_bias

    def initial_state(self, batch_size: int) -> HiddenState:
        return HiddenState(self.zeros(batch_size))

    def gates(self, x_BD: Tensor, state: HiddenState) -> dict[str, Tensor]:  # noqa: ARG002
        """The gates as shares: f_t / (f_t + i_t) and i_t / (f_t + i_t)."""
        f, i, n = linear(x_BD, self.W, self.b).chunk(3, dim=1)
        # f / (f + i) = sigmoid(log f - log i), which is right where both gates are too small to divide by their sum.
        odds = logsigmoid(f) - logsigmoid(i)
        return {"forget": torch.sigmoid(odds), "input": torch.sigmoid(-odds), "candidate": self.g(n)}

    def step(self, x_BD: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        forget, enter, candidate = self.gates(x_BD, state).values()
        hidden_BH = forget * state.hidden_BH + enter * candidate
        return hidden_BH, HiddenState(hidden_BH)
