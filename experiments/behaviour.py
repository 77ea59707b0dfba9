"""Networks that are trained to oscillate or to remember, and random ones, with the verdicts of the probe on each.

Axes: T time, B lane (a start), D input, H hidden, F fixed point, N entries of a state.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, mse_loss

from networks import Network, fit
from throughtime.cells import create
from throughtime.cells.state import map_state
from throughtime.probe.dynamics import Dynamics, dynamics
from throughtime.probe.fixed_points import fixed_points
from throughtime.probe.system import constant_inputs, flat, origin, run, system

HIDDEN, RATE, LANES = 32, 3e-3, 32
ALONE = 1000
"""Steps that a trained network has to settle, and as many that its verdict is made of."""

PERIOD, PERIODS, NOISE = 25.0, 3, 0.3
"""The sine: its period in steps, how many of them training shows, and the spread of the states it starts from."""
FREE = 100
"""Steps of the picture."""

BITS, PULSES, SHOWN = 3, 0.1, 50
"""The flip-flop: its bits, how often each is set, and the steps of a sequence in training."""

SETTLING = 8
"""Times as long as is measured: near a gain of 1 a state takes long to come to rest."""


def oscillate(cell: str, seed: int, steps: int) -> dict[str, Any]:
    """Train a network to answer one pulse with a sine, and let it run on."""
    network = Network(cell, 1, HIDDEN, 1, seed)
    noise = torch.Generator().manual_seed(seed)
    length = round(PERIOD * PERIODS)
    sine_T = torch.sin(2 * math.pi / PERIOD * torch.arange(length))

    def pulse(lanes: int) -> tuple[Tensor, Any]:
        x_TBD = torch.zeros(length, lanes, 1)
        x_TBD[0] = 1
        initial = network.stack.initial_state(lanes)
        return x_TBD, map_state(lambda array: torch.randn(array.shape, generator=noise) * NOISE, initial)

    def loss() -> Tensor:
        return mse_loss(network(*pulse(LANES))[..., 0], sine_T[:, None].expand(-1, LANES))

    met = fit(network, loss, steps, RATE)
    map_ = system(network.stack)
    x_TBD, state = pulse(4)
    pulsed_BN = run(map_, flat(state).double(), x_TBD.double()).states_TBN[-1]
    found = dynamics(map_, pulsed_BN, settle=ALONE, steps=ALONE, exponents=2)
    path = run(map_, torch.from_numpy(found.states_TBN[0]), constant_inputs(map_, FREE, 4))
    return {
        "loss": statistics.mean(step.loss for step in met[-20:]),
        "verdicts": [path.verdict for path in found.paths],
        "periods": [path.periods for path in found.paths],
        "exponents": _exponents(found, 2),
        "output": linear(path.outputs_TBH[:, 0].float(), network.W_ho, network.b_o)[:, 0].tolist(),
    }


def remember(cell: str, seed: int, steps: int) -> dict[str, Any]:
    """Train a network to hold three bits, each as it was last set, and search for what holds them."""
    network = Network(cell, BITS, HIDDEN, BITS, seed)
    noise = torch.Generator().manual_seed(seed)

    def draw(length: int, lanes: int) -> tuple[Tensor, Tensor]:
        set_TBD = torch.rand(length, lanes, BITS, generator=noise) < PULSES
        set_TBD[0] = True
        signs_TBD = torch.randint(2, set_TBD.shape, generator=noise) * 2.0 - 1
        last_TBD = (set_TBD * torch.arange(length)[:, None, None]).cummax(0).values
        return signs_TBD * set_TBD, signs_TBD.gather(0, last_TBD)

    def loss() -> Tensor:
        x_TBD, held_TBD = draw(SHOWN, LANES)
        return mse_loss(network(x_TBD), held_TBD)

    met = fit(network, loss, steps, RATE)
    x_TBD, held_TBD = draw(10 * SHOWN, LANES)
    with torch.no_grad():
        right = (network(x_TBD).sign() == held_TBD).all(2).float().mean().item()
    map_ = system(network.stack)
    visited_TBN = run(map_, origin(map_, LANES), x_TBD.double()).states_TBN[-SHOWN:]
    found = fixed_points(map_, visited_TBN[::10].flatten(0, 1))
    alone = dynamics(map_, visited_TBN[-1, ::4], settle=ALONE, steps=ALONE, exponents=1)
    stable = found.stable_F
    hidden_FH = torch.from_numpy(found.points_FN[stable][:, :HIDDEN]).float()
    patterns = {tuple(signs) for signs in linear(hidden_FH, network.W_ho, network.b_o).sign().tolist()}
    components_N2 = torch.linalg.svd((visited_TBN - visited_TBN.mean((0, 1))).flatten(0, 1)).Vh[:2].T.numpy()
    return {
        "loss": statistics.mean(step.loss for step in met[-20:]),
        "right": right,
        "stable": int(stable.sum()),
        "unstable": int((found.fixed_F & ~stable).sum()),
        "patterns": len(patterns),
        "radius": float(found.radii_F[stable].max(initial=0)),
        "verdicts": [path.verdict for path in alone.paths],
        "visited": (visited_TBN[:, :8].flatten(0, 1).numpy() @ components_N2).tolist(),
        "attract": (found.points_FN[stable] @ components_N2).tolist(),
        "repel": (found.points_FN[found.fixed_F & ~stable] @ components_N2).tolist(),
    }


def wander(size: int, gain: float, seed: int, steps: int) -> dict[str, Any]:
    """What h_t = tanh(W h_(t-1)) does, W random with entries of variance gain^2 / size."""
    noise = torch.Generator().manual_seed(seed)
    cell = create("elman", 1, size, generator=noise)
    cell.recurrent_weights().detach().normal_(0, gain / size**0.5, generator=noise)
    starts_BN = torch.randn(2, size, generator=noise).double()
    found = dynamics(system(cell), starts_BN, settle=SETTLING * steps, steps=steps, exponents=1)
    return {"exponent": _exponents(found, 1)[0], "verdicts": [path.verdict for path in found.paths]}


def _exponents(found: Dynamics, count: int) -> list[float]:
    """The largest Lyapunov exponents; NaN where every start diverged."""
    return [math.nan] * count if found.lyapunov is None else found.lyapunov.exponents_K.tolist()
