"""How far back gradients reach in a network whose recurrence starts at a spectral radius.

Axes: T time, B position, D input, H hidden, K lag.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from networks import fit
from throughtime.cells.base import Cell
from throughtime.cells.stack import Stack
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model
from throughtime.probe.gradient_flow import backward
from throughtime.probe.jacobian import recurrent_radii
from throughtime.probe.system import origin, run, system

LAGS, POSITIONS = 100, 32
SMALL = 0.1
"""Standard deviation of the embedding at the start. At 1 the inputs by themselves bring the units near saturation."""
HIDDEN, BYTES = 64, 256
RATE, LANES, WINDOW = 3e-3, 32, 64


def before_and_after(cell: str, radius: float, seed: int, steps: int, text: Path) -> dict[str, Any]:
    """How far back the gradient of a language model of bytes reaches, before it is trained and after."""
    ids_T = torch.from_numpy(np.fromfile(text, np.uint8).astype(np.int64))
    model = LanguageModel(Model(cell=cell, hidden_size=HIDDEN), BYTES, torch.Generator().manual_seed(seed))
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
    met = fit(model, loss, steps, RATE)
    nats = statistics.mean(step.loss for step in met[-20:])
    return {"driven": driven, "before": before, "after": measure(), "nats": nats}


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
