"""How far back gradients reach: their norms against the lag, and what a truncation would throw away.

The state s_(t-k) is what step t-k handed on to the next step; lag k is that far back from what step t puts out (the
loss) or leaves behind (the state). A truncation that lets step t see k steps, itself included, cuts there. Going back
is one vector-Jacobian product a step, exact.

Axes: T time, B position (each is a lane), N entries of a state, H hidden, V vocabulary, K lag, L layer.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from throughtime.errors import ThroughtimeError
from throughtime.models.language import LanguageModel
from throughtime.probe.system import Floats, Pulled, System, Trajectory, by_layer, origin, parts, pull, run, system

JACOBIANS = 16
"""Most positions at which the state's Jacobian is measured."""


class Norms(NamedTuple):
    """Of one layer: norms at lags 1, 2, ..., K."""

    geometric_K: Floats
    """The geometric mean over positions, which the slope is taken of; 0 where a norm is 0."""
    arithmetic_K: Floats
    """The arithmetic mean over positions, which the largest gradients rule."""
    slope: float
    """Of log geometric mean against the lag, by least squares: nats per step; NaN where fewer than two are not 0."""


class Thrown(NamedTuple):
    """The share of the layers' gradient that a truncation throws away.

    |G - G_k| / |G|, with G the gradient of the parameters of all layers for the sum of the losses at the positions, as
    far back as the longest lag, and G_k what truncation at k leaves of it. Above 1 the truncated gradient is worse than
    none.
    """

    reach_K: Floats
    """Every loss reaches back over k steps (k = 1 to K): G_k sums lags below k."""
    window_K: Floats
    """Windows of k steps with the state carried: G_k is the mean of the above over a window's steps, 1 to k."""


class GradientFlow(NamedTuple):
    """How the gradients of a language model vanish or explode along a text."""

    positions: int
    """Positions in the text, evenly spread, over which means are taken."""
    vectors: int
    """Random directions a position for the norms of the state's Jacobians."""
    loss: tuple[Norms, ...]
    """Euclidean norm of d loss_t / d s_(t-k), for each layer, in nats."""
    state: tuple[Norms, ...]
    """Frobenius norm of d s_t / d s_(t-k) over the root of the layer's entries, so that it is 1 at lag 0: each layer's
    state by its own. Exact where `vectors` are as many as the entries, else estimated from random directions."""
    thrown: Thrown


