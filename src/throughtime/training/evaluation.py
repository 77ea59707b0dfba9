"""A model in training, as what is measured (`objective.evaluation`). Axes: T time, B batch (lane)."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from throughtime import engine
from throughtime.cells.state import State, leaves, map_state
from throughtime.models.base import SequenceModel, to_tensors
from throughtime.objective.evaluation import Fresh
from throughtime.states import States
from throughtime.streams.batch import Batch, Int64


@final
class InTraining:
    """A model in training; no gradient is kept."""

    def __init__(self, model: SequenceModel):
        self._model = model

    @property
    def state_tolerance(self) -> float:
        return max(engine.STATE_TOLERANCE[cell.precision] for cell in self._model.stack.layers())

    def initial_state(self, batch_size: int) -> States:
        return _arrays(self._model.initial_state(batch_size))

    @torch.no_grad()
    def nats(
        self, inputs_TB: Int64, targets_TB: Int64, reset_TB: Fresh | None, state: States
    ) -> tuple[NDArray[np.float64], States]:
        losses, after = self._model.losses(to_tensors(Batch(inputs_TB, targets_TB, reset_TB, 0)), self._state(state))
        return losses.terms.double().numpy(), _arrays(after)

    @torch.no_grad()
    def advance(self, inputs_TB: Int64, reset_TB: Fresh, state: States) -> States:
        batch = to_tensors(Batch(inputs_TB, None, reset_TB, 0))
        return _arrays(self._model.advance(batch, self._state(state)))

    def _state(self, state: States) -> State:
        arrays = iter(torch.from_numpy(np.ascontiguousarray(array)) for array in state)
        return map_state(lambda _: next(arrays), self._model.initial_state(1))


def _arrays(state: State) -> States:
    return tuple(leaf.detach().numpy() for leaf in leaves(state))
