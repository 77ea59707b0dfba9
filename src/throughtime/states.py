"""States outside PyTorch: a tuple of NumPy arrays, and the functions on such tuples.

There is one array for each state array of each layer, from the input up. The batch is the first axis of every array;
the further axes are the cell's own, and may differ from array to array. Axes: B batch (lane).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

StateArrays = tuple[NDArray[np.float32], ...]
"""Arrays [B, ...] of one batch size."""
Lanes = slice | Sequence[int] | NDArray[np.integer] | NDArray[np.bool_]
"""Lanes by a slice, by their indices (one may be named twice), or by a mask_B."""


def batch_size(state: StateArrays) -> int:
    """Number of lanes of a state."""
    return len(state[0])


def size_in_bytes(state: StateArrays) -> int:
    """Memory that the arrays of a state take, in bytes."""
    return sum(array.nbytes for array in state)


def copied(state: StateArrays) -> StateArrays:
    """The same numbers in writable arrays of their own."""
    return tuple(array.copy() for array in state)


def select_lanes(state: StateArrays, lanes: Lanes) -> StateArrays:
    """The lanes named, in that order: views for a slice, else copies."""
    return tuple(array[lanes] for array in state)


def put_lanes(state: StateArrays, lanes: Lanes, new: StateArrays) -> None:
    """Replace the lanes named by those of `new`, in place."""
    for array, rows in zip(state, new, strict=True):
        array[lanes] = rows


def join_lanes(states: Sequence[StateArrays]) -> StateArrays:
    """The lanes of all states, side by side.

    Raises:
        ValueError: where they differ in the number of their arrays, or in a shape behind the batch.
    """
    return tuple(np.concatenate(arrays) for arrays in zip(*states, strict=True))


def distance(one: StateArrays, other: StateArrays) -> NDArray[np.float64]:
    """Largest difference between the entries of two states in each lane, relative above 1; NaN where an entry is not
    finite."""
    found_B = np.zeros(batch_size(one))
    with np.errstate(invalid="ignore"):
        for first, second in zip(one, other, strict=True):
            apart = np.abs(first - second) / np.maximum(np.abs(first), 1)
            found_B = np.maximum(found_B, apart.reshape(len(apart), -1).max(1))
    return found_B
