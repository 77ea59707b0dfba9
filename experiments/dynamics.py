"""Networks that oscillate, that remember by point attractors, and that are chaotic."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, mse_loss

from common import arguments, figure, once, panels, publish, spread, table
from networks import Network, fit
from throughtime.cells import create
from throughtime.cells.state import map_state
from throughtime.probe.dynamics import CHAOS, dynamics
from throughtime.probe.fixed_points import fixed_points
from throughtime.probe.system import constant_inputs, flat, origin, run, system

CELLS = ("elman", "gru", "lstm")
HIDDEN, RATE, LANES = 32, 3e-3, 32
ALONE = 1000
"""Steps that a trained network has to settle, and as many that its verdict is made of."""

PERIOD, PERIODS, NOISE = 25.0, 3, 0.3
"""The sine: its period in steps, how many of them training shows, and the spread of the states it starts from."""
FREE = 100
"""Steps of the picture."""

BITS, PULSES, SHOWN = 3, 0.1, 50
"""The flip-flop: its bits, how often each is set, and the steps of a sequence in training."""

GAINS = (0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0)
SIZES = (32, 128, 256)
SETTLING = 8
"""Times as long as is measured: near a gain of 1 a state takes long to come to rest."""
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00")


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
    exponents = [] if found.lyapunov is None else found.lyapunov.exponents_K.tolist()
    path = run(map_, torch.from_numpy(found.states_TBN[0]), constant_inputs(map_, FREE, 4))
    return {
        "loss": statistics.mean(step.loss for step in met[-20:]),
        "verdicts": [path.verdict for path in found.paths],
        "periods": [path.periods for path in found.paths],
        "exponents": exponents,
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
    exponent = math.nan if found.lyapunov is None else float(found.lyapunov.exponents_K[0])
    return {"exponent": exponent, "verdicts": [path.verdict for path in found.paths]}


def main() -> None:
    options = arguments(__doc__, reads_data=False, steps=1000, alone=500, seeds=5, networks=5)
    torch.set_num_threads(1)
    oscillators, memories = (
        {
            cell: [
                once(f"dynamics/{make.__name__}-{cell}-{seed}-{options.steps}", make, cell, seed, options.steps)
                for seed in range(options.seeds)
            ]
            for cell in CELLS
        }
        for make in (oscillate, remember)
    )
    wanderers = {
        (size, gain): [
            once(f"dynamics/wander-{size}-{gain}-{seed}-{options.alone}", wander, size, gain, seed, options.alone)
            for seed in range(options.networks)
        ]
        for size in SIZES
        for gain in GAINS
    }
    _draw_oscillators(oscillators)
    _draw_memories(memories)
    _draw_wanderers(wanderers)
    lines = [
        *_oscillator_table(oscillators),
        "",
        f"{HIDDEN} units, {options.steps:,} steps of training, {options.seeds} seeds (mean ± standard deviation); "
        f"verdicts over four starts each, after {ALONE:,} steps without input, on the next {ALONE:,}.",
        "",
        "![output of the oscillators](dynamics-oscillation.svg)",
        "",
        *_memory_table(memories),
        "",
        f"{HIDDEN} units, {options.steps:,} steps of training on sequences of {SHOWN}; right: share of the steps of "
        f"sequences of {10 * SHOWN} at which all {BITS} bits are. {LANES // 4} starts a network for the verdict, "
        f"{5 * LANES} searches for fixed points. Radius: the largest absolute eigenvalue at any stable one.",
        "",
        "![fixed points of the flip-flops](dynamics-memory.svg)",
        "",
        *_wanderer_table(wanderers),
        "",
        f"Largest Lyapunov exponent, nats per step, mean ± standard deviation over {options.networks} random networks "
        f"with 2 starts each; in brackets how many of the starts are judged chaos. {options.alone:,} steps after "
        f"{SETTLING * options.alone:,} to settle.",
        "",
        "![largest Lyapunov exponent against the gain](dynamics.svg)",
    ]
    publish("dynamics", lines)


def _counted(ends: list[dict[str, Any]]) -> str:
    counts = Counter(verdict for end in ends for verdict in end["verdicts"])
    return ", ".join(f"{verdict} {count}" for verdict, count in counts.most_common())


def _oscillator_table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    rows = []
    for cell, ends in found.items():
        periods = [periods[0] for end in ends for periods in end["periods"] if len(periods) == 1]
        first, second = ([end["exponents"][rank] for end in ends] for rank in (0, 1))
        loss = spread([end["loss"] for end in ends], 5)
        rows.append(
            [cell, loss, _counted(ends), spread(periods) if periods else "", spread(first, 4), spread(second, 4)]
        )
    return table(
        [f"sine of period {PERIOD:g}", "squared error", "verdict", "period, steps", "exponent 1", "exponent 2"], rows
    )


def _memory_table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    rows = [
        [
            cell,
            spread([end["right"] for end in ends], 4),
            _counted(ends),
            *(", ".join(f"{end[name]}" for end in ends) for name in ("stable", "patterns", "unstable")),
            f"{max(end['radius'] for end in ends):.3f}",
        ]
        for cell, ends in found.items()
    ]
    header = ["flip-flop", "right", "verdict", "stable fixed points, by seed", "patterns of bits they stand for",
              "unstable ones", "radius"]  # fmt: skip
    return table(header, rows)


def _wanderer_table(found: dict[tuple[int, float], list[dict[str, Any]]]) -> list[str]:
    rows = []
    for gain in GAINS:
        row = [f"{gain:g}"]
        for size in SIZES:
            ends = found[size, gain]
            verdicts = [verdict for end in ends for verdict in end["verdicts"]]
            row.append(f"{spread([end['exponent'] for end in ends])} ({verdicts.count(CHAOS)}/{len(verdicts)})")
        rows.append([*row, _counted([end for size in SIZES for end in found[size, gain]])])
    return table(["gain", *(f"{size} units" for size in SIZES), "verdicts, all sizes"], rows)


def _draw_oscillators(found: dict[str, list[dict[str, Any]]]) -> None:
    with panels("dynamics-oscillation", len(CELLS), f"steps, {2 * ALONE:,} after the pulse", "output") as axes:
        for each, (cell, ends) in zip(axes, found.items(), strict=True):
            for seed, (end, colour) in enumerate(zip(ends, COLOURS, strict=False)):
                each.plot(end["output"], color=colour, lw=1, label=f"seed {seed}")
            each.set(title=cell, ylim=(-1.6, 1.6))


def _draw_memories(found: dict[str, list[dict[str, Any]]]) -> None:
    with panels("dynamics-memory", len(CELLS), "first principal component", "second") as axes:
        for each, (cell, ends) in zip(axes, found.items(), strict=True):
            for name, label, style in (
                ("visited", "visited", {"marker": ".", "color": "#bbbbbb", "ms": 2}),
                ("repel", "unstable", {"marker": "x", "color": "#d55e00", "ms": 4}),
                ("attract", "stable", {"marker": "o", "color": "#0072b2", "ms": 5}),
            ):
                points_F2 = np.array(ends[0][name]).reshape(-1, 2)
                each.plot(*points_F2.T, ls="", label=label, **style)
            each.set(title=f"{cell}, seed 0")


def _draw_wanderers(found: dict[tuple[int, float], list[dict[str, Any]]]) -> None:
    with figure("dynamics", "gain g", "largest Lyapunov exponent, nats per step") as axes:
        axes.axhline(0, color="#999999", lw=0.8)
        axes.axvline(1, color="#999999", lw=0.8, ls=":")
        for size, colour in zip(SIZES, COLOURS, strict=False):
            means = [statistics.mean(end["exponent"] for end in found[size, gain]) for gain in GAINS]
            axes.plot(GAINS, means, color=colour, lw=1, label=f"{size} units")
            for gain in GAINS:
                ends = found[size, gain]
                axes.plot([gain] * len(ends), [end["exponent"] for end in ends], ".", color=colour, ms=4)


if __name__ == "__main__":
    main()
