"""Lanes of unequal length: the rows of a padded batch that are read, and their order.

A row is one step of one lane. Lanes are sorted by length, longest first, so that those that still run at a step are
always the first ones. Only these are computed: the time follows the number of rows, not the size of the padded batch.

Axes: T time, B batch (lane), D input, H hidden, N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from throughtime.cells import transforms
from throughtime.cells.masks import Masks
from throughtime.cells.sequence import Unroll, run_segments
from throughtime.cells.state import State, map_state, reset_rows, scale_gradient, select_rows

if TYPE_CHECKING:
    from throughtime.cells.base import Cell


@final
class Lengths:
    """The lengths of a batch's lanes, checked once and sorted once, for every layer that reads the batch.

    Args:
        lengths_B: int64, each from 0 to `steps`.
        steps: T.
    """

    def __init__(self, lengths_B: Tensor, steps: int):
        self.lengths_B, self.steps = lengths_B, steps

    def readable(self) -> bool:
        """Whether the numbers are those of this call alone, and can be looked at."""
        return transforms.active() is None and type(self.lengths_B) is Tensor and not self.lengths_B.is_meta

    def running(self) -> Tensor:
        """Whether step t is one of the lane's, bool [T, B]."""
        return torch.arange(self.steps, device=self.lengths_B.device)[:, None] < self.lengths_B

    def clear(self, array_TB: Tensor) -> Tensor:
        """The array with 0 in the padding."""
        return torch.where(self.running(), array_TB, 0)

    def turned(self) -> Tensor:
        """Index in an array [T * B, ...] of each row's mirror image within its lane; a row of padding has its own."""
        device, lanes = self.lengths_B.device, self.lengths_B.shape[0]  # len() would be a number in a trace
        steps = torch.arange(self.steps, device=device)[:, None]
        other = torch.where(self.running(), self.lengths_B - 1 - steps, steps)
        return (other * lanes + torch.arange(lanes, device=device)).flatten()

    @cached_property
    def rows(self) -> Rows:
        """The rows that are read, for a kernel."""
        lengths = self.lengths_B.numpy()
        order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
        steps = np.arange(self.steps)[:, None]
        running = lengths[order] > steps[: lengths.max(initial=0)]
        starts = np.zeros(len(running) + 1, np.int64)
        np.cumsum(running.sum(1), out=starts[1:])
        places = steps * len(lengths) + order
        return Rows(
            (self.steps, len(lengths)),
            torch.from_numpy(order),
            torch.from_numpy(starts),
            torch.from_numpy(places[: len(running)][running]),
            torch.from_numpy(np.flatnonzero(steps >= lengths)),
        )


class Rows(NamedTuple):
    """The rows that are read: step after step, and at each step the lanes that have it, the longest first."""

    batch: tuple[int, int]
    """T and B."""
    lanes: Tensor
    """Those with a step at all, longest first."""
    starts: Tensor
    """Number of rows before each step, and of all: [longest + 1]."""
    places: Tensor
    """Index of each row in an array [T * B, ...], [N]."""
    padding: Tensor
    """Index of every other row there."""

    @property
    def steps(self) -> int:
        """Length of the longest lane."""
        return len(self.starts) - 1

    def take(self, array: Tensor) -> Tensor:
        """The rows [N, ...] of an array [T, B, ...]."""
        return array.flatten(0, 1).index_select(0, self.places)

    def put(self, rows: Tensor, empty: Callable[..., Tensor]) -> Tensor:
        """An array [T, B, D], made by `empty`, of the rows [N, D], and of 0 where there is none."""
        array = empty(*self.batch, rows.shape[1])
        flat = array.numpy().reshape(-1, rows.shape[1])  # PyTorch's index_copy_ takes several times as long
        flat[self.places.numpy()] = rows.numpy()
        flat[self.padding.numpy()] = 0
        return array

    def take_lanes(self, array: Tensor) -> Tensor:
        """The lanes with a step, of an array [B, ...]."""
        return array.index_select(0, self.lanes)

    def put_lanes(self, rows: Tensor, before: Tensor) -> Tensor:
        """A copy of `before` [B, ...], with other rows for the lanes that have a step."""
        return before.index_copy(0, self.lanes, rows)


