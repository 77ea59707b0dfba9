"""States that a step leaves where they are, or nearly so, and whether what starts beside them stays there.

Axes: B lane (a search), D input, F point, N entries of a state.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from throughtime.probe.jacobian import Complexes, eigenvalues
from throughtime.probe.system import Floats, System, jacobians, step

EXACT = 1e-9
"""Speed of a fixed point, as `FixedPoints.speeds_F` has it."""
SLOW = 1e-3
"""Speed of a slow point at the most."""
SAME = 1e-3
"""Points closer than this, as root mean square over entries, are one."""

TRIES = 8
"""Dampings tried at a step, each ten times the last."""
STALLED = 0.99
"""A search ends where a step leaves more than this of the speed: at a minimum that is no fixed point."""
ROUNDING = 1e-13
"""A search ends at this speed, in proportion to the state (where that is above 1)."""


class FixedPoints(NamedTuple):
    """Fixed points (speed below 1e-9) and slow points (below 1e-3), distinct, the slowest first."""

    points_FN: Floats
    speeds_F: Floats
    """Root mean square over the entries of F(s) - s: what a step moves."""
    found_F: npt.NDArray[np.int64]
    """Searches that ended there."""
    eigenvalues_FN: Complexes
    """Of the step's Jacobian there."""
    radii_F: Floats
    """The largest absolute eigenvalue: below 1 what starts beside the point comes back to it."""
    searches: int
    lost: int
    """Searches that ended at nothing slow."""

    @property
    def fixed_F(self) -> npt.NDArray[np.bool_]:
        return self.speeds_F < EXACT

    @property
    def stable_F(self) -> npt.NDArray[np.bool_]:
        """Whether a point is fixed, and attracts."""
        return self.fixed_F & (self.radii_F < 1)


def fixed_points(system: System, starts_BN: Tensor, steps: int = 30, most: int = 24) -> FixedPoints:
    """Search for fixed and slow points of the system left to itself.

    From each start q(s) = |F(s) - s|^2 / 2 is minimised (Sussillo & Barak 2013, "Opening the black box"), by
    Levenberg-Marquardt with exact Jacobians; the damping is in proportion to |F(s) - s|, which keeps Newton's rate of
    convergence beside Jacobians that are singular too (Fan & Yuan 2005).

    Args:
        system: F, reading its constant input.
        starts_BN: where to search from: states that it visits, as it settles too. Far from all rest searches get lost.
        steps: of each search at the most.
        most: points that are examined; each takes a third of a second at N = 512.
    """
    ends_BN = starts_BN.detach().clone()
    searching = torch.arange(len(ends_BN))
    damping_B = torch.full((len(ends_BN),), 0.1, dtype=ends_BN.dtype)
    for _ in range(steps):
        if not len(searching):
            break
        ends_BN[searching], damping_B[searching] = _descend(system, ends_BN[searching], damping_B[searching])
        searching = damping_B.isfinite().nonzero().flatten()
    speeds_B = _rms(_move(system, ends_BN))
    slow = speeds_B < SLOW
    s_FN, found_F = _distinct(ends_BN[slow][speeds_B[slow].argsort()])
    s_FN, found_F = s_FN[:most], found_F[:most]
    eigenvalues_FN = eigenvalues(_jacobians(system, s_FN))
    return FixedPoints(
        points_FN=s_FN.numpy(),
        speeds_F=_rms(_move(system, s_FN)).numpy(),
        found_F=found_F.numpy(),
        eigenvalues_FN=eigenvalues_FN,
        radii_F=np.abs(eigenvalues_FN).max(1, initial=0.0),
        searches=len(starts_BN),
        lost=int((~slow).sum()),
    )


def _descend(system: System, s_BN: Tensor, damping_B: Tensor) -> tuple[Tensor, Tensor]:
    """A step of Levenberg-Marquardt, as damped as it takes for q to fall; infinite damping ends the search."""
    s_BN, damping_B = s_BN.clone(), damping_B.clone()
    r_BN = _move(system, s_BN)
    speeds_B = r_BN.norm(dim=1)
    eye_NN = torch.eye(s_BN.shape[1], dtype=s_BN.dtype)
    a_BNN = _jacobians(system, s_BN) - eye_NN
    h_BNN, g_BN1 = a_BNN.mT @ a_BNN, a_BNN.mT @ r_BN[..., None]
    trying = torch.arange(len(s_BN))
    for _ in range(TRIES):
        shift_B11 = (damping_B[trying] * speeds_B[trying]).clamp(min=1e-14)[:, None, None]
        factor_BNN, _ = torch.linalg.cholesky_ex(h_BNN[trying] + shift_B11 * eye_NN)
        tried_BN = s_BN[trying] - torch.cholesky_solve(g_BN1[trying], factor_BNN)[..., 0]
        left_B = _move(system, tried_BN).norm(dim=1) / speeds_B[trying]
        better = left_B < 1  # false for what is not finite
        s_BN[trying[better]] = tried_BN[better]
        damping_B[trying] *= torch.where(better, 0.1, 10.0)
        arrived = left_B * speeds_B[trying] < ROUNDING * tried_BN.norm(dim=1).clamp(min=1.0)
        damping_B[trying[better & (arrived | (left_B > STALLED))]] = torch.inf
        trying = trying[~better]
        if not len(trying):
            break
    damping_B[trying] = torch.inf
    return s_BN, damping_B


def _distinct(s_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Of points that lie together the first, and how many there are of each."""
    left, kept, counts = torch.arange(len(s_BN)), [], []
    while len(left):
        together = _rms(s_BN[left] - s_BN[left[0]]) < SAME
        kept.append(left[0])
        counts.append(together.sum())
        left = left[~together]
    return s_BN[torch.tensor(kept, dtype=torch.long)], torch.tensor(counts, dtype=torch.long)


def _move(system: System, s_BN: Tensor) -> Tensor:
    """F(s) - s."""
    with torch.no_grad():
        return step(system, s_BN, system.constant_D.expand(len(s_BN), -1))[1] - s_BN


def _jacobians(system: System, s_BN: Tensor) -> Tensor:
    return jacobians(system, s_BN, system.constant_D.expand(len(s_BN), -1))


def _rms(array_BN: Tensor) -> Tensor:
    return array_BN.square().mean(1).sqrt()
