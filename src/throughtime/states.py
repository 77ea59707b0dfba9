"""States outside PyTorch: what they are, and the few operations on them. `cells.state` has those of PyTorch.

Axes: B batch (lane), N numbers of a lane in all arrays together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

States = tuple[NDArray[Any], ...]
"""The arrays of a state, layer by layer: floating point, the batch as first axis, then any shape (none, too)."""
Lanes = slice | Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]


def select(state: States, lanes: Lanes) -> States:
    """The lanes named by indices, a mask or a slice. By a slice the arrays share their memory with the state's."""
    return tuple(array[lanes] for array in state)


def put(state: States, lanes: Lanes, new: States) -> None:
    """Write the lanes of `new`, in order, over those named."""
    for array, fresh in zip(state, new, strict=True):
        array[lanes] = fresh


def join(states: Sequence[States]) -> States:
    """The lanes of all states, side by side.

    Raises:
        ValueError: where they differ in the number of their arrays, or in a shape behind the batch.
    """
    return tuple(np.concatenate(arrays) for arrays in zip(*states, strict=True))


def roll(state: States) -> States:
    """Each lane's state in the lane after it, the last one's in the first."""
    return tuple(np.roll(array, 1, axis=0) for array in state)


def copy(state: States) -> States:
    return tuple(array.copy() for array in state)


def empty(state: States, *axes: int) -> States:
    """Arrays of the same types and shapes, behind further axes, of undefined content."""
    return tuple(np.empty((*axes, *array.shape), array.dtype) for array in state)


def nbytes(state: States) -> int:
    """Bytes that the arrays take."""
    return sum(array.nbytes for array in state)


def distance(one: States, other: States) -> NDArray[np.float64]:
    """Largest difference of two states in each lane, relative above 1; NaN where an entry is not finite."""
    with np.errstate(invalid="ignore"):
        apart = [np.abs(a - b) / np.maximum(np.abs(a), 1) for a, b in zip(one, other, strict=True)]
    distance_B: NDArray[np.float64] = np.max([_rows(array).max(1, initial=0) for array in apart], axis=0)
    return distance_B.astype(np.float64)


def flat(state: States) -> NDArray[Any]:
    """A state as one array [B, N]."""
    return np.concatenate([_rows(array) for array in state], axis=1)


def shaped(flat_BN: NDArray[Any], like: States) -> States:
    """The state that `flat` made one array of; each array has the shape of `like`, but for the number of lanes."""
    sizes = [math.prod(array.shape[1:]) for array in like]
    parts = np.split(flat_BN, np.cumsum(sizes)[:-1], axis=1)
    return tuple(
        part.reshape(len(flat_BN), *array.shape[1:]).astype(array.dtype, copy=False)
        for part, array in zip(parts, like, strict=True)
    )


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    """An array as one row a lane."""
    return array.reshape(len(array), math.prod(array.shape[1:]))
