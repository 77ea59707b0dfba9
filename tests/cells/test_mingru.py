"""The minimal GRU against its equations, in NumPy, with either candidate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from throughtime import cells
from throughtime.cells.mingru import candidate_function
from throughtime.cells.state import HiddenState
from throughtime.errors import SettingError


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


CANDIDATES = {"linear": lambda a: a, "positive": lambda a: np.where(a < 0, sigmoid(a), a + 0.5)}


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_its_equations(candidate):
    generator = np.random.default_rng(1)
    cell = cells.create("mingru", 5, 4, candidate=candidate).double()
    W, b = generator.normal(size=(8, 5)), generator.normal(size=8)
    with torch.no_grad():
        cell.W.copy_(torch.from_numpy(W))
        cell.b.copy_(torch.from_numpy(b))
    x_TBD, h = generator.normal(size=(6, 3, 5)), generator.normal(size=(3, 4))
    y_TBH, after = cell(torch.from_numpy(x_TBD), HiddenState(torch.from_numpy(h)))
    for x, y_BH in zip(x_TBD, y_TBH, strict=True):
        z = sigmoid(x @ W[:4].T + b[:4])
        h = (1 - z) * h + z * CANDIDATES[candidate](x @ W[4:].T + b[4:])
        np.testing.assert_allclose(y_BH.detach().numpy(), h, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(after.hidden_BH.detach().numpy(), h, rtol=1e-12, atol=1e-12)


def test_the_candidates_where_they_bend():
    a = torch.tensor([-2.0, -1e-3, 0.0, 1e-3, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.equal(candidate_function("linear")(a), a)
    positive = candidate_function("positive")(a)
    expected = [0.1192029, 0.49975, 0.5, 0.501, 2.5]
    np.testing.assert_allclose(positive.detach().numpy(), expected, rtol=1e-6)
    (slope,) = torch.autograd.grad(positive.sum(), [a])
    np.testing.assert_allclose(slope.numpy(), [0.1049936, 0.2499999, 1.0, 1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("name", ["mingru", "minlstm"])
def test_a_candidate_that_there_is_not(name):
    with pytest.raises(SettingError, match="must be linear or positive, got 'tanh'"):
        cells.create(name, 5, 4, candidate="tanh")


def test_a_closed_gate_keeps_the_state_to_the_last_bit():
    cell = cells.create("mingru", 5, 4, candidate="positive")
    with torch.no_grad():
        cell.b[:4] = -1000.0
    state = HiddenState(torch.tensor([[-3.0, 0.0, 1e-30, 7e8]]))
    _, after = cell(torch.randn(50, 1, 5), state)
    assert torch.equal(after.hidden_BH, state.hidden_BH)
