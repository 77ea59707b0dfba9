"""Vanishing and exploding gradients by spectral radius, and what clipping and gates each do about them."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, one_hot

from common import arguments, once, panels, publish, spread, table
from networks import Network, fit
from throughtime.cells.base import Cell
from throughtime.cells.stack import Stack
from throughtime.models.language import LanguageModel
from throughtime.probe.gradient_flow import backward
from throughtime.probe.jacobian import recurrent_radii
from throughtime.probe.system import origin, run, system
from throughtime.recipe import Model

CELLS = ("elman", "gru", "lstm")
RADII = (0.5, 0.75, 1.0, 1.25, 1.5)
LAGS, POSITIONS = 100, 32
FAR = 50
"""The lag whose norm stands in the table, as a share of the norm at lag 1."""
BYTES = 256
SMALL = 0.1
"""Standard deviation of the embedding at the start. At 1 the inputs by themselves bring the units near saturation."""

SYMBOLS = 4
DELAYS = (10, 50)
RATE, MOMENTUM = 0.1, 0.9
LANES, WINDOW = 32, 64


class Contender(NamedTuple):
    """A network as it starts."""

    cell: str
    radius: float
    keep: float = 0.0
    """Bias of the gate that keeps the state: z of a GRU, f of an LSTM."""
    enter: float = 0.0
    """Bias of the gate that lets new things in beside, i of an LSTM."""


CONTENDERS = {
    "elman, radius 0.8": Contender("elman", 0.8),
    "elman, radius 1": Contender("elman", 1.0),
    "elman, radius 1.5": Contender("elman", 1.5),
    "gru": Contender("gru", 1.0),
    "gru, gate's bias 4": Contender("gru", 1.0, 4.0),
    "lstm, gate's bias 1": Contender("lstm", 1.0, 1.0),
    "lstm, gate's bias 4": Contender("lstm", 1.0, 4.0),
    "lstm, gates' biases 4, -4": Contender("lstm", 1.0, 4.0, -4.0),
}


def flow(cell: str, radius: float, seed: int, steps: int, text: Path) -> dict[str, Any]:
    """How far back the gradient of a language model of bytes reaches, before it is trained and after."""
    ids_T = torch.from_numpy(np.fromfile(text, np.uint8).astype(np.int64))
    model = LanguageModel(Model(cell=cell, hidden_size=64), BYTES, torch.Generator().manual_seed(seed))
    (layer,) = model.stack.layers()
    scale(layer, radius)
    noise = np.random.default_rng(seed)

    def loss() -> Tensor:
        starts_B = torch.from_numpy(noise.integers(0, len(ids_T) - WINDOW, LANES))
        window_TB = ids_T[starts_B + torch.arange(WINDOW + 1)[:, None]]
        return model.nats(window_TB[:-1], window_TB[1:])[0].mean()

    def measure() -> dict[str, Any]:
        at_B = torch.linspace(LAGS - 1, 5 * LAGS, POSITIONS).long()
        x_TBD = model.embedded(ids_T[: 5 * LAGS + 1, None])
        norms_K = norms(
            model.stack,
            x_TBD,
            at_B,
            LAGS,
            lambda y_BH: cross_entropy(model.logits(y_BH), ids_T[at_B + 1], reduction="sum"),
        )
        slope = float(np.polyfit(np.arange(LAGS), np.log(norms_K), 1)[0])
        return {"slope": slope, "norms": norms_K, "radius": max(recurrent_radii(layer).values())}

    driven = measure()
    model.embedding.detach().mul_(SMALL)
    before = measure()
    met = fit(model, loss, steps, rate=3e-3)
    nats = statistics.mean(step.loss for step in met[-20:])
    return {"driven": driven, "before": before, "after": measure(), "nats": nats}


def recall(contender: Contender, clip: float, delay: int, seed: int, steps: int) -> dict[str, Any]:
    """Train a network to say, after a delay full of noise, which symbol it read first."""
    network = Network(contender.cell, 2 * SYMBOLS + 1, 32, SYMBOLS, seed)
    (layer,) = network.stack.layers()
    scale(layer, contender.radius)
    if contender.cell != "elman":
        biases_GH = dict(layer.named_parameters())["b"].detach().view(-1, layer.hidden_size)
        biases_GH[0], biases_GH[1] = contender.enter, contender.keep
    noise = torch.Generator().manual_seed(seed)
    right: list[float] = []

    def draw() -> tuple[Tensor, Tensor]:
        read_TB = torch.randint(SYMBOLS, 2 * SYMBOLS, (delay + 2, LANES), generator=noise)
        read_TB[0] -= SYMBOLS
        read_TB[-1] = 2 * SYMBOLS
        return one_hot(read_TB, 2 * SYMBOLS + 1).float(), read_TB[0]

    def loss() -> Tensor:
        x_TBD, asked_B = draw()
        outputs_BK = network(x_TBD)[-1]
        right.append((outputs_BK.argmax(1) == asked_B).float().mean().item())
        return cross_entropy(outputs_BK, asked_B)

    x_TBD, asked_B = draw()
    norms_K = norms(
        network.stack,
        x_TBD,
        torch.tensor([delay + 1]),
        delay + 1,
        lambda y_BH: cross_entropy(linear(y_BH, network.W_ho, network.b_o), asked_B[:1]),
    )
    met = fit(network, loss, steps, RATE, clip, functools.partial(torch.optim.SGD, momentum=MOMENTUM))
    worse = [not step.loss < 1.1 * math.log(SYMBOLS) for step in met]
    return {
        "arrives": norms_K[-1] / norms_K[0],
        "right": statistics.mean(right[-50:]),
        "worse": (sum(worse) + steps - len(met)) / steps,
        "largest": max(step.norm for step in met),
        "clipped": statistics.mean(step.bound for step in met),
    }


def norms(stack: Stack, x_TBD: Tensor, at_B: Tensor, lags: int, loss: Callable[[Tensor], Tensor]) -> list[float]:
    """|d loss_t / d s_(t-k)| for k = 1 ... lags, the geometric mean over the steps t; what never arrives is 1e-300.

    Args:
        stack: whose state it is, all of it (an LSTM's is h and c).
        x_TBD: what the stack reads; its first lane.
        at_B: the steps t.
        lags: how far back.
        loss: the sum of loss_t, of the outputs y_BH at these steps.
    """
    map_ = system(stack)
    path = run(map_, origin(map_), x_TBD[:, :1].detach().double())
    y_BH = path.outputs_TBH[at_B, 0].requires_grad_()
    (of_output_BH,) = torch.autograd.grad(loss(y_BH.float()), y_BH)
    pulled = backward(map_, path, at_B, lags, of_output_BH)
    norms_KB = torch.stack([each.state_BN.norm(dim=1) for each in pulled])
    means_K: list[float] = norms_KB.clamp(min=1e-300).log().mean(1).exp().tolist()
    return means_K


@torch.no_grad()
def scale(cell: Cell, radius: float) -> None:
    """Give every block of the matrix on the state this spectral radius."""
    radii = recurrent_radii(cell).values()
    for block_HH, now in zip(cell.recurrent_weights().chunk(len(radii)), radii, strict=True):
        block_HH.mul_(radius / now)


def main() -> None:
    options = arguments(__doc__, steps=200, remedysteps=1500, seeds=5)
    torch.set_num_threads(1)
    text = options.data / "text" / "shakespeare.txt"
    flows = {
        (cell, radius): [
            once(f"gradients/{cell}-{radius}-{seed}-{options.steps}", flow, cell, radius, seed, options.steps, text)
            for seed in range(options.seeds)
        ]
        for cell in CELLS
        for radius in RADII
    }
    recalls = {
        (delay, name, clip): [
            once(
                f"gradients/recall-{delay}-{'-'.join(map(str, contender))}-{clip}-{seed}-{options.remedysteps}",
                *(recall, contender, clip, delay, seed, options.remedysteps),
            )
            for seed in range(options.seeds)
        ]
        for delay in DELAYS
        for name, contender in CONTENDERS.items()
        for clip in (0.0, 1.0)
    }
    _draw(flows)
    lines = [
        *_flow_table(flows),
        "",
        f"Language models of bytes, 64 units, Tiny Shakespeare; mean ± standard deviation over {options.seeds} seeds. "
        f"Slope: of ln |d loss_t / d s_(t-k)| against k = 1 to {LAGS}, in nats per step, at the start with an "
        f"embedding of standard deviation 1 (large inputs) and {SMALL} (small ones), and after {options.steps} steps "
        f"from there of {LANES} windows of {WINDOW} bytes. Lag {FAR}: the norm there as a share of that at lag 1, "
        "geometric mean. "
        "Radius after training: the largest of the gates' blocks.",
        "",
        "![norm of the gradient against the lag](gradients.svg)",
        *(line for delay in DELAYS for line in _recall_table(delay, recalls)),
        "",
        f"32 units, gradient descent at rate {RATE} with momentum {MOMENTUM}, {options.remedysteps:,} steps of {LANES} "
        f"sequences, {options.seeds} seeds. Arrives: the gradient of the state that has read the symbol, as a share of "
        "that of the last one, before training. Right: over the last 50 steps. Steps lost: with a loss more than 10 % "
        "above that of guessing. Runs that fail: right in fewer than half of the cases at the end.",
    ]
    publish("gradients", lines)


def _flow_table(flows: dict[tuple[str, float], list[dict[str, Any]]]) -> list[str]:
    rows = []
    for (cell, radius), ends in flows.items():
        row = [cell, f"{radius}", f"{math.log(radius):.3f}"]
        row.append(spread([end["driven"]["slope"] for end in ends]))
        for when in ("before", "after"):
            shares = [end[when]["norms"][FAR - 1] / end[when]["norms"][0] for end in ends]
            row += [spread([end[when]["slope"] for end in ends]), f"{statistics.geometric_mean(shares):.1e}"]
        row.append(f"{statistics.mean(end['after']['radius'] for end in ends):.2f}")
        row.append(spread([end["nats"] for end in ends], 2))
        rows.append(row)
    header = ["cell", "radius", "ln radius", "slope, large inputs", "slope, small inputs", f"lag {FAR}",
              "slope, trained", f"lag {FAR}", "radius", "nats per byte"]  # fmt: skip
    return table(header, rows)


def _recall_table(delay: int, recalls: dict[tuple[int, str, float], list[dict[str, Any]]]) -> list[str]:
    rows = []
    for (at, name, clip), ends in recalls.items():
        if at == delay:
            rows.append(
                [
                    name,
                    f"{clip:g}" if clip else "none",
                    f"{statistics.geometric_mean(end['arrives'] for end in ends):.1e}",
                    spread([end["right"] for end in ends], 2),
                    f"{sum(end['right'] < 0.5 for end in ends)} of {len(ends)}",
                    f"{statistics.mean(end['worse'] for end in ends):.0%}",
                    f"{max(end['largest'] for end in ends):.3g}",
                    f"{statistics.mean(end['clipped'] for end in ends):.0%}" if clip else "",
                ]
            )
    header = [f"delay of {delay}", "clipped at", "arrives", "right", "runs that fail", "steps lost", "largest norm",
              "steps clipped"]  # fmt: skip
    return ["", *table(header, rows)]


def _draw(flows: dict[tuple[str, float], list[dict[str, Any]]]) -> None:
    colours = dict(zip(RADII, ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00"), strict=True))
    with panels("gradients", 2 * len(CELLS), "lag k, steps", "|d loss_t / d s_(t-k)|") as axes:
        places = ((when, cell) for when in ("before", "after") for cell in CELLS)
        for each, (when, cell) in zip(axes, places, strict=True):
            for radius, colour in colours.items():
                for seed, end in enumerate(flows[cell, radius]):
                    label = None if seed else f"{radius}"
                    each.plot(range(1, LAGS + 1), end[when]["norms"], color=colour, lw=1, label=label)
            each.set(title=f"{cell}, {when} training", yscale="log", ylim=(1e-12, 1e4))


if __name__ == "__main__":
    main()
