"""The minimal gated recurrent unit: its gate and its candidate see the input alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from throughtime.cells.base import GatedCell, input_matrix, register
from throughtime.cells.state import HiddenState
from throughtime.errors import SettingError


def candidate_function(candidate: str) -> Callable[[Tensor], Tensor]:
    """The g of a minimal cell, by its name.

    Raises:
        SettingError: where there is none of that name.
    """
    functions = {"linear": _linear, "positive": _positive}  # named functions: a lambda cannot be pickled
    if candidate not in functions:
        raise SettingError(f"candidate of a minimal cell must be {' or '.join(functions)}, got {candidate!r}")
    return functions[candidate]


def _linear(a: Tensor) -> Tensor:
    return a


def _positive(a: Tensor) -> Tensor:
    return torch.where(a >= 0, a + 0.5, torch.sigmoid(a))


@final
@register("mingru", native=True)
class MinGRU(GatedCell):
    """Minimal GRU (Feng et al. 2024, "Were RNNs All We Needed?").

    z_t = sigmoid(W_z x_t + b_z)             update gate
    n_t = g(W_n x_t + b_n)                   candidate
    h_t = (1 - z_t) * h_(t-1) + z_t * n_t    the output too
    g(a) = a; by candidate = 'positive', a + 0.5 where a >= 0, sigmoid(a) below

    There is no matrix on the state, nor a squashing function. The paper computes the positive form in log space, so
    that steps can run in parallel; here the state is carried as it is, and may have any sign and begin anywhere.

    The gates stand in the order z, n in W [2H, D] and b [2H]. W starts uniform with variance 1/D, b zero. State: h_BH.

    Args:
        input_size: D.
        hidden_size: H.
        candidate: `linear`, the paper's plain form, or `positive`, what its log-space form computes.
        generator: seeds the initial weights.
    """

    equations = """\
z_t = sigmoid(W_z x_t + b_z)
n_t = g(W_n x_t + b_n)
h_t = (1 - z_t) * h_(t-1) + z_t * n_t
g(a) = a; by candidate = 'positive', a + 0.5 where a >= 0, sigmoid(a) below"""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        candidate: str = "linear",
        generator: torch.Generator | None = None,
    ):
        super().__init__(input_size, hidden_size)
        self.candidate, self.g = candidate, candidate_function(candidate)
        self.W = input_matrix(2 * hidden_size, input_size, generator)
        self.b = nn.Parameter(torch.zeros(2 * hidden_size))

    def initial_state(self, batch_size: int) -> HiddenState:
        return HiddenState(self.zeros(batch_size))

    def gates(self, x_BD: Tensor, state: HiddenState) -> dict[str, Tensor]:  # noqa: ARG002
        z, n = linear(x_BD, self.W, self.b).chunk(2, dim=1)
        return {"update": torch.sigmoid(z), "candidate": self.g(n)}

    def step(self, x_BD: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        update, candidate = self.gates(x_BD, state).values()
        hidden_BH = torch.rsub(update, 1) * state.hidden_BH + update * candidate
        return hidden_BH, HiddenState(hidden_BH)
