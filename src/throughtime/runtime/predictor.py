"""A network that runs without PyTorch, as what is measured (`objective.evaluation`)."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from throughtime.runtime.network import Network
from throughtime.states import States
from throughtime.streams.batch import Batch


@final
class NetworkPredictor:
    """A network of the runtime that predicts the token after each of its inputs."""

    def __init__(self, network: Network):
        self._network = network

    @property
    def state_tolerance(self) -> float:
        return self._network.state_tolerance

    def initial_state(self, batch_size: int) -> States:
        return self._network.initial_state(batch_size)

    def losses(self, batch: Batch, state: States) -> tuple[NDArray[np.float64], States]:
        return self._network.nats(batch.inputs, batch.targets, batch.reset_TB, state)

    def advance(self, batch: Batch, state: States) -> States:
        return self._network.advance(batch.inputs, batch.reset_TB, state)
