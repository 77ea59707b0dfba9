"""Pictures of the recurrence as a dynamical system.

Axes: T time, B start, N entries of a state, F point, C component.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from throughtime.probe.dynamics import CHAOS, DIVERGENCE, OSCILLATION, POINT, QUASI_PERIODIC, UNDECIDED, Dynamics
from throughtime.probe.examination import Examination
from throughtime.probe.fixed_points import FixedPoints
from throughtime.probe.lyapunov import Lyapunov
from throughtime.probe.report.figures import Figure, Part, Series, counted
from throughtime.probe.system import Floats

MEANINGS = {
    POINT: "it comes to rest",
    OSCILLATION: "it goes round, with one period",
    QUASI_PERIODIC: "it goes round, with two periods that never meet",
    CHAOS: "it never repeats itself, and neighbouring states part",
    DIVERGENCE: "it grows without end",
    UNDECIDED: "it neither rests nor repeats itself in the time it was given",
}
TEXT = 400
"""States along the text that are drawn: the last, which have forgotten the beginning."""


def dynamics(examined: Examination, paths_TBN: Floats, tokens: Sequence[str]) -> Part:
    """What the recurrence does by itself.

    Args:
        examined: what was found.
        paths_TBN: how it goes on when the text stops.
        tokens: the text, for as long as it was examined.
    """
    alone = examined.alone
    counted = Counter(path.verdict for path in alone.paths).most_common()
    starts = ", ".join(f"{verdict} ({count} of {len(alone.paths)} starts)" for verdict, count in counted)
    return Part(
        "dynamics",
        "What it does by itself",
        f"Where the text stops and nothing (zeros) follows, {MEANINGS[alone.verdict]}: {starts}.",
        [
            _spectrum(examined.driven, alone),
            _plane(examined, paths_TBN, tokens),
            *_stability(examined.fixed),
        ],
    )


def _spectrum(driven: Lyapunov, alone: Dynamics) -> Figure:
    def series(name: str, found: Lyapunov, colour: int) -> Series:
        exponents = found.exponents_K.tolist()
        notes = [f"± {error:.2g}" for error in found.errors_K.tolist()]
        shape = ("circle", "diamond")[colour]
        return Series(name, counted(exponents), exponents, points=True, colour=colour, shape=shape, notes=notes)

    found = [series("along the text", driven, 0)]
    if alone.lyapunov is not None:
        found.append(series("left to itself", alone.lyapunov, 1))
    return Figure(
        "lyapunov",
        "Lyapunov spectrum",
        "How fast two states that differ by little come together (below 0) or part (above 0), in nats per step, in the "
        "direction that lasts longest, the next, and so on. Along a text all below 0 means that the state depends on "
        "nothing but what was read; an exponent of −0.01, that a trace of it lasts for 100 tokens.",
        "exponent",
        "nats per step",
        found,
        y_range=(None, max(0.0, *(max(series.y) for series in found))),
    )


def _plane(examined: Examination, paths_TBN: Floats, tokens: Sequence[str]) -> Figure:
    """All in the first two principal components of the states along the text."""
    text_TN, fixed = examined.states_TN[1:][-TEXT:], examined.fixed
    mean_N = text_TN.mean(0)
    _, scale_C, directions_CN = np.linalg.svd(text_TN - mean_N, full_matrices=False)
    shares_C = np.square(scale_C) / max(np.square(scale_C).sum(), 1e-30)

    def seen(s_XN: Floats) -> tuple[list[float], list[float]]:
        with np.errstate(over="ignore", invalid="ignore"):  # what has diverged is not drawn
            x_X, y_X = ((s_XN - mean_N) @ directions_CN[:2].T).T
        return x_X.tolist(), y_X.tolist()

    series = [Series("along the text", *seen(text_TN), points=True, faint=True, colour=5, dash=0, shape="circle",
                     notes=[f"after {token!r}" for token in tokens[-TEXT:]], size=2.2)]  # fmt: skip
    for lane, s_TN in enumerate(paths_TBN.transpose(1, 0, 2)):
        series.append(Series("left to itself" if lane == 0 else "", *seen(s_TN), colour=0, dash=0, silent=True))
    ends = examined.alone.states_TBN[-1]
    series.append(Series("where that ends", *seen(ends), line=False, points=True, colour=0, shape="diamond"))
    for name, chosen_F, look in (
        ("attracting fixed point", fixed.stable_F, {"shape": "circle"}),
        ("other fixed point", fixed.fixed_F & ~fixed.stable_F, {"shape": "circle", "hollow": True}),
        ("slow point", ~fixed.fixed_F, {"shape": "cross"}),
    ):
        if chosen_F.any():
            radii = [f"largest |λ| {radius:.3f}" for radius in fixed.radii_F[chosen_F].tolist()]
            series.append(Series(name, *seen(fixed.points_FN[chosen_F]), line=False, points=True, colour=1,
                                 notes=radii, size=5.5, **look))  # fmt: skip
    x, y = (np.array(values) for values in seen(text_TN))
    return Figure(
        "plane",
        "States in their plane of largest variance",
        f"The states along {len(text_TN):,} tokens of the text, and the paths of the recurrence from some of them "
        f"when the text stops. {_searched(fixed)}.",
        f"first principal component ({shares_C[0]:.0%})",
        f"second ({shares_C[1:2].sum():.0%})",
        series,
        kind="points",
        x_range=_around(x),
        y_range=_around(y),
    )


def _around(values: Floats) -> tuple[float, float]:
    """The states' own range and as much again: paths may leave it."""
    room = 0.5 * max(float(np.ptp(values)), 1e-9)
    return float(values.min()) - room, float(values.max()) + room


def _searched(points: FixedPoints) -> str:
    fixed, stable = int(points.fixed_F.sum()), int(points.stable_F.sum())
    return (
        f"Of {points.searches} searches {points.searches - points.lost} found a place to stay: fixed points {fixed}, "
        f"of them attracting {stable}, slow points {len(points.points_FN) - fixed}"
    )


def _stability(points: FixedPoints) -> list[Figure]:
    if not len(points.points_FN):
        return []
    first = points.eigenvalues_FN[0]
    return [
        Figure(
            "stability",
            "Eigenvalues at the stillest point",
            "Of the Jacobian where the recurrence stands still: inside the circle a direction comes back to the point, "
            "outside it leaves. Next to 1, on the right, are lines along which it may stay anywhere: a memory.",
            "real part",
            "imaginary part",
            [Series("", first.real.tolist(), first.imag.tolist(), line=False, points=True, shape="circle",
                    notes=[f"|λ| {abs(value):.3f}" for value in first.tolist()])],
            kind="points",
            equal=True,
            circle=True,
        )
    ]  # fmt: skip
