"""Back-propagation through more windows than memory holds: the same gradient, for a second pass forwards.

The first pass keeps the state before every n-th window and nothing else. Then, from the last stretch of n windows to
the first, each is run again and gone back through, beginning with the gradient that the stretch behind it left for the
state between them (Martens & Sutskever 2012, section 2; Gruslys et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from throughtime.cells.state import State, detach, leaves, tracked
from throughtime.errors import ThroughtimeError
from throughtime.models.base import SequenceModel, to_tensors
from throughtime.streams.batch import Batch
from throughtime.streams.batches import BatchIndex, BatchSource

MEGABYTE = 1 << 20


class _Kept(NamedTuple):
    """A stretch of the first pass, and what it takes to run it again."""

    indices: Sequence[BatchIndex]
    state: State
    drawn: Tensor | None
    """The state of the noise before it."""


def back_through(
    model: SequenceModel,
    source: BatchSource,
    indices: Sequence[BatchIndex],
    state: State,
    noise: torch.Generator | None,
    megabytes: int,
) -> tuple[float, int, State]:
    """Add the gradient of the mean loss over all the windows and lanes to that of the parameters.

    Args:
        model: whose parameters learn.
        source: where the batches are.
        indices: the batches, windows of a stream in order.
        state: before the first.
        noise: what dropout is drawn from, once a window; None: nothing is dropped.
        megabytes: the most that may be kept for the way back.

    Returns:
        The mean loss, in which the own lanes' targets alone are summed, the count of targets in all lanes, and the
        state after the last window, detached.

    Raises:
        ThroughtimeError: where the memory does not hold as much as a window keeps.
    """
    stride = _windows_at_once(model, source, indices, state, noise, megabytes)
    *earlier, last = (indices[start : start + stride] for start in range(0, len(indices), stride))
    kept: list[_Kept] = []
    count = sum(source.count_in(at) for at in indices)
    for stretch in earlier:
        kept.append(_Kept(stretch, state, noise.get_state() if noise else None))
        for at in stretch:
            with torch.no_grad():
                state = model.advance(to_tensors(source[at]), state, noise)
    loss, after, upstream = _back(model, source, last, state, noise, count, None)
    for stretch, before, drawn in reversed(kept):
        replay = None if drawn is None else torch.Generator().set_state(drawn)
        more, _, upstream = _back(model, source, stretch, before, replay, count, upstream)
        loss += more
    return loss / count, count, after


def _windows_at_once(
    model: SequenceModel,
    source: BatchSource,
    indices: Sequence[BatchIndex],
    state: State,
    noise: torch.Generator | None,
    megabytes: int,
) -> int:
    """Windows in a stretch: as many as leave room for the states between stretches."""
    state_bytes = sum(array.nbytes for array in leaves(state))
    trial = torch.Generator() if noise else None
    window_bytes = max(1, _kept_bytes(model, source, indices[0], state, trial))
    for stride in range(len(indices), 0, -1):
        if stride * window_bytes + -(-len(indices) // stride) * state_bytes <= megabytes * MEGABYTE:
            return stride
    needed = -(-(window_bytes + len(indices) * state_bytes) // MEGABYTE)
    raise ThroughtimeError(
        f"gradient.memory is {megabytes} MB, and a window with the states of {len(indices):,} takes {needed:,} MB; "
        "raise it, or lower streams.window or streams.lanes"
    )


def _kept_bytes(
    model: SequenceModel, source: BatchSource, at: BatchIndex, state: State, noise: torch.Generator | None
) -> int:
    """Bytes that one window keeps for its way back, beside the parameters."""
    known = {parameter.data_ptr() for parameter in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def weigh(tensor: Tensor) -> None:
        # Memory that was freed meanwhile could be given out again, and be counted once for two tensors. It is the
        # memory that is held, not the tensor: one that its own graph kept would never be freed.
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in known:
            found[memory.data_ptr()] = memory

    with saved_tensors_hooks(weigh, lambda kept: kept):
        summed_loss(model, source, to_tensors(source[at]), state, None, noise)
    return sum(memory.nbytes() for memory in found.values())


def summed_loss(
    model: SequenceModel,
    source: BatchSource,
    batch: Batch,
    state: State,
    gradient_scale_TB: Tensor | None,
    noise: torch.Generator | None,
) -> tuple[Tensor, State]:
    """The summed loss of the own lanes of a batch of tensors, with their share of the penalty, and the state after it.

    Divided by the batch's count it adds up, over processes, to the mean loss and the penalty.
    """
    losses, state = model.losses(batch, state, gradient_scale_TB, noise)
    loss = losses.terms.sum()
    if losses.penalty is not None:
        loss = loss + losses.penalty * (batch.count * len(source.own) / source.lanes)
    return loss, state


def _back(
    model: SequenceModel,
    source: BatchSource,
    indices: Sequence[BatchIndex],
    state: State,
    noise: torch.Generator | None,
    count: int,
    upstream: list[Tensor] | None,
) -> tuple[float, State, list[Tensor]]:
    """Run a stretch and go back through it: its loss, the state after it, and the gradients of the state before it."""
    before = tracked(state)
    after, loss = before, torch.zeros(())
    for at in indices:
        term, after = summed_loss(model, source, to_tensors(source[at]), after, None, noise)
        loss = loss + term
    torch.autograd.backward([loss / count, *leaves(after)], [None, *(upstream or map(torch.zeros_like, leaves(after)))])
    gradients = [torch.zeros_like(array) if array.grad is None else array.grad for array in leaves(before)]
    return loss.item(), detach(after), gradients
