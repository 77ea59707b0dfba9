"""The verdict on recurrences whose behaviour is known."""

from __future__ import annotations

import math

import pytest
import torch

from probe import known
from throughtime.probe.dynamics import dynamics
from throughtime.probe.frequencies import rhythm
from throughtime.probe.system import system


def starts(size, lanes=2, scale=0.3):
    noise = torch.Generator().manual_seed(1)
    return scale * torch.rand(lanes, size, generator=noise, dtype=torch.float64) + 0.1


@pytest.mark.parametrize(
    ("cell", "verdict", "periods"),
    [
        (known.rotation(7.3), "oscillation", [7.3]),
        (known.rotation(2.0), "oscillation", [2.0]),
        (known.rotation(90.5), "oscillation", [90.5]),
        (known.limit_cycle(math.e * 3), "oscillation", [math.e * 3]),
        (known.rotation(7.3, 4.1), "quasi-periodic", [4.1, 7.3]),
        (known.rotation(9.0, 6.0), "oscillation", [18.0]),
        (known.rotation(7.3, factor=0.9), "point attractor", []),
        (known.rotation(4.0, factor=0.985), "point attractor", []),
        (known.random_elman(0.9, 128), "point attractor", []),
        (known.rotation(7.3, factor=1.1), "divergence", []),
        (known.Map(lambda h: h + 1e-3, 1), "undecided", []),
        (known.logistic(2.9), "point attractor", []),
        (known.logistic(3.2), "oscillation", [2.0]),
        (known.logistic(3.5), "oscillation", [4.0]),
        (known.logistic(3.56), "oscillation", [8.0]),
        (known.logistic(3.83), "oscillation", [3.0]),
        (known.logistic(4.0), "chaos", []),
        (known.henon(), "chaos", []),
        (known.random_elman(0.5), "point attractor", []),
        (known.random_elman(2.0), "chaos", []),
    ],
    ids=str,
)
def test_the_verdict(cell, verdict, periods):
    found = dynamics(system(cell), starts(cell.hidden_size), settle=500, steps=400, exponents=2)
    assert found.verdict == verdict
    assert {path.verdict for path in found.paths} == {verdict}
    for path in found.paths:
        assert sorted(path.periods) == pytest.approx(periods, rel=2e-4)
    assert found.states_TBN.shape == (401, 2, cell.hidden_size)


def test_each_start_has_its_own_verdict():
    """Beyond its unstable fixed point 0 the logistic map falls to minus infinity."""
    found = dynamics(system(known.logistic(3.2)), torch.tensor([[0.3], [-0.1], [0.4]]).double(), settle=500, steps=300)
    assert [path.verdict for path in found.paths] == ["oscillation", "divergence", "oscillation"]
    assert found.verdict == "oscillation"
    assert len(found.lyapunov.lanes_BK) == 2


def test_where_everything_diverges():
    found = dynamics(system(known.logistic(3.2)), torch.tensor([[-0.1]]).double(), settle=500, steps=300)
    assert (found.verdict, found.lyapunov) == ("divergence", None)


def test_noise_has_no_period():
    noise = torch.Generator().manual_seed(0)
    found = rhythm(torch.randn(512, 3, generator=noise, dtype=torch.float64))
    assert found.periods == ()
    assert found.unexplained > 0.5


@pytest.mark.parametrize(("period", "found"), [(120.0, 1), (190.0, 0), (300.0, 0)])
def test_a_period_is_seen_three_times_or_not_at_all(period, found):
    time_T1 = torch.arange(400, dtype=torch.float64)[:, None]
    assert len(rhythm(torch.sin(2 * math.pi / period * time_T1)).periods) == found