def run_lanes(
    cell: Cell,
    unroll: Unroll,
    x_TBD: Tensor,
    state: State,
    reset_TB: Tensor | None,
    gradient_scale_TB: Tensor | None,
    lengths: Lengths | None,
    masks: Masks | None,
) -> tuple[Tensor, State]:
    """Run a sequence by `unroll`; the other arguments as in `Cell.forward`."""
    if lengths is None:
        return run_segments(cell, unroll, x_TBD, state, reset_TB, gradient_scale_TB, masks)
    run = _run_pieces if lengths.readable() else _run_steps
    return run(cell, unroll, x_TBD, state, reset_TB, gradient_scale_TB, lengths, masks)


def _run_pieces(
    cell: Cell,
    unroll: Unroll,
    x_TBD: Tensor,
    state: State,
    reset_TB: Tensor | None,
    gradient_scale_TB: Tensor | None,
    lengths: Lengths,
    masks: Masks | None,
) -> tuple[Tensor, State]:
    """In pieces between the lanes' ends, each with the lanes that still run."""
    order = torch.argsort(lengths.lengths_B, descending=True, stable=True)
    sorted_B = lengths.lengths_B[order].tolist()
    pieces = _sorted(order, x_TBD, reset_TB, gradient_scale_TB)
    state = select_rows(state, order)
    if masks is not None and masks.state_BH is not None:
        masks = masks._replace(state_BH=masks.state_BH.index_select(0, order))
    outputs, ended, begin = [x_TBD.new_zeros(0, len(order), cell.hidden_size)], [], 0
    for end in sorted({length for length in sorted_B if length}):
        alive = sum(length >= end for length in sorted_B)
        ended.append(map_state(lambda array, alive=alive: array[alive:], state))
        state = map_state(lambda array, alive=alive: array[:alive], state)
        given = [None if array is None else array[begin:end, :alive] for array in pieces]
        if masks is not None and masks.state_BH is not None:
            masks = masks._replace(state_BH=masks.state_BH[:alive])
        y_TBH, state = run_segments(cell, unroll, given[0], state, given[1], given[2], masks)  # type: ignore[arg-type]
        outputs.append(pad(y_TBH, (0, 0, 0, len(order) - alive)))
        begin = end
    state = map_state(lambda *rows: torch.cat(rows), state, *reversed(ended))
    back = torch.argsort(order)
    y_TBH = pad(torch.cat(outputs), (0, 0, 0, 0, 0, lengths.steps - begin))
    return y_TBH.index_select(1, back), select_rows(state, back)


def _sorted(order: Tensor, *arrays: Tensor | None) -> list[Tensor | None]:
    return [None if array is None else array.index_select(1, order) for array in arrays]


def _run_steps(
    cell: Cell,
    unroll: Unroll,
    x_TBD: Tensor,
    state: State,
    reset_TB: Tensor | None,
    gradient_scale_TB: Tensor | None,
    lengths: Lengths,
    masks: Masks | None,
) -> tuple[Tensor, State]:
    """Step by step, for lengths that cannot be read, as when a call is recorded: every lane takes every step.

    A lane that has ended keeps its state. The padding is replaced by 0, since a gradient of 0 times NaN would be NaN.
    """
    running_TB, initial = lengths.running(), cell.initial_state(x_TBD.shape[1])
    x_TBD = torch.where(running_TB[..., None], x_TBD, 0)
    given = () if masks is None else (masks,)
    outputs = [x_TBD.new_zeros(0, x_TBD.shape[1], cell.hidden_size)]
    for t, running_B in enumerate(running_TB.unbind()):
        before = state
        if gradient_scale_TB is not None:
            state = scale_gradient(state, torch.where(running_B, gradient_scale_TB[t], 1))
        if reset_TB is not None:
            state = reset_rows(state, reset_TB[t] & running_B, initial)
        y_TBH, after = unroll(cell, x_TBD[t : t + 1], state, *given)
        state = map_state(_either(running_B), after, before)
        outputs.append(torch.where(running_B[:, None], y_TBH, 0))
    return torch.cat(outputs), state


def _either(running_B: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def choose(after: Tensor, before: Tensor) -> Tensor:
        return torch.where(running_B.view(-1, *[1] * (after.dim() - 1)), after, before)

    return choose
