"""How far back the gradient goes.

A truncation says two things of every window: how much gradient passes between its steps (`flow_TB` of `Cell.forward`;
None: all) and what the next window begins with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

from torch import Tensor

from throughtime.cells.state import State, detach
from throughtime.recipe import Gradient
from throughtime.streams.window import Window


class Truncation(ABC):
    """A way to cut back-propagation through time."""

    @abstractmethod
    def flow(self, window: Window) -> Tensor | None:
        """`flow_TB` for a window: what the gradient is multiplied by on its way back from each step; None: 1."""

    @abstractmethod
    def carry(self, state: State) -> State:
        """The state that the next window begins with, from the one that this window ended with."""


@final
class FixedTruncation(Truncation):
    """The gradient goes back to the beginning of the window and no further; the state goes on, detached."""

    def flow(self, window: Window) -> Tensor | None:  # noqa: ARG002
        return None

    def carry(self, state: State) -> State:
        return detach(state)


def truncation(gradient: Gradient) -> Truncation:
    """The truncation that a recipe asks for."""
    return {"fixed": FixedTruncation}[gradient.truncation]()
