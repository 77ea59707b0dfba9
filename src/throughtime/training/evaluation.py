"""A model in training, as what is measured (`objective.evaluation`).

Axes: T time, B batch (lane), S arrays of a state, H hidden.
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from throughtime import engine
from throughtime.cells.state import State, leaves, map_state
from throughtime.models.language import LanguageModel
from throughtime.objective.evaluation import Fresh, States
from throughtime.streams.window import Int64


@final
class InTraining:
    """A language model whose states are arrays [S, B, H]; no gradient is kept."""

    def __init__(self, model: LanguageModel):
        self._model = model

    @property
    def state_tolerance(self) -> float:
        return max(engine.STATE_TOLERANCE[cell.precision] for cell in self._model.stack.layers())

    def initial_state(self, batch_size: int) -> States:
        return _array(self._model.initial_state(batch_size))

    @torch.no_grad()
    def nats(
        self, inputs_TB: Int64, targets_TB: Int64, reset_TB: Fresh | None, state_SBH: States
    ) -> tuple[NDArray[np.float64], States]:
        fresh = None if reset_TB is None else torch.from_numpy(reset_TB)
        nats_TB, state = self._model.nats(
            torch.from_numpy(inputs_TB), torch.from_numpy(targets_TB), self._state(state_SBH), fresh
        )
        return nats_TB.double().numpy(), _array(state)

    @torch.no_grad()
    def advance(self, inputs_TB: Int64, reset_TB: Fresh, state_SBH: States) -> States:
        state = self._model.advance(torch.from_numpy(inputs_TB), self._state(state_SBH), torch.from_numpy(reset_TB))
        return _array(state)

    def _state(self, state_SBH: States) -> State:
        arrays = iter(torch.from_numpy(array) for array in np.ascontiguousarray(state_SBH))
        return map_state(lambda _: next(arrays), self._model.initial_state(1))


def _array(state: State) -> States:
    return np.stack([leaf.detach().numpy() for leaf in leaves(state)])
