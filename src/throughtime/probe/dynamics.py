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

REST = 1e-6
"""A state is at rest that all its steps change by less, in proportion to its norm (where that is above 1)."""
BEYOND = 1e6
"""A state has diverged whose norm is larger."""
SURE = 3.0
"""Standard errors by which an exponent must exceed 0."""


class Path(NamedTuple):
    """What one start led to."""

    verdict: str
    """`point attractor`, `oscillation` (one period), `quasi-periodic` (two), `chaos`, `divergence` or `undecided`."""
    periods: tuple[float, ...]
    """In steps, not integer in general."""
    unexplained: float
    """Share of the variance that these periods and their harmonics leave; 0 for a point, 1 where none were sought."""
    exponent: float
    """The largest Lyapunov exponent, nats per step; infinite after divergence."""
    error: float
    """Its standard error."""
    speed: float
    """The largest distance of a step at the end."""


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

    A path that comes to rest is a point attractor. Else one whose largest Lyapunov exponent is above 0, by three
    standard errors and by 2 / steps, is chaos: the exponent of a path that repeats itself is 0, and is found to about
    1 / steps. Else one period and its harmonics explain the path (oscillation), or two independent ones
    (quasi-periodic), or nothing here does (undecided).

    Args:
        system: F, reading its constant input.
        starts_BN: where to start.
        settle: steps before anything is measured.
        steps: steps measured, at least 256.
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
    speed = float(speed_T.max())
    if speed < REST * max(1.0, float(s_TN.norm(dim=1).max())):
        return Path(POINT, (), 0.0, exponent, error, speed)
    if exponent > max(SURE * error, 2 / len(speed_T)):
        return Path(CHAOS, (), 1.0, exponent, error, speed)
    found = rhythm(s_TN)
    verdict = (UNDECIDED, OSCILLATION, QUASI_PERIODIC)[len(found.periods)]
    return Path(verdict, found.periods, found.unexplained, exponent, error, speed)
