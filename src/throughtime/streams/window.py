"""What a minibatch is. Axes: T time, B lane."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

NO_TARGET = -100
"""Stands in `targets_TB` where a lane has nothing left to predict; inputs there are 0. Losses leave it out."""

Int64 = npt.NDArray[np.int64]


class Window(NamedTuple):
    """Tokens read side by side, and the token that follows each.

    `reset_TB` is true where a lane begins a new sequence: the state of that row is reset before the step reads it.
    """

    inputs_TB: Int64
    targets_TB: Int64
    reset_TB: npt.NDArray[np.bool_]


class Tokens(Protocol):
    """Where ids come from: a file on disk, or an array in a test."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Int64:
        """Ids `start` to `stop`."""

    def documents_within(self, start: int, stop: int) -> Int64:
        """Where documents begin in `start` to `stop`, counted from `start`."""


def empty_window(steps: int, lanes: int) -> Window:
    """Nothing to read, nothing to predict."""
    return Window(
        np.zeros((steps, lanes), np.int64),
        np.full((steps, lanes), NO_TARGET, np.int64),
        np.zeros((steps, lanes), np.bool_),
    )


def fill_lane(window: Window, lane: int, tokens: Tokens, start: int, stop: int) -> None:
    """Put the predictions of tokens `start + 1` to `stop` into one lane of a window, from its first step on."""
    ids = tokens.read(start, stop + 1)
    window.inputs_TB[: stop - start, lane] = ids[:-1]
    window.targets_TB[: stop - start, lane] = ids[1:]
    window.reset_TB[tokens.documents_within(start, stop), lane] = True