def gradient_flow(
    model: LanguageModel, ids_T: Tensor, lags: int = 128, positions: int = 64, vectors: int = 8, seed: int = 0
) -> GradientFlow:
    """Follow the gradient of a language model back through a text.

    Args:
        model: read in float64, through the reference steps.
        ids_T: the text, at least lags + 2 tokens.
        lags: K, how far back.
        positions: most places in the text to begin at.
        vectors: random directions for each position in which the state's Jacobian is measured.
        seed: of those.

    Raises:
        ThroughtimeError: where the text is too short.
    """
    if len(ids_T) < lags + 2:
        raise ThroughtimeError(f"gradients {lags} steps back need {lags + 2} tokens of text, got {len(ids_T)}")
    model = copy.deepcopy(model).double()
    map_ = system(model)
    with torch.no_grad():
        x_TBD = model.embedded(ids_T[:-1, None])
    path = run(map_, origin(map_), x_TBD)
    at_B = torch.linspace(lags - 1, len(x_TBD) - 1, min(positions, len(x_TBD) - lags + 1)).long()
    of_output_BH = _output_gradient(model, path.outputs_TBH[at_B, 0], ids_T[at_B + 1])
    losses_KBN = torch.stack([pulled.state_BN for pulled in backward(map_, path, at_B, lags, of_output_BH)])
    few_B = at_B[:: -(-len(at_B) // JACOBIANS)]
    return GradientFlow(
        positions=len(at_B),
        vectors=vectors,
        loss=tuple(_norms(losses_KBN[..., part].norm(dim=-1)) for part in parts(map_)),
        state=tuple(_norms(state_norms(*layer, few_B, lags, vectors, seed)) for layer in by_layer(map_, path)),
        thrown=_thrown(map_, path, at_B, lags, of_output_BH),
    )


def backward(
    system: System,
    path: Trajectory,
    at_B: Tensor,
    lags: int,
    of_output_BH: Tensor | None = None,
    of_state_BN: Tensor | None = None,
    parameters: bool = False,
) -> Iterator[Pulled]:
    """Back through time from several steps of the first lane of a path, side by side: what `pull` gives at each lag.

    Args:
        system: F.
        path: what it did.
        at_B: the steps t to begin at, each at least lags - 1.
        lags: how many steps to go back.
        of_output_BH: the gradient of the output at t.
        of_state_BN: the gradient of the state after t.
        parameters: as `pull` has it.
    """
    for lag in range(lags):
        s_BN, x_BD = path.states_TBN[at_B - lag, 0], path.inputs_TBD[at_B - lag, 0]
        pulled = pull(system, s_BN, x_BD, of_state_BN, of_output_BH, parameters)
        yield pulled
        of_state_BN, of_output_BH = pulled.state_BN, None


def state_norms(system: System, path: Trajectory, at_B: Tensor, lags: int, vectors: int, seed: int = 0) -> Tensor:
    """|d s_t / d s_(t-k)|_F / N^1/2 at lags 1 to `lags`, [K, B], for steps t of the first lane of a path.

    The mean of |J^T u|^2 over u spread evenly over the unit sphere is |J|_F^2 / N. It is taken over orthonormal random
    vectors, and is exact where they are N.
    """
    size = path.states_TBN.shape[2]
    noise = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(at_B), size, min(vectors, size), generator=noise, dtype=torch.float64)
    u_BN = torch.linalg.qr(drawn).Q.mT.flatten(0, 1)
    lanes = at_B.repeat_interleave(len(u_BN) // len(at_B))
    pulled = backward(system, path, lanes, lags, of_state_BN=u_BN)
    return torch.stack([each.state_BN.square().sum(1).view(len(at_B), -1).mean(1).sqrt() for each in pulled])


def _output_gradient(model: LanguageModel, hidden_BH: Tensor, targets_B: Tensor) -> Tensor:
    """d loss_t / d (the stack's output at t), in nats."""
    hidden_BH = hidden_BH.clone().requires_grad_()
    nats = cross_entropy(model.logits(hidden_BH), targets_B, reduction="sum")
    return torch.autograd.grad(nats, hidden_BH)[0]


def _norms(norms_KB: Tensor) -> Norms:
    logs_K = norms_KB.log().mean(1).numpy()
    there_K = np.isfinite(logs_K)
    lags = np.arange(1, len(logs_K) + 1)[there_K]
    slope = float(np.polyfit(lags, logs_K[there_K], 1)[0]) if len(lags) > 1 else math.nan
    return Norms(np.exp(logs_K), norms_KB.mean(1).numpy(), slope)


def _thrown(system: System, path: Trajectory, at_B: Tensor, lags: int, of_output_BH: Tensor) -> Thrown:
    def shares() -> Iterator[Tensor]:
        """Each lag's share in the gradient. All of them at once would be as many copies of the parameters."""
        for pulled in backward(system, path, at_B, lags, of_output_BH, parameters=True):
            yield torch.cat([array.flatten() for array in pulled.parameters])

    whole = functools.reduce(torch.add, shares())
    reach, window = [], []
    seen, sum_of_seen = torch.zeros_like(whole), torch.zeros_like(whole)
    for lag, share in enumerate(shares(), 1):
        seen += share
        sum_of_seen += seen
        reach.append(float((whole - seen).norm() / whole.norm()))
        window.append(float((whole - sum_of_seen / lag).norm() / whole.norm()))
    return Thrown(np.array(reach), np.array(window))
