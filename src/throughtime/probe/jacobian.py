"""The step's Jacobian along a path, layer by layer, and the state of the units there: gates, saturation, norms.

Axes: T time, P position, N entries of a layer's state, H hidden, G blocks of the recurrent matrix.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from throughtime.cells.base import Cell, GatedCell
from throughtime.probe.system import Floats, System, Trajectory, by_layer, jacobians, shaped
from throughtime.training.signs import NEAR_ONE, OPEN, SHUT

Complexes = npt.NDArray[np.complex128]

STILL = 0.01
"""A unit is dead whose output stays within this share of the layer's root mean square output."""


class Gate(NamedTuple):
    """A gate along a path, over all units and steps."""

    mean: float
    """0 lets nothing through, 1 everything."""
    shut: float
    """Share of values below 0.1."""
    open: float
    """Share of values above 0.9."""


class LayerJacobians(NamedTuple):
    """One layer along a path."""

    at_P: npt.NDArray[np.int64]
    """The steps whose Jacobians d s_t / d s_(t-1) were decomposed, of the layer's state by its own."""
    singular_values_PN: Floats
    """Descending. Above 1 a step stretches the difference of two states, and a gradient on its way back."""
    eigenvalues_PN: Complexes
    mean_radius: float
    """Largest absolute eigenvalue of the mean Jacobian; its logarithm is the slope of the gradient that a system which
    did the same at every step would have."""
    recurrent_radii: dict[str, float]
    """Largest absolute eigenvalue of each gate's block of the recurrent matrix; empty without such a matrix."""
    gates: dict[str, Gate]
    """By name, without the candidate; empty for a cell without gates."""
    dead: float
    """Share of units whose output hardly moves along the path."""
    saturated: float | None
    """Share of units whose output is beyond 0.95 for half of the steps or more; None where outputs exceed 1, since
    nothing squashes them."""
    state_norms_T: Floats
    """Euclidean norm of the state after each step."""


def layer_jacobians(system: System, path: Trajectory, positions: int = 8) -> list[LayerJacobians]:
    """What each layer does along the first lane of a path.

    Args:
        system: F.
        path: what it did.
        positions: steps, evenly spread, whose Jacobians are decomposed. Each takes a third of a second at N = 512.
    """
    return [_layer(layer, own, positions) for layer, own in by_layer(system, path)]


def eigenvalues(matrices: Tensor) -> Complexes:
    """Of each matrix, [..., N, N]."""
    try:
        found: Complexes = torch.linalg.eigvals(matrices).numpy()
    except RuntimeError:
        # MKL's may not converge where a matrix is small and of low rank; NumPy's does, and is several times as slow.
        found = np.linalg.eigvals(matrices.numpy()).astype(np.complex128)
    return found


def recurrent_radii(cell: Cell) -> dict[str, float]:
    """The spectral radius of each block of a cell's recurrent matrix, by gate or else by the matrix' name."""
    if cell.recurrent is None:
        return {}
    blocks_GHH = cell.recurrent_weights().detach().double().unflatten(0, (-1, cell.hidden_size))
    names = [cell.recurrent]
    if isinstance(cell, GatedCell):
        names = list(cell.gates(next(cell.parameters()).new_zeros(1, cell.input_size), cell.initial_state(1)))
    return dict(zip(names, np.abs(eigenvalues(blocks_GHH)).max(1).tolist(), strict=True))


def _layer(system: System, path: Trajectory, positions: int) -> LayerJacobians:
    (cell,) = system.stack.layers()
    y_TH = path.outputs_TBH[:, 0]
    at_P = torch.linspace(0, len(y_TH) - 1, min(positions, len(y_TH))).long()
    found_PNN = jacobians(system, path.states_TBN[at_P, 0], path.inputs_TBD[at_P, 0])
    spread_H = y_TH.amax(0) - y_TH.amin(0)
    return LayerJacobians(
        at_P=at_P.numpy(),
        singular_values_PN=torch.linalg.svdvals(found_PNN).numpy(),
        eigenvalues_PN=eigenvalues(found_PNN),
        mean_radius=float(np.abs(eigenvalues(found_PNN.mean(0))).max()),
        recurrent_radii=recurrent_radii(cell),
        gates=_gates(system, cell, path) if isinstance(cell, GatedCell) else {},
        dead=_share(spread_H < STILL * y_TH.square().mean().sqrt()),
        saturated=_share((y_TH.abs() > NEAR_ONE).double().mean(0) >= 0.5) if y_TH.abs().max() <= 1 else None,
        state_norms_T=path.states_TBN[1:, 0].norm(dim=1).numpy(),
    )


@torch.no_grad()
def _gates(system: System, cell: GatedCell, path: Trajectory) -> dict[str, Gate]:
    (state,) = shaped(system, path.states_TBN[:-1, 0])
    return {
        name: Gate(float(values_TH.mean()), _share(values_TH < SHUT), _share(values_TH > OPEN))
        for name, values_TH in cell.shares(path.inputs_TBD[:, 0], state).items()
    }


def _share(true: Tensor) -> float:
    return float(true.double().mean())
