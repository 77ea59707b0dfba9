"""All figures on one language model and one text, in the sizes that a minute allows.

Axes: T time, B lane, N entries of a state.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from throughtime.errors import ThroughtimeError
from throughtime.models.language import LanguageModel
from throughtime.probe.dynamics import Dynamics, dynamics
from throughtime.probe.fixed_points import FixedPoints, fixed_points
from throughtime.probe.gradient_flow import GradientFlow, gradient_flow
from throughtime.probe.jacobian import LayerJacobians, layer_jacobians
from throughtime.probe.lyapunov import Lyapunov, lyapunov
from throughtime.probe.system import Floats, System, constant_inputs, origin, run, side_by_side, system

LEAST = 64
"""Tokens that a text must have."""
LAGS = 128
LANES = 8
RELEASED = (0, 4, 16, 64)
"""Steps after which searches for fixed points set out from a state that the text has left."""


class Examination(NamedTuple):
    """A language model driven by a text, and left to itself."""

    flow: GradientFlow
    layers: tuple[LayerJacobians, ...]
    driven: Lyapunov
    """Along the text: below 0 the state depends on what was read, not on where it began."""
    alone: Dynamics
    """From states that the text has left, with nothing more to read."""
    fixed: FixedPoints
    """Likewise."""
    states_TN: Floats
    """Along the text, before the first step and after each."""


def examine(model: LanguageModel, ids_T: Tensor, token: int | None = None) -> Examination:
    """Everything that probe measures of a language model.

    Args:
        model: of any cell; in float64, through the reference steps.
        ids_T: the text, at least 64 tokens; gradients are followed 128 steps back where it is long enough.
        token: what the model reads all the time when it is left to itself; None: zeros, no token's row.

    Raises:
        ThroughtimeError: where the text is too short.
    """
    if len(ids_T) < LEAST:
        raise ThroughtimeError(f"a text to look into needs {LEAST} tokens, got {len(ids_T)}")
    model = copy.deepcopy(model).double().requires_grad_(False)
    inner = system(model, None if token is None else model.embedded(torch.tensor(token)))
    path = run(inner, origin(inner), model.embedded(ids_T[:, None]))
    visited_BN = path.states_TBN[torch.linspace(0, len(ids_T), LANES + 1).long()[1:], 0]
    return Examination(
        flow=gradient_flow(model, ids_T, min(LAGS, len(ids_T) - 2)),
        layers=tuple(layer_jacobians(inner, path)),
        driven=lyapunov(inner, side_by_side(path, LANES)),
        alone=dynamics(inner, visited_BN),
        fixed=fixed_points(inner, _released(inner, visited_BN[::2])),
        states_TN=path.states_TBN[:, 0].numpy(),
    )


def _released(system: System, s_BN: Tensor) -> Tensor:
    """States on the way from those given to where the system left to itself takes them."""
    path = run(system, s_BN, constant_inputs(system, max(RELEASED), len(s_BN)))
    return torch.cat([path.states_TBN[step] for step in RELEASED])
