"""A recurrence as a map on flat state vectors, s_t = F(s_(t-1), x_t), with its exact derivatives, in float64.

Lanes know nothing of one another, so a backward pass through copies of a state gives as many rows of its Jacobian: all
derivatives here are such vector-Jacobian products, of any cell whose `step` autograd can follow.

Axes: T time, B batch (lane), D input, H hidden, N entries of a state: of all its arrays, layer by layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from throughtime.cells.base import Cell
from throughtime.cells.stack import Stack
from throughtime.cells.state import State, as_rows, leaves, map_state
from throughtime.models.base import SequenceModel

Floats = npt.NDArray[np.float64]

LANES = 256
"""In one backward pass: enough for a matrix product to be worth its call, few enough for the cache."""


class System(NamedTuple):
    """A cell, or layers of cells, as one map."""

    stack: Stack
    """A copy in float64; a cell is a stack of one."""
    constant_D: Tensor
    """What it reads where it is left to itself."""


class Trajectory(NamedTuple):
    """A path of states, and what was read and put out on the way."""

    inputs_TBD: Tensor
    states_TBN: Tensor
    """The state before the first step, then the one after each: one more than there are inputs."""
    outputs_TBH: Tensor


class Pulled(NamedTuple):
    """What a gradient becomes on its way back through a step."""

    state_BN: Tensor
    """The gradient of the state before the step."""
    parameters: tuple[Tensor, ...]
    """The step's share in the gradient of the parameters, summed over lanes; empty where it was not asked for."""


def system(module: Cell | Stack | SequenceModel, constant_D: Tensor | None = None) -> System:
    """A module as a map on state vectors; of a model its stack.

    Args:
        module: what to look into. It is copied, and stays as it is.
        constant_D: what is read at every step without a text, such as the row of a token; None: zeros.
    """
    inner = module.stack if isinstance(module, SequenceModel) else module
    stack = copy.deepcopy(inner if isinstance(inner, Stack) else Stack([inner])).double().requires_grad_()
    constant_D = torch.zeros(stack.input_size) if constant_D is None else constant_D.detach()
    return System(stack, constant_D.double())


def layers(system: System) -> list[System]:
    """Each layer by itself, from the input up. What those above the first read comes from below."""
    cells = system.stack.layers()
    constants = [system.constant_D, *(torch.zeros(cell.input_size).double() for cell in cells[1:])]
    return [System(Stack([cell]), constant_D) for cell, constant_D in zip(cells, constants, strict=True)]


def parts(system: System) -> list[slice]:
    """Where each layer's entries lie in a state vector."""
    sizes = [sum(leaf.numel() for leaf in leaves(cell.initial_state(1))) for cell in system.stack.layers()]
    return [slice(start, stop) for start, stop in pairwise(accumulate(sizes, initial=0))]


def origin(system: System, lanes: int = 1) -> Tensor:
    """The initial state of each lane, [B, N]."""
    return flat(system.stack.initial_state(lanes)).detach()


def constant_inputs(system: System, steps: int, lanes: int) -> Tensor:
    """The system's own input, [T, B, D]."""
    return system.constant_D.expand(steps, lanes, -1)


def flat(state: State) -> Tensor:
    """A state as vectors, [B, N]."""
    return torch.cat([as_rows(array) for array in leaves(state)], 1)


def shaped(system: System, s_BN: Tensor) -> State:
    """Vectors as a state."""
    like = system.stack.initial_state(1)
    parts = iter(s_BN.split([leaf.numel() for leaf in leaves(like)], 1))
    return map_state(lambda array: next(parts).reshape(len(s_BN), *array.shape[1:]), like)


def step(system: System, s_BN: Tensor, x_BD: Tensor) -> tuple[Tensor, Tensor]:
    """One step: the outputs y_BH and the states after it."""
    y_BH, state = system.stack.step(x_BD, shaped(system, s_BN))
    return y_BH, flat(state)


@torch.no_grad()
def run(system: System, s_BN: Tensor, x_TBD: Tensor) -> Trajectory:
    """Step after step, at least one."""
    states, outputs = [s_BN], []
    for x_BD in x_TBD:
        y_BH, s_BN = step(system, s_BN, x_BD)
        states.append(s_BN)
        outputs.append(y_BH)
    return Trajectory(x_TBD, torch.stack(states), torch.stack(outputs))


def side_by_side(path: Trajectory, lanes: int) -> Trajectory:
    """The first lane of a path as several shorter ones, each of which begins where the one before it ends."""
    steps = len(path.inputs_TBD) // lanes
    starts = range(0, steps * lanes, steps)
    return Trajectory(
        torch.stack([path.inputs_TBD[start : start + steps, 0] for start in starts], 1),
        torch.stack([path.states_TBN[start : start + steps + 1, 0] for start in starts], 1),
        torch.stack([path.outputs_TBH[start : start + steps, 0] for start in starts], 1),
    )


def by_layer(system: System, path: Trajectory) -> Iterator[tuple[System, Trajectory]]:
    """Each layer by itself, and its part of a path."""
    x_TBD = path.inputs_TBD
    for layer, part in zip(layers(system), parts(system), strict=True):
        own = run(layer, path.states_TBN[0][:, part], x_TBD)
        yield layer, own
        x_TBD = own.outputs_TBH


def pull(
    system: System,
    s_BN: Tensor,
    x_BD: Tensor,
    of_state_BN: Tensor | None = None,
    of_output_BH: Tensor | None = None,
    parameters: bool = False,
) -> Pulled:
    """Gradients pulled back through a step: v^T dF/ds, one v a lane.

    Args:
        system: F.
        s_BN: the states before the step.
        x_BD: what it reads.
        of_state_BN: the gradient of the state after it.
        of_output_BH: the gradient of its output. At least one of the two is given.
        parameters: whether to pull it back to the parameters too.
    """
    s_BN = s_BN.detach().requires_grad_()
    y_BH, after_BN = step(system, s_BN, x_BD)
    given = [(y_BH, of_output_BH), (after_BN, of_state_BN)]
    results, gradients = zip(*((result, v) for result, v in given if v is not None), strict=True)
    wanted = [s_BN, *(system.stack.parameters() if parameters else ())]
    found = torch.autograd.grad(results, wanted, gradients, materialize_grads=True)
    return Pulled(found[0], tuple(found[1:]))


def jacobians(system: System, s_BN: Tensor, x_BD: Tensor) -> Tensor:
    """The step's Jacobian dF/ds at each state, [B, N, N]: row i holds the derivatives of entry i after the step."""
    lanes, size = s_BN.shape
    copies = max(1, min(size, LANES // max(lanes, 1)))
    s_BN = s_BN.detach().repeat_interleave(copies, 0).requires_grad_()
    _, after_BN = step(system, s_BN, x_BD.repeat_interleave(copies, 0))
    rows = []
    for wanted in torch.eye(size, dtype=s_BN.dtype).split(copies):
        v_BN = torch.cat([wanted, wanted.new_zeros(copies - len(wanted), size)]).repeat(lanes, 1)
        (pulled_BN,) = torch.autograd.grad(after_BN, s_BN, v_BN, retain_graph=True, materialize_grads=True)
        rows.append(pulled_BN.view(lanes, copies, size)[:, : len(wanted)])
    return torch.cat(rows, 1)
