"""Fixed points that are known, and those that a network learned as its memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from probe import known
from throughtime import cells
from throughtime.probe.fixed_points import fixed_points
from throughtime.probe.system import system


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_two_fixed_points_of_the_henon_map():
    """x = (-0.7 +- (0.49 + 5.6)^1/2) / 2.8, y = 0.3 x; both are saddles."""
    found = fixed_points(system(known.henon()), 2 * draw(30, 2))
    x = (-0.7 + np.array([-1, 1]) * 6.09**0.5) / 2.8
    assert sorted(found.points_FN.tolist()) == pytest.approx(np.stack([x, 0.3 * x], 1))
    assert found.fixed_F.all()
    assert not found.stable_F.any()
    assert (np.sum(np.abs(found.eigenvalues_FN) > 1, axis=1) == 1).all()
    assert found.found_F.sum() + found.lost == found.searches == 30


def test_a_slow_point_is_not_a_fixed_point():
    """x + x^2 + e moves by at least e: a ghost, where two fixed points have met."""
    found = fixed_points(system(known.Map(lambda h: h + h**2 + 1e-5, 1)), draw(5, 1))
    assert found.points_FN == pytest.approx(0, abs=2e-3)
    assert ((found.speeds_F > 0.99e-5) & (found.speeds_F < 2e-5)).all()
    assert not found.fixed_F.any()


def test_nothing_to_find():
    found = fixed_points(system(known.Map(lambda h: h + 1, 2)), draw(4, 2))
    assert (len(found.points_FN), found.lost) == (0, 4)
    assert found.points_FN.shape == found.eigenvalues_FN.shape == (0, 2)


def test_a_search_that_is_not_finite_is_lost():
    found = fixed_points(system(known.logistic(3.2)), torch.tensor([[0.5], [torch.nan], [1e300]]).double())
    assert found.lost == 2


def test_the_patterns_of_a_hopfield_network():
    """h_t = tanh(4 W h_(t-1)) with W = sum of p p^T / N (Hopfield 1984); p and -p are stored alike."""
    patterns_PN = draw(3, 64).sign()
    cell = known.elman(4 * patterns_PN.T @ patterns_PN / 64)
    stored = torch.cat([patterns_PN, -patterns_PN])
    found = fixed_points(system(cell), 0.8 * stored.repeat(2, 1) + 0.2 * draw(12, 64, seed=1))
    signs = np.sign(found.points_FN[found.stable_F])
    for pattern_N in stored.numpy():
        assert (signs == pattern_N).all(1).sum() == 1


@pytest.fixture(scope="module")
def flip_flop():
    """A GRU of 32 units that holds three bits, each set by pulses on its input, and its readout."""
    noise = torch.Generator().manual_seed(0)
    cell = cells.create("gru", 3, 32, generator=noise)
    readout = nn.Linear(32, 3)
    readout.weight.data.normal_(0, 0.1, generator=noise)
    parameters = [*cell.parameters(), *readout.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 400)
    for _ in range(400):
        pulses_TBD = pulses(40, 64, noise)
        loss = mse_loss(readout(cell(pulses_TBD)[0]), held(pulses_TBD))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        rate.step()
    return cell, readout, float(loss.detach())


def pulses(steps, lanes, noise):
    """+1 or -1 now and then on each of three lines; on all of them at first."""
    there = torch.rand(steps, lanes, 3, generator=noise) < 0.15
    there[0] = True
    return there * (2.0 * torch.randint(2, there.shape, generator=noise) - 1)


def held(pulses_TBD):
    """The last pulse on each line."""
    bits = [pulses_TBD[0]]
    for pulse_BD in pulses_TBD[1:]:
        bits.append(torch.where(pulse_BD != 0, pulse_BD, bits[-1]))
    return torch.stack(bits)


def test_a_flip_flop_of_three_bits_remembers_by_eight_stable_fixed_points(flip_flop):
    """The task of Sussillo & Barak 2013, section 4.2."""
    cell, readout, loss = flip_flop
    assert loss < 0.01
    visited_TBH, _ = cell(pulses(30, 24, torch.Generator().manual_seed(1)))
    found = fixed_points(system(cell), visited_TBH[5::6].flatten(0, 1).double())
    corners = readout(torch.from_numpy(found.points_FN[found.stable_F]).float()).detach().sign().int().tolist()
    assert sorted(map(tuple, corners)) == sorted(itertools.product([-1, 1], repeat=3))
    saddles = found.fixed_F & ~found.stable_F
    assert (np.abs(found.eigenvalues_FN[saddles]) > 1).sum(1).min(initial=9) >= 1
