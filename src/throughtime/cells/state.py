"""The state of a cell or a stack: the one place that knows how to make, detach, reset, select, save and load it.

A cell's state is a NamedTuple of arrays whose first axis is the batch (B); a stack's state is a tuple of its layers'
states. The functions here take either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from throughtime.cells import transforms
from throughtime.errors import ThroughtimeError

State = Any
"""A NamedTuple of tensors, or a tuple of such: Python's types cannot say so."""


WHOLE_KINDS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
"""Kinds of entries that indices and ids may have."""


class HiddenState(NamedTuple):
    """The state of a cell that has only its output to remember."""

    hidden_BH: Tensor


def map_state(function: Callable[..., Tensor], *states: State) -> State:
    """`function` applied to the arrays of one state, or to the matching arrays of several."""
    first = states[0]
    if isinstance(first, Tensor):
        return function(*states)
    mapped = [map_state(function, *parts) for parts in zip(*states, strict=True)]
    return tuple(mapped) if type(first) is tuple else type(first)(*mapped)


def leaves(state: State) -> list[Tensor]:
    """The arrays of a state, layer by layer."""
    if isinstance(state, Tensor):
        return [state]
    return [leaf for part in state for leaf in leaves(part)]


def as_rows(array: Tensor) -> Tensor:
    """An array of a state as one row a lane, [B, N], whatever its shape."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def batch_size(state: State) -> int:
    return leaves(state)[0].shape[0]


def detach(state: State) -> State:
    """The same numbers; no gradient goes back through them."""
    return map_state(torch.Tensor.detach, state)


def tracked(state: State) -> State:
    """The same numbers; gradients that go back to them end there, and are kept."""
    return map_state(lambda array: array.detach().requires_grad_(), state)


def reset_rows(state: State, reset_B: Tensor, initial: State) -> State:
    """The rows of `initial` where `reset_B` is true, of `state` elsewhere.

    Raises:
        ThroughtimeError: where `reset_B` is not a bool for each lane; PyTorch would broadcast one.
    """
    if reset_B.dtype != torch.bool or reset_B.shape != (batch_size(state),):
        kind = str(reset_B.dtype).removeprefix("torch.")
        raise ThroughtimeError(f"reset_B should be bool [{batch_size(state)}], got {kind} {list(reset_B.shape)}")
    return map_state(lambda old, new: torch.where(_column(reset_B, old), new, old), state, initial)


def select_rows(state: State, rows: Tensor) -> State:
    """The rows named by their indices, in that order; one may be named twice (a beam that branches)."""
    index = _indices(rows, state)
    return map_state(lambda array: array.index_select(0, index), state)


def put_rows(state: State, rows: Tensor, new: State) -> State:
    """`state` with the rows named replaced by those of `new`, in order."""
    index = _indices(rows, state)
    if batch_size(new) != len(index):
        raise ThroughtimeError(f"new should have a lane for each of the {len(index)} rows, got {batch_size(new)}")
    return map_state(lambda old, fresh: old.index_copy(0, index, fresh), state, new)


def scale_gradient(state: State, gradient_scale_B: Tensor) -> State:
    """The same state; the gradient that goes back through a row is multiplied by its entry of `gradient_scale_B`."""
    if transforms.active():  # which may have no rule for an autograd function
        return map_state(lambda array: _scaled(array, gradient_scale_B), state)
    return map_state(lambda array: _ScaleGradient.apply(array, gradient_scale_B), state)


def to_arrays(state: State, prefix: str = "state") -> dict[str, Tensor]:
    """The state as named arrays, to be saved: `state.0.hidden_BH` for the first layer of a stack."""
    if isinstance(state, Tensor):
        return {prefix: state.detach().contiguous()}
    names = getattr(state, "_fields", range(len(state)))
    return {
        key: array
        for name, part in zip(names, state, strict=True)
        for key, array in to_arrays(part, f"{prefix}.{name}").items()
    }


def from_arrays(arrays: Mapping[str, Tensor], like: State, prefix: str = "state") -> State:
    """The state that `to_arrays` took apart, in the shape of `like` (an initial state of the same batch size).

    Raises:
        ValueError: where an array is missing or has another shape.
    """
    wanted = to_arrays(like, prefix)
    if arrays.keys() != wanted.keys():
        raise ValueError(f"a state of {sorted(wanted)} was expected, got {sorted(arrays)}")
    for name, array in wanted.items():
        if arrays[name].shape != array.shape:
            raise ValueError(f"{name} should have shape {list(array.shape)}, got {list(arrays[name].shape)}")
    found = iter(arrays[name] for name in wanted)
    return map_state(lambda array: next(found).to(array), like)


def _indices(rows: Tensor, state: State) -> Tensor:
    """Indices of lanes.

    Raises:
        ThroughtimeError: where they are a mask, no whole numbers, or not of the state's lanes.
    """
    kind = str(rows.dtype).removeprefix("torch.") if isinstance(rows, Tensor) else type(rows).__name__
    masks = ("bool", "uint8")  # PyTorch takes the bytes of older programs for a mask
    if not isinstance(rows, Tensor) or rows.dtype not in WHOLE_KINDS or kind in masks or rows.dim() != 1:
        remedy = "; of a mask use mask.nonzero()[:, 0]" if kind in masks else ""
        raise ThroughtimeError(f"rows should be a vector of whole numbers, the indices of lanes, got {kind}{remedy}")
    lanes = batch_size(state)
    if rows.numel() and not rows.is_meta and not transforms.active():
        low, high = rows.min().item(), rows.max().item()
        if low < 0 or high >= lanes:
            raise ThroughtimeError(f"rows should be from 0 to {lanes - 1}, got {low if low < 0 else high}")
    return rows.long()


def _column(mask_B: Tensor, array: Tensor) -> Tensor:
    return mask_B.view(-1, *[1] * (array.dim() - 1))


def _scaled(array: Tensor, gradient_scale_B: Tensor) -> Tensor:
    held = array.detach()
    return held + _column(gradient_scale_B, array).to(array.dtype) * (array - held)


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, array: Tensor, gradient_scale_B: Tensor) -> Tensor:
        ctx.save_for_backward(gradient_scale_B)
        return array.view_as(array)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient_scale_B,) = ctx.saved_tensors
        return gradients[0] * _column(gradient_scale_B, gradients[0]).to(gradients[0]), None
