"""Lyapunov exponents: how fast neighbouring paths part.

Axes: T time, B lane, K exponent, N entries of a state.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from throughtime.probe.system import Floats, System, Trajectory, pull

BLOCKS = 8
"""Stretches of each lane, at most, whose spread gives its error."""


class Lyapunov(NamedTuple):
    """The largest exponents, descending, in nats per step: a small difference grows by exp(exponent) each step."""

    exponents_K: Floats
    """Means over lanes."""
    errors_K: Floats
    """Their standard errors, from those of the lanes."""
    lanes_BK: Floats
    """Of each lane, in the same order."""
    lane_errors_BK: Floats
    """Their standard errors, from the spread between stretches of the lane."""
    steps: int
    """Steps of each lane they were measured over."""


def lyapunov(
    system: System, path: Trajectory, exponents: int = 8, settle: int | None = None, seed: int = 0
) -> Lyapunov:
    """The largest Lyapunov exponents along a path, autonomous or driven.

    By repeated QR decomposition (Benettin et al. 1980; Eckmann & Ruelle 1985, "Ergodic theory of chaos and strange
    attractors", section V), of the transposed Jacobians from the end of the path to its beginning: a product's
    transpose has the same singular values, and going backward needs vector-Jacobian products alone.

    Args:
        system: F.
        path: at least two steps; settled, where exponents of an attractor are wanted.
        exponents: K, at most N are found.
        settle: steps at the path's end over which the directions may turn, not measured; None: a fifth.
        seed: of the directions to begin with.
    """
    steps, lanes, _ = path.inputs_TBD.shape
    size = path.states_TBN.shape[2]
    settle = steps // 5 if settle is None else settle
    noise = torch.Generator().manual_seed(seed)
    drawn_BNK = torch.randn(lanes, size, min(exponents, size), generator=noise, dtype=torch.float64)
    q_BNK = torch.linalg.qr(drawn_BNK).Q
    growth = []
    for t in range(steps - 1, -1, -1):
        s_BN, x_BD = (array.repeat_interleave(q_BNK.shape[2], 0) for array in (path.states_TBN[t], path.inputs_TBD[t]))
        pulled = pull(system, s_BN, x_BD, of_state_BN=q_BNK.mT.flatten(0, 1))
        q_BNK, r_BKK = torch.linalg.qr(pulled.state_BN.view(lanes, -1, size).mT)
        growth.append(r_BKK.diagonal(dim1=1, dim2=2).abs().log())
    growth_TBK = torch.stack(growth[settle:]).numpy()
    blocks = min(BLOCKS, len(growth_TBK))
    means_SBK = np.stack([stretch.mean(0) for stretch in np.array_split(growth_TBK, blocks)])
    lanes_BK = growth_TBK.mean(0)
    with np.errstate(invalid="ignore"):  # a direction that the step forgets altogether grows by -inf
        lane_errors_BK = means_SBK.std(0, ddof=1) / blocks**0.5
    order_K = np.argsort(-lanes_BK.mean(0))
    return Lyapunov(
        exponents_K=lanes_BK.mean(0)[order_K],
        errors_K=(np.square(lane_errors_BK).sum(0) ** 0.5 / lanes)[order_K],
        lanes_BK=lanes_BK[:, order_K],
        lane_errors_BK=lane_errors_BK[:, order_K],
        steps=len(growth_TBK),
    )
