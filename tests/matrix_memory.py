"""A cell from outside the package whose state is no [B, H]: it is named `matrix_memory:MatrixMemory`, not registered.

Axes: B batch (lane), D input, H hidden, K keys.
"""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, linear

from throughtime.cells.base import Cell, input_matrix

NAME = "matrix_memory:MatrixMemory"


class MemoryState(NamedTuple):
    """A matrix, and the sum that its rows are divided by."""

    memory_BHK: Tensor
    mass_B: Tensor


@final
class MatrixMemory(Cell):
    """Linear attention as a recurrence with decay (after Katharopoulos et al. 2020, equations 16 to 20).

    k_t, q_t = 1 + elu(W_k x_t), 1 + elu(W_q x_t)
    M_t = a M_(t-1) + tanh(W_v x_t) k_t^T
    m_t = a m_(t-1) + sum(k_t)
    h_t = M_t q_t / (1 + m_t)

    with a = sigmoid(b), which starts at 0.88. The output is no part of the state.
    """

    equations = (
        "k_t, q_t = 1 + elu(W_k x_t), 1 + elu(W_q x_t)\n"
        "M_t = a M_(t-1) + tanh(W_v x_t) k_t^T\n"
        "m_t = a m_(t-1) + sum(k_t)\n"
        "h_t = M_t q_t / (1 + m_t)"
    )

    def __init__(self, input_size: int, hidden_size: int, *, keys: int = 3, generator: torch.Generator | None = None):
        super().__init__(input_size, hidden_size)
        self.keys = keys
        self.W_k, self.W_q = (input_matrix(keys, input_size, generator) for _ in range(2))
        self.W_v = input_matrix(hidden_size, input_size, generator)
        self.b = nn.Parameter(torch.full((), 2.0))

    def initial_state(self, batch_size: int) -> MemoryState:
        return MemoryState(self.zeros(batch_size, (self.hidden_size, self.keys)), self.zeros(batch_size, ()))

    def step(self, x_BD: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        k_BK, q_BK = (1 + elu(linear(x_BD, W)) for W in (self.W_k, self.W_q))
        v_BH, a = torch.tanh(linear(x_BD, self.W_v)), torch.sigmoid(self.b)
        memory_BHK = a * state.memory_BHK + v_BH[:, :, None] * k_BK[:, None]
        mass_B = a * state.mass_B + k_BK.sum(1)
        read_BH = (memory_BHK @ q_BK[:, :, None])[:, :, 0]
        return read_BH / (1 + mass_B)[:, None], MemoryState(memory_BHK, mass_B)
