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
from throughtime.models.language import LanguageModel
from throughtime.streams.partition import Partition, Place
from throughtime.streams.window import Window

MEGABYTE = 1 << 20


class _Kept(NamedTuple):
    """A stretch of the first pass, and what it takes to run it again."""

    places: Sequence[Place]
    state: State
    drawn: Tensor | None
    """The state of the noise before it."""


def back_through(
    model: LanguageModel,
    partition: Partition,
    places: Sequence[Place],
    state: State,
    noise: torch.Generator | None,
    megabytes: int,
) -> tuple[float, int, State]:
    """Add the gradient of the mean loss over all the windows and lanes to that of the parameters.

    Args:
        model: whose parameters learn.
        partition: where the windows are, all of the same length.
        places: the windows, in order.
        state: before the first.
        noise: what dropout is drawn from, once a window; None: nothing is dropped.
        megabytes: the most that may be kept for the way back.

    Returns:
        The mean nats (of the own lanes, what they add to it), the count of tokens predicted in all lanes, and the state
        after the last window, detached.

    Raises:
        ThroughtimeError: where the memory does not hold as much as a window keeps.
    """
    stride = _windows_at_once(model, partition, places, state, noise, megabytes)
    *earlier, last = (places[start : start + stride] for start in range(0, len(places), stride))
    kept: list[_Kept] = []
    tokens = len(places) * partition.window * partition.lanes
    for stretch in earlier:
        kept.append(_Kept(stretch, state, noise.get_state() if noise else None))
        for place in stretch:
            state = _advance(model, partition[place], state, noise)
    nats, after, upstream = _back(model, partition, last, state, noise, tokens, None)
    for stretch, before, drawn in reversed(kept):
        replay = None if drawn is None else torch.Generator().set_state(drawn)
        more, _, upstream = _back(model, partition, stretch, before, replay, tokens, upstream)
        nats += more
    return nats / tokens, tokens, after


def _windows_at_once(
    model: LanguageModel,
    partition: Partition,
    places: Sequence[Place],
    state: State,
    noise: torch.Generator | None,
    megabytes: int,
) -> int:
    """Windows in a stretch: as many as leave room for the states between stretches."""
    state_bytes = sum(array.nbytes for array in leaves(state))
    trial = torch.Generator() if noise else None
    window_bytes = max(1, _kept_bytes(model, partition[places[0]], state, trial))
    for stride in range(len(places), 0, -1):
        if stride * window_bytes + -(-len(places) // stride) * state_bytes <= megabytes * MEGABYTE:
            return stride
    needed = -(-(window_bytes + len(places) * state_bytes) // MEGABYTE)
    raise ThroughtimeError(
        f"gradient.memory is {megabytes} MB, and a window with the states of {len(places):,} takes {needed:,} MB; "
        "raise it, or lower streams.window or streams.lanes"
    )


def _kept_bytes(model: LanguageModel, window: Window, state: State, noise: torch.Generator | None) -> int:
    """What one window keeps for its way back, beside the parameters."""
    known = {parameter.data_ptr() for parameter in model.parameters()}
    found: dict[int, int] = {}

    def weigh(tensor: Tensor) -> None:  # keeps nothing: a tensor that its own graph kept would never be freed
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in known:
            found[memory.data_ptr()] = memory.nbytes()

    with saved_tensors_hooks(weigh, lambda kept: kept):
        _nats(model, window, state, noise)
    return sum(found.values())


@torch.no_grad()
def _advance(model: LanguageModel, window: Window, state: State, noise: torch.Generator | None) -> State:
    return model.advance(torch.from_numpy(window.inputs_TB), state, torch.from_numpy(window.reset_TB), noise)


def _nats(model: LanguageModel, window: Window, state: State, noise: torch.Generator | None) -> tuple[Tensor, State]:
    inputs_TB, targets_TB, reset_TB = (torch.from_numpy(array) for array in window)
    return model.nats(inputs_TB, targets_TB, state, reset_TB, None, noise)


def _back(
    model: LanguageModel,
    partition: Partition,
    places: Sequence[Place],
    state: State,
    noise: torch.Generator | None,
    tokens: int,
    upstream: list[Tensor] | None,
) -> tuple[float, State, list[Tensor]]:
    """Run a stretch and go back through it: its nats, the state after it, and the gradients of the state before it."""
    before = tracked(state)
    after, nats = before, torch.zeros(())
    for place in places:
        nats_TB, after = _nats(model, partition[place], after, noise)
        nats = nats + nats_TB.sum()
    torch.autograd.backward(
        [nats / tokens, *leaves(after)], [None, *(upstream or map(torch.zeros_like, leaves(after)))]
    )
    gradients = [torch.zeros_like(array) if array.grad is None else array.grad for array in leaves(before)]
    return nats.item(), detach(after), gradients
