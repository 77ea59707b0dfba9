"""Exponents that are in the literature, or on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from probe import known
from throughtime.probe.lyapunov import lyapunov
from throughtime.probe.system import constant_inputs, run, system


def measured(cell, starts_BN, settle, steps):
    map_ = system(cell)
    settled_BN = run(map_, starts_BN, constant_inputs(map_, settle, len(starts_BN))).states_TBN[-1]
    return lyapunov(map_, run(map_, settled_BN, constant_inputs(map_, steps, len(starts_BN))), 3)


def test_the_henon_map():
    found = measured(known.henon(), torch.linspace(0, 0.3, 32).double()[:, None].repeat(1, 2), 100, 1000)
    assert found.exponents_K == pytest.approx([0.419, -1.623], abs=0.006)
    assert found.exponents_K.sum() == pytest.approx(math.log(0.3), abs=1e-9)
    assert found.errors_K == pytest.approx(found.lanes_BK.std(0) / 32**0.5, rel=0.4)


def test_the_lorenz_system():
    found = measured(known.lorenz(), torch.linspace(1, 12, 32).double()[:, None].repeat(1, 3), 1500, 1500)
    per_time = found.exponents_K / known.LORENZ_STEP
    assert per_time == pytest.approx([0.906, 0.0, -14.57], abs=0.03)
    assert per_time.sum() == pytest.approx(-(10 + 1 + 8 / 3), abs=1e-3)


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_linear_map_has_its_eigenvalues(lanes):
    matrix = torch.tensor([[0.9, 0.4, 0.0], [0.0, 0.5, 0.3], [0.0, 0.0, 0.1]]).double()
    found = measured(known.Map(lambda h: h @ matrix.T, 3), torch.ones(lanes, 3).double(), 1, 400)
    assert found.exponents_K == pytest.approx(np.log([0.9, 0.5, 0.1]), abs=1e-6)
    assert found.errors_K == pytest.approx(0, abs=1e-6)
    assert found.lanes_BK.shape == (lanes, 3)
