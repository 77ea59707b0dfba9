"""What the recurrence does when it is left to itself: settle, oscillate, or neither.

Axes: T time, B lane (a start), K exponent, N entries of a state.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from throughtime.probe.frequencies import rhythm
from throughtime.probe.lyapunov import Lyapunov, lyapunov
from throughtime.probe.system import Floats, System, Trajectory, constant_inputs, run

POINT, OSCILLATION, QUASI_PERIODIC, CHAOS = "point attractor", "oscillation", "quasi-periodic", "chaos"
DIVERGENCE, UNDECIDED = "divergence", "undecided"

SAME = 1e-6
"""Closer states are the same, in proportion to their norm (where that is above 1)."""
BEYOND = 1e6
"""A state has diverged whose norm is larger."""
SLOWING = 0.1
"""A path is on its way to rest whose speed falls below this share of itself; it may seem to come back meanwhile."""
SURE = 3.0
"""Standard errors by which an exponent must differ from 0."""


class Path(NamedTuple):
    """What one start led to."""

    verdict: str
    """`point attractor`, `oscillation` (one period), `quasi-periodic` (two), `chaos`, `divergence` or `undecided`."""
    periods: tuple[float, ...]
    """In steps, not integer in general; integer where the path comes back to the same states."""
    unexplained: float
    """As `Rhythm` has it; 0 for a point, 1 where no period was sought."""
    exponent: float
    """The largest Lyapunov exponent, nats per step; infinite after divergence."""
    error: float
    """Its standard error."""
    speed: float
    """The largest distance of a step in the last quarter."""


class Dynamics(NamedTuple):
    """What several starts led to."""

    verdict: str
    """Of most starts."""
    paths: tuple[Path, ...]
    """Of each start."""
    lyapunov: Lyapunov | None
    """Over all starts that did not diverge; None where all did."""
    states_TBN: Floats
    """The ends of the paths, on which all of this was measured."""


def dynamics(system: System, starts_BN: Tensor, settle: int = 1000, steps: int = 1000, exponents: int = 8) -> Dynamics:
    """Let the system run from several starts, and say what becomes of it.

    A path that comes to rest, or steadily closer to it, is a point attractor. Else its largest Lyapunov exponent is
    compared with 0, for which it is taken within three standard errors or 2 / steps. Above 0 the path is chaos. Below
    0, if it comes back to a state, it is a cycle of states, an oscillation whose period is their number. Else one
    period and its harmonics foretell the path (oscillation), or two independent ones (quasi-periodic), or nothing here
    does (undecided).

    Args:
        system: F, reading its constant input.
        starts_BN: where to start.
        settle: steps before anything is measured.
        steps: steps measured. Periods of a third as many are found at the most.
        exponents: Lyapunov exponents, at most.
    """
    lanes = len(starts_BN)
    settled_BN = run(system, starts_BN, constant_inputs(system, settle, lanes)).states_TBN[-1]
    path = run(system, settled_BN, constant_inputs(system, steps, lanes))
    there = (path.states_TBN[-1].norm(dim=1) < BEYOND).nonzero().flatten()
    kept = Trajectory(path.inputs_TBD[:, there], path.states_TBN[:, there], path.outputs_TBH[:, there])
    measured = lyapunov(system, kept, exponents) if len(there) else None
    paths = [Path(DIVERGENCE, (), 1.0, torch.inf, 0.0, torch.inf)] * lanes
    if measured is not None:
        for number, lane in enumerate(there.tolist()):
            exponent, error = measured.lanes_BK[number, 0], measured.lane_errors_BK[number, 0]
            paths[lane] = _judge(path.states_TBN[:, lane], float(exponent), float(error))
    verdict = Counter(path.verdict for path in paths).most_common(1)[0][0]
    return Dynamics(verdict, tuple(paths), measured, path.states_TBN.numpy())


def _judge(s_TN: Tensor, exponent: float, error: float) -> Path:
    speed_T = s_TN.diff(dim=0).norm(dim=1)
    quarter = max(1, len(speed_T) // 4)
    early, speed = float(speed_T[:quarter].max()), float(speed_T[-quarter:].max())
    near = SAME * max(1.0, float(s_TN.norm(dim=1).max()))
    zero = max(SURE * error, 2 / len(speed_T))
    if speed < near or (exponent < -zero and speed < SLOWING * early):
        return Path(POINT, (), 0.0, exponent, error, speed)
    if exponent > zero:
        return Path(CHAOS, (), 1.0, exponent, error, speed)
    here = (s_TN[:-1] - s_TN[-1]).norm(dim=1) < near
    if exponent < -zero and here.any():
        return Path(OSCILLATION, (float(len(here) - here.nonzero().max()),), 0.0, exponent, error, speed)
    found = rhythm(s_TN)
    verdict = (UNDECIDED, OSCILLATION, QUASI_PERIODIC)[len(found.periods)]
    return Path(verdict, found.periods, found.unexplained, exponent, error, speed)
