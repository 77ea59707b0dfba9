"""Is a series a periodic function of time, or one of two periods? By which frequencies its variance is explained.

Axes: T time, D component, M term.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, product
from operator import mul
from typing import NamedTuple

import torch
from torch import Tensor

PEAKS = 4
"""Frequencies that are looked at, the strongest first."""
REFINEMENTS = 8
COMPONENTS = 8
"""Principal components of the series that are looked at."""
HARMONICS = 24
"""Multiples of one frequency that a periodic function may have."""
ORDER = 5
"""The most either frequency is multiplied by where there are two."""
ROUNDS = 3
"""Periods that the series must hold, for the frequency to be exact; a drift is part of a sine too."""
UNEXPLAINED = 1e-3
"""Share of the variance that a fit may leave."""
RANK = 1e-8
"""Singular values of a fit below this share of the largest are none: terms may repeat one another."""


class Rhythm(NamedTuple):
    """The fewest frequencies that foretell a series."""

    periods: tuple[float, ...]
    """In steps, at least 2, not integer in general: none, one, or two that are independent."""
    unexplained: float
    """Share of the variance in the last quarter that is not foretold by the sines and cosines of these frequencies and
    their multiples which fit the three quarters before it."""


def rhythm(series_TD: Tensor) -> Rhythm:
    """The periods of a series.

    Frequencies are found one after another: the highest peak of the spectrum, made exact by the turn of its phase
    between the series' halves (after Laskar 1993), taken out of the series, and so on.

    Args:
        series_TD: of a path that has settled. What it holds no three periods of is not found.
    """
    centred_TD = series_TD - series_TD.mean(0)
    u_TC, scale_C, _ = torch.linalg.svd(centred_TD, full_matrices=False)
    series_TC = (u_TC * scale_C)[:, :COMPONENTS]
    left_TC, peaks = series_TC, list[float]()
    for _ in range(PEAKS):
        peaks.append(_frequency(left_TC))
        left_TC = _residual(series_TC, peaks, len(series_TC))
        if _share(left_TC, series_TC) < UNEXPLAINED:
            break
    known = len(series_TC) * 3 // 4  # whatever rises or falls there can be fitted, not foretold
    found = []
    for bases in _candidates(peaks):
        if min(bases) * len(series_TC) < 2 * math.pi * ROUNDS:
            continue
        order = HARMONICS if len(bases) == 1 else ORDER
        multiples = product(range(-order, order + 1), repeat=len(bases))
        terms = [sum(map(mul, bases, factors)) for factors in multiples if factors > (0,) * len(bases)]
        unexplained = _share(_residual(series_TC, terms, known)[known:], series_TC[known:])
        if unexplained < UNEXPLAINED:
            return Rhythm(tuple(2 * math.pi / base for base in bases), unexplained)
        found.append(unexplained)
    return Rhythm((), min(found, default=1.0))


def _candidates(peaks: list[float]) -> Iterator[tuple[float, ...]]:
    """One frequency first: a peak, or what two peaks that are multiples of it differ by; then pairs of peaks."""
    yield from ((peak,) for peak in peaks)
    yield from ((abs(one - other),) for one, other in combinations(peaks, 2))
    yield from combinations(peaks, 2)


def _frequency(series_TC: Tensor) -> float:
    """The strongest, in radians per step, from 0 to pi."""
    steps, half = len(series_TC), len(series_TC) // 2
    spectrum = torch.fft.rfft(_hann(steps) * series_TC, n=4 * steps, dim=0).abs().square().sum(1)
    frequency = float(spectrum.argmax()) * 2 * math.pi / (4 * steps)
    for _ in range(REFINEMENTS):
        turning_TC = series_TC * torch.polar(torch.ones(steps, 1).double(), -frequency * _time(steps))
        early_C, late_C = ((_hann(half) * part).sum(0) for part in (turning_TC[:half], turning_TC[half : 2 * half]))
        frequency += float((early_C.conj() * late_C).sum().angle()) / half
    return abs(frequency)


def _residual(series_TC: Tensor, frequencies: list[float], known: int) -> Tensor:
    """What sines, cosines and a constant leave of a series, where they fit as many steps as are known."""
    angles_TM = _time(len(series_TC)) * torch.tensor(frequencies, dtype=torch.float64)
    terms = torch.cat([torch.ones(len(series_TC), 1).double(), angles_TM.cos(), angles_TM.sin()], 1)
    weights: Tensor = torch.linalg.lstsq(terms[:known], series_TC[:known], rcond=RANK, driver="gelsd").solution
    return series_TC - terms @ weights


def _share(left_TC: Tensor, series_TC: Tensor) -> float:
    return float(left_TC.square().sum() / (series_TC - series_TC.mean(0)).square().sum())


def _hann(steps: int) -> Tensor:
    return torch.hann_window(steps, periodic=False, dtype=torch.float64)[:, None]


def _time(steps: int) -> Tensor:
    return torch.arange(steps, dtype=torch.float64)[:, None]
