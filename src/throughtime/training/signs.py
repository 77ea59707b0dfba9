"""Signs of life in training: how gradients and units of each layer are, and what to try where they are not well.

Axes: T time, B batch (lane), H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from throughtime.cells.base import Cell, GatedCell
from throughtime.cells.state import State, as_rows, leaves, tracked
from throughtime.models.base import SequenceModel
from throughtime.streams.batch import Batch
from throughtime.training.ranks import whole

PRODUCTS = 40
"""Of the recurrent matrix with a vector, for its spectral radius."""
SHUT, OPEN = 0.1, 0.9
"""A gate below or above is saturated (Karpathy, Johnson & Fei-Fei 2015, "Visualizing and understanding recurrent
networks")."""
NEAR_ONE = 0.95
"""A squashed output of more, or below minus this, is saturated."""
VANISHED, EXPLODED = 1e-6, 1e3
"""What comes back over a window of a gradient of 1."""


class Signs(NamedTuple):
    """Of one layer."""

    gradient_norm: float
    """Of its parameters' gradient, before clipping."""
    comes_back: float
    """Norm of d loss_T / d state at the beginning of the window, as a share of that one step before its end; mean over
    lanes."""
    spectral_radius: float | None
    """Of the recurrent matrix' gate blocks the largest, to a few percent; None without such a matrix."""
    saturated: float
    """Share of gates below 0.1 or above 0.9 at the end of the window; of a cell without gates, share of outputs beyond
    0.95."""


def gradient_norms(model: SequenceModel) -> list[float]:
    """Of each layer, from the gradients in the parameters. Where these are dealt, all processes have to ask."""
    return [
        math.sqrt(sum(float(whole(p.grad.square().sum())) for p in cell.parameters() if p.grad is not None))
        for cell in model.stack.layers()
    ]


def signs(model: SequenceModel, batch: Batch, state: State, norms: list[float]) -> list[Signs]:
    """How each layer is; what learns and draws is not touched.

    Args:
        model: in training.
        batch: tensors of at least two steps. Resets in it are left out: it is the recurrence that is looked at.
        state: before it.
        norms: what `gradient_norms` gave.
    """
    last = steps_of(batch, slice(-1, None))
    with torch.no_grad():
        before_last = model.advance(steps_of(batch, slice(-1)), state)
    near = _pulled(model, last, before_last)
    far = _pulled(model, replace(batch, targets=batch.targets[-1:], reset_TB=None), state)
    saturated = _saturated(model, last, before_last)
    return [
        Signs(norm, math.nan if not at_end else at_beginning / at_end, _radius(cell), share)
        for norm, at_beginning, at_end, cell, share in zip(
            norms, far, near, model.stack.layers(), saturated, strict=True
        )
    ]


def as_facts(found: list[Signs]) -> list[dict[str, Any]]:
    """For the journal: four digits, and null for what is not finite."""
    return [
        {
            name: float(f"{value:.4g}") if value is not None and math.isfinite(value) else None
            for name, value in layer._asdict().items()
        }
        for layer in found
    ]


def warnings(found: list[Signs], steps: int) -> Iterator[tuple[str, str]]:
    """What is wrong, a word and a line each, and what to try."""
    for level, layer in enumerate(found, 1):
        told = f"of layer {level} {layer.comes_back:.1g} comes back over {steps} steps"
        if layer.comes_back < VANISHED:
            yield (
                f"vanishing {level}",
                f"the gradient vanishes: {told}; try a cell with gates (lstm, gru), or a shorter window, which costs "
                "nothing then",
            )
        if layer.comes_back > EXPLODED:
            yield (
                f"exploding {level}",
                f"the gradient explodes: {told}; try a lower gradient.clip_norm or training.learning_rate, or a "
                "shorter window",
            )


def steps_of(batch: Batch, steps: slice) -> Batch:
    """Some steps of a batch of tensors, without resets."""
    return replace(batch, inputs=_sliced(batch.inputs, steps), targets=batch.targets[steps], reset_TB=None)


def _sliced(inputs: Any, steps: slice) -> Any:
    return type(inputs)(*(part[steps] for part in inputs)) if isinstance(inputs, tuple) else inputs[steps]


def _pulled(model: SequenceModel, batch: Batch, state: State) -> list[float]:
    """Norms of the gradient of each layer's state before a batch, for its loss; means over lanes."""
    before = tracked(state)
    with torch.enable_grad():
        losses, _ = model.losses(batch, before)
    found = iter(torch.autograd.grad(losses.terms.sum(), leaves(before), materialize_grads=True))
    squares = [sum(as_rows(next(found)).square().sum(1) for _ in leaves(layer)) for layer in before]
    return [float(torch.as_tensor(square_B).sqrt().mean()) for square_B in squares]


@torch.no_grad()
def _saturated(model: SequenceModel, step: Batch, state: State) -> list[float]:
    x_BD, found = model.stack_inputs(step.inputs)[0], []
    for cell, layer in zip(model.stack.layers(), state, strict=True):
        y_BH, _ = cell.step(x_BD, layer)
        if isinstance(cell, GatedCell):
            values = torch.cat(list(cell.shares(x_BD, layer).values()))
            beyond = (values < SHUT) | (values > OPEN)
        else:
            beyond = y_BH.abs() > NEAR_ONE
        found.append(float(beyond.double().mean()))
        x_BD = y_BH
    return found


@torch.no_grad()
def _radius(cell: Cell) -> float | None:
    """By the growth of a vector under repeated multiplication: eigenvalues would take a second at 1,024 units."""
    if cell.recurrent is None:
        return None
    blocks_GHH = cell.recurrent_weights().detach().unflatten(0, (-1, cell.hidden_size))
    v_GH1 = torch.ones(len(blocks_GHH), cell.hidden_size, 1)
    growth_G = torch.zeros(len(blocks_GHH))
    for product in range(PRODUCTS):
        v_GH1 = blocks_GHH @ v_GH1
        norms_G11 = v_GH1.norm(dim=1, keepdim=True).clamp(min=1e-30)
        v_GH1 = v_GH1 / norms_G11
        if product >= PRODUCTS // 2:  # the first ones turn the vector to where it grows fastest
            growth_G += norms_G11.flatten().log()
    return float((growth_G / (PRODUCTS - PRODUCTS // 2)).exp().max())
