"""Pictures of how far back the network looks, and how far back its gradients reach.

Axes: K lag.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from throughtime.probe.examination import Examination
from throughtime.probe.gradient_flow import Norms, Thrown
from throughtime.probe.report.figures import Figure, Mark, Part, Series, counted, of_layer

GONE = 1e-9
"""The share of the largest norm below which none is drawn."""


def past(dependence_K: Sequence[float], examined: Examination | None, window: int | None) -> Part:
    """How far back it looks.

    Args:
        dependence_K: mean connectivity at lags 1, 2, ...
        examined: what gradients do; None where the text was too short.
        window: of the run's truncation, in tokens; None where it is not known.
    """
    marks = [Mark(window, f"trained with windows of {window}")] if window else []
    figures = [_dependence(dependence_K)]
    if examined is not None:
        flow, radii = examined.flow, [layer.mean_radius for layer in examined.layers]
        figures += [_losses(flow.loss, radii, marks), _states(flow.state, marks), _thrown(flow.thrown, marks)]
    return Part(
        "past",
        "How far back it looks",
        "The state is all that a recurrent network knows the past by. Training can only teach it what gradients reach.",
        figures,
    )


def _dependence(mean_K: Sequence[float]) -> Figure:
    return Figure(
        "dependence",
        "What a prediction depends on",
        "How far the surprise at a token would move if the vector of the token k places before it moved by a little: "
        "the mean over the text shown. A straight line is forgetting at a constant rate.",
        "k, tokens back",
        "norm of the gradient",
        [Series("", counted(mean_K), mean_K)],
        log_y=True,
    )


def _losses(layers: Sequence[Norms], radii: Sequence[float], marks: Sequence[Mark]) -> Figure:
    series = []
    for level, (norms, radius) in enumerate(zip(layers, radii, strict=True)):
        measured_K, lags = norms.geometric_K.tolist(), counted(norms.geometric_K)
        predicted_K = [measured_K[0] * radius ** (lag - 1) for lag in lags]
        series += [
            Series(of_layer("measured", level, len(layers)), lags, measured_K, colour=level, dash=0),
            Series(f"as spectral radius {radius:.3g} predicts", lags, predicted_K, faint=True, colour=level, dash=1),
        ]
    factors = ", ".join(f"{math.exp(norms.slope):.3f}" for norms in layers)
    return Figure(
        "flow",
        "Gradient flow",
        "The norm of the gradient of the loss by the state k steps before it, geometric mean over positions: falling, "
        f"it vanishes; rising, it explodes. Each step multiplies it by about {factors}.",
        "k, steps back",
        "norm",
        series,
        log_y=True,
        y_range=(_floor(layers), None),
        marks=marks,
    )


def _states(layers: Sequence[Norms], marks: Sequence[Mark]) -> Figure:
    return Figure(
        "memory",
        "What is left of a state",
        "The norm of the derivative of the state by the state k steps before it, 1 at k = 0: what a small change still "
        "does, whether or not the loss asks for it. Where this falls slower than the gradient of the loss, the network "
        "remembers what it does not use.",
        "k, steps back",
        "norm",
        [
            Series(of_layer("state", level, len(layers)), counted(norms.geometric_K), norms.geometric_K.tolist())
            for level, norms in enumerate(layers)
        ],
        log_y=True,
        y_range=(_floor(layers), None),
        marks=marks,
    )


def _thrown(thrown: Thrown, marks: Sequence[Mark]) -> Figure:
    lags = counted(thrown.reach_K)
    return Figure(
        "thrown",
        "What truncation throws away",
        "The share of the recurrent layers' gradient that is lost where back-propagation stops after k steps. Choose k "
        "where the curve is low enough: beyond, longer windows cost memory and teach little.",
        "k, steps",
        "share lost",
        [
            Series("every loss reaches back k steps", lags, thrown.reach_K.tolist()),
            Series("windows of k steps, cut between", lags, thrown.window_K.tolist()),
        ],
        log_x=True,
        y_range=(0, None),
        marks=marks,
    )


def _floor(layers: Sequence[Norms]) -> float:
    """What a logarithmic axis begins at."""
    norms_LK = np.stack([norms.geometric_K for norms in layers])
    return max(float(norms_LK.min()), GONE * float(norms_LK.max()))
