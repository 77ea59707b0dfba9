"""A model in training, as what is measured (`objective.evaluation`). Axes: T time, B batch (lane)."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from throughtime import engine
from throughtime.cells.state import State, leaves, map_state
from throughtime.models.base import SequenceModel, to_tensors
from throughtime.states import States
from throughtime.streams.batch import Batch


@final
class TorchPredictor:
    """A model in training; no gradient is kept."""

    def __init__(self, model: SequenceModel):
        self._model = model

    @property
    def state_tolerance(self) -> float:
        return max(engine.STATE_TOLERANCE[cell.precision] for cell in self._model.stack.layers())

    def initial_state(self, batch_size: int) -> States:
        return _arrays(self._model.initial_state(batch_size))

    @torch.no_grad()
    def losses(self, batch: Batch, state: States) -> tuple[NDArray[np.float64], States]:
        losses, after = self._model.losses(to_tensors(batch), self._state(state))
        return losses.terms.double().numpy(), _arrays(after)

    @torch.no_grad()
    def advance(self, batch: Batch, state: States) -> States:
        return _arrays(self._model.advance(to_tensors(batch), self._state(state)))

    def _state(self, state: States) -> State:
        arrays = iter(torch.from_numpy(np.ascontiguousarray(array)) for array in state)
        return map_state(lambda _: next(arrays), self._model.initial_state(1))


def _arrays(state: State) -> States:
    return tuple(leaf.detach().numpy() for leaf in leaves(state))
