"""Minibatches. Axes: T time, B batch (lane)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

NO_TARGET = -100
"""Stands in `targets` where nothing is asked, as where a lane has ended. Losses leave it out."""

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """A minibatch, as an update of the parameters reads it, whatever the task.

    Batch sources make it of NumPy arrays, in the lanes of their own process; `models.base.to_tensors` makes tensors of
    them.
    """

    inputs: Any
    """Token ids [T, B] (int64), vectors [T, B, D] (float32), or a NamedTuple of arrays."""
    targets: Any
    """Targets of the model's loss, NO_TARGET where nothing is asked: for a language model, the token that follows each
    input, [T, B]."""
    reset_TB: Any
    """True where a new sequence begins: the row's state is reset before the step reads its input."""
    count: int
    """Targets in all lanes of all processes: the sum of the loss terms is divided by it."""
    lengths_B: Any = None
    """Steps of each lane, where lanes are padded; None: every lane fills the batch."""


class Tokens(Protocol):
    """Where ids come from: a file on disk, or an array in a test."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Int64:
        """Ids `start` to `stop`."""

    def documents_within(self, start: int, stop: int) -> Int64:
        """Where documents begin in `start` to `stop`, counted from `start`."""


def empty_batch(steps: int, lanes: int, count: int) -> Batch:
    """A batch of ids without inputs, targets and resets, to be filled lane by lane."""
    return Batch(
        np.zeros((steps, lanes), np.int64),
        np.full((steps, lanes), NO_TARGET, np.int64),
        np.zeros((steps, lanes), np.bool_),
        count,
    )


def fill_lane(batch: Batch, lane: int, tokens: Tokens, start: int, stop: int) -> None:
    """Put the predictions of tokens `start + 1` to `stop` into one lane of a batch, from its first step on."""
    ids = tokens.read(start, stop + 1)
    batch.inputs[: stop - start, lane] = ids[:-1]
    batch.targets[: stop - start, lane] = ids[1:]
    batch.reset_TB[tokens.documents_within(start, stop), lane] = True


def select_lanes(batch: Batch, lanes: Int64) -> Batch:
    """The lanes of these indices; `count` stays that of all lanes."""
    return replace(
        batch,
        inputs=batch.inputs[:, lanes],
        targets=batch.targets[:, lanes],
        reset_TB=batch.reset_TB[:, lanes],
        lengths_B=None if batch.lengths_B is None else batch.lengths_B[lanes],
    )


def join_batches(batches: Sequence[Batch]) -> Batch:
    """Windows of a stream one after the other, with the targets and the count of the last.

    An update reads such a batch where its gradient goes back into windows before its own.
    """
    if len(batches) == 1:
        return batches[0]
    return replace(
        batches[-1],
        inputs=_concatenate([batch.inputs for batch in batches]),
        reset_TB=np.concatenate([batch.reset_TB for batch in batches]),
    )


def _concatenate(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], tuple):
        return type(parts[0])(*map(_concatenate, zip(*parts, strict=True)))
    return np.concatenate(parts)
