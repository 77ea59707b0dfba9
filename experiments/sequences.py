"""Tasks made of sequences that are drawn by rule, of any length.

Each draws one sequence a lane, of the length asked for; lanes that are shorter than the longest go on with what is not
scored. Axes: T time, B batch (lane), D input, K output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

Ints = npt.NDArray[np.int64]

SYMBOLS, WIDTH = 8, 5
"""The copy problem: how many symbols there are, and how many of them are to be copied."""


class Batch(NamedTuple):
    """Sequences, and what is asked."""

    x_TBD: Tensor
    targets_TB: Tensor
    """Classes, or numbers."""
    scored_TB: Tensor
    """Where an answer is asked for."""


class Task(NamedTuple):
    """A rule."""

    draw: Callable[[Ints, np.random.Generator], Batch]
    """Sequences of the lengths_B asked for."""
    longest: int
    """Length of the longest sequence in training."""
    inputs: int
    outputs: int
    """Classes; 1: a number."""
    shortest: int = 1
    effort: int = 1
    """How many times as many steps of training as the easier tasks."""


def loss_of(task: Task, batch: Batch, outputs_TBK: Tensor) -> Tensor:
    """Mean cross-entropy of the answers, in nats, or mean squared error."""
    asked, targets = outputs_TBK[batch.scored_TB], batch.targets_TB[batch.scored_TB]
    return mse_loss(asked[:, 0], targets) if task.outputs == 1 else cross_entropy(asked, targets)


def _counting(lengths_B: Ints, _: np.random.Generator) -> Batch:
    """a^n b^n: after each b, whether the string is at its end."""
    t_T1, n_B = np.arange(2 * lengths_B.max())[:, None], lengths_B
    a_TB, b_TB = t_T1 < n_B, (t_T1 >= n_B) & (t_T1 < 2 * n_B)
    return _batch(np.stack([a_TB, b_TB], 2), t_T1 == 2 * n_B - 1, b_TB)


def _dyck(lengths_B: Ints, noise: np.random.Generator) -> Batch:
    """Dyck-2: after each closing bracket, which kind is open innermost, or none. Half of the brackets open."""
    steps, lanes = lengths_B.max(), len(lengths_B)
    lane_B = np.arange(lanes)
    opened_BT = np.zeros((lanes, steps + 1), np.int64)  # the kinds that are open, from depth 1; depth 0 is none
    depth_B = np.zeros(lanes, np.int64)
    read_TB, targets_TB = np.zeros((2, steps, lanes), np.int64)
    for t in range(steps):
        opens_B = (depth_B == 0) | (noise.random(lanes) < 0.5)
        kinds_B = np.where(opens_B, noise.integers(1, 3, lanes), opened_BT[lane_B, depth_B])
        read_TB[t] = kinds_B - 1 + np.where(opens_B, 0, 2)
        depth_B += np.where(opens_B, 1, -1)
        opened_BT[lane_B[opens_B], depth_B[opens_B]] = kinds_B[opens_B]
        targets_TB[t] = opened_BT[lane_B, depth_B]
    return _batch(np.eye(4)[read_TB], targets_TB, (read_TB >= 2) & _within(lengths_B))


def _parity(lengths_B: Ints, noise: np.random.Generator) -> Batch:
    """After each bit, whether the ones so far are odd in number."""
    bits_TB = noise.integers(0, 2, (lengths_B.max(), len(lengths_B)))
    return _batch(bits_TB[..., None], bits_TB.cumsum(0) % 2, _within(lengths_B))


def _addition(lengths_B: Ints, noise: np.random.Generator) -> Batch:
    """Two binary numbers, the lowest bits first: after each pair of bits, that of the sum."""
    bits_TB2 = noise.integers(0, 2, (lengths_B.max(), len(lengths_B), 2))
    carry_B, sums = np.zeros(len(lengths_B), np.int64), []
    for both_B in bits_TB2.sum(2):
        sums.append((both_B + carry_B) % 2)
        carry_B = (both_B + carry_B) // 2
    return _batch(bits_TB2, np.stack(sums), _within(lengths_B))


def _copy(lengths_B: Ints, noise: np.random.Generator) -> Batch:
    """Five symbols, a delay of the length asked for, a signal: then the symbols in their order."""
    symbols_WB = noise.integers(0, SYMBOLS, (WIDTH, len(lengths_B)))
    targets_TB, scored_TB = np.zeros((2, 2 * WIDTH + lengths_B.max(), len(lengths_B)), np.int64)
    x_TBD = np.zeros((*targets_TB.shape, SYMBOLS + 1))
    x_TBD[:WIDTH, :, :SYMBOLS] = np.eye(SYMBOLS)[symbols_WB]
    lane_B = np.arange(len(lengths_B))
    x_TBD[WIDTH + lengths_B, lane_B, SYMBOLS] = 1
    for place in range(WIDTH):
        at_B = WIDTH + lengths_B + place
        targets_TB[at_B, lane_B], scored_TB[at_B, lane_B] = symbols_WB[place], 1
    return _batch(x_TBD, targets_TB, scored_TB)


def _adding(lengths_B: Ints, noise: np.random.Generator) -> Batch:
    """Numbers from 0 to 1, one marked in each half: at the end, the sum of the two (Hochreiter & Schmidhuber 1997)."""
    lane_B, half_B = np.arange(len(lengths_B)), lengths_B // 2
    values_TB = noise.random((lengths_B.max(), len(lengths_B)))
    marks_TB, targets_TB = np.zeros((2, *values_TB.shape))
    marked_2B = np.stack([noise.integers(0, half_B), noise.integers(half_B, lengths_B)])
    marks_TB[marked_2B, lane_B] = 1
    targets_TB[lengths_B - 1, lane_B] = values_TB[marked_2B, lane_B].sum(0)
    last_TB = np.arange(len(values_TB))[:, None] == lengths_B - 1
    return _batch(np.stack([values_TB, marks_TB], 2), targets_TB.astype(np.float32), last_TB)


TASKS = {
    "a^n b^n": Task(_counting, longest=10, inputs=2, outputs=2, effort=3),
    "Dyck-2": Task(_dyck, longest=20, inputs=4, outputs=3, shortest=2),
    "parity": Task(_parity, longest=20, inputs=1, outputs=2),
    "addition": Task(_addition, longest=20, inputs=2, outputs=2),
    "copy": Task(_copy, longest=10, inputs=SYMBOLS + 1, outputs=SYMBOLS, effort=3),
    "adding": Task(_adding, longest=20, inputs=2, outputs=1, shortest=2, effort=3),
}


def _within(lengths_B: Ints) -> npt.NDArray[np.bool_]:
    return np.arange(lengths_B.max())[:, None] < lengths_B


def _batch(x_TBD: npt.NDArray[Any], targets_TB: npt.NDArray[Any], scored_TB: npt.NDArray[Any]) -> Batch:
    targets_TB = targets_TB if targets_TB.dtype == np.float32 else targets_TB.astype(np.int64)
    return Batch(
        torch.from_numpy(x_TBD.astype(np.float32)),
        torch.from_numpy(targets_TB),
        torch.from_numpy(scored_TB.astype(np.bool_)),
    )
