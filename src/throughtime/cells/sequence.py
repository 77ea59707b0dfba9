"""A sequence without a kernel: stretches that run in one piece, between the steps before which a state is touched.

Axes: T time, B batch (lane), D input, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from throughtime.cells import transforms
from throughtime.cells.masks import Masks
from throughtime.cells.state import State, reset_rows, scale_gradient

if TYPE_CHECKING:
    from throughtime.cells.base import Cell

Unroll = Callable[..., tuple[Tensor, State]]
"""`(cell, x_TBD, state) -> (y_TBH, state)`: a whole sequence without resets, gradients flowing freely. T >= 1.

Where weights are masked, and only there, the `Masks` come as a fourth argument."""


class Stretch(NamedTuple):
    """Steps that run in one piece, and the marks of the first of them."""

    x_TBD: Tensor
    reset_B: Tensor | None
    gradient_scale_B: Tensor | None


def unroll_steps(cell: Cell, x_TBD: Tensor, state: State, *masks: Masks) -> tuple[Tensor, State]:
    """The reference: `step` after `step`."""
    outputs = []
    for x_BD in x_TBD.unbind():
        y_BH, state = cell._plain_step(x_BD, state, *masks)
        outputs.append(y_BH)
    return torch.stack(outputs), state


def run_segments(
    cell: Cell,
    unroll: Unroll,
    x_TBD: Tensor,
    state: State,
    reset_TB: Tensor | None,
    gradient_scale_TB: Tensor | None,
    masks: Masks | None,
) -> tuple[Tensor, State]:
    """A sequence by `unroll`; the other arguments as in `Cell.forward`."""
    steps, lanes = x_TBD.shape[:2]
    if not steps:
        return x_TBD.new_zeros(0, lanes, cell.hidden_size), state
    given = () if masks is None else (masks,)
    if reset_TB is None and gradient_scale_TB is None:
        return unroll(cell, x_TBD, state, *given)
    outputs, initial = [], cell.initial_state(lanes)
    for stretch in _stretches(x_TBD, reset_TB, gradient_scale_TB):
        if stretch.gradient_scale_B is not None:
            state = scale_gradient(state, stretch.gradient_scale_B)
        if stretch.reset_B is not None:
            state = reset_rows(state, stretch.reset_B, initial)
        y_TBH, state = unroll(cell, stretch.x_TBD, state, *given)
        outputs.append(y_TBH)
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)), state


def _stretches(x_TBD: Tensor, reset_TB: Tensor | None, gradient_scale_TB: Tensor | None) -> Iterator[Stretch]:
    marks = [mark for mark in (reset_TB, gradient_scale_TB) if mark is not None]
    if transforms.active() or any(mark.is_meta or type(mark) is not Tensor for mark in marks):
        # The marks of this call are not those of the next, or cannot be read: any step may be touched.
        reset_T = [None] * len(x_TBD) if reset_TB is None else reset_TB.unbind()
        gradient_scale_T = [None] * len(x_TBD) if gradient_scale_TB is None else gradient_scale_TB.unbind()
        for x_BD, reset_B, gradient_scale_B in zip(x_TBD.unbind(), reset_T, gradient_scale_T, strict=True):
            yield Stretch(x_BD[None], reset_B, gradient_scale_B)
        return
    for start, stop in segments(len(x_TBD), reset_TB, gradient_scale_TB):
        yield Stretch(
            x_TBD[start:stop],
            None if reset_TB is None else reset_TB[start],
            None if gradient_scale_TB is None else gradient_scale_TB[start],
        )


def segments(steps: int, reset_TB: Tensor | None, gradient_scale_TB: Tensor | None) -> Iterator[tuple[int, int]]:
    """Stretches between the steps before which a state is touched: each can run in one piece."""
    touched = torch.zeros(steps, dtype=torch.bool, device="cpu")
    if reset_TB is not None:
        touched |= reset_TB.any(1).cpu()
    if gradient_scale_TB is not None:
        touched |= (gradient_scale_TB != 1).any(1).cpu()
    cuts = [0, *(step for step in touched.nonzero().flatten().tolist() if step), steps]
    return ((start, stop) for start, stop in zip(cuts, cuts[1:], strict=False) if start < stop)
