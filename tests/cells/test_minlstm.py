"""The minimal LSTM against its equations, in NumPy, with either candidate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from throughtime import cells
from throughtime.cells.state import HiddenState


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


CANDIDATES = {"linear": lambda a: a, "positive": lambda a: np.where(a < 0, sigmoid(a), a + 0.5)}


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_its_equations(candidate):
    generator = np.random.default_rng(1)
    cell = cells.create("minlstm", 5, 4, candidate=candidate).double()
    W, b = generator.normal(size=(12, 5)), generator.normal(size=12)
    with torch.no_grad():
        cell.W.copy_(torch.from_numpy(W))
        cell.b.copy_(torch.from_numpy(b))
    x_TBD, h = generator.normal(size=(6, 3, 5)), generator.normal(size=(3, 4))
    y_TBH, after = cell(torch.from_numpy(x_TBD), HiddenState(torch.from_numpy(h)))
    for x, y_BH in zip(x_TBD, y_TBH, strict=True):
        f, i = sigmoid(x @ W[:4].T + b[:4]), sigmoid(x @ W[4:8].T + b[4:8])
        h = f / (f + i) * h + i / (f + i) * CANDIDATES[candidate](x @ W[8:].T + b[8:])
        np.testing.assert_allclose(y_BH.detach().numpy(), h, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(after.hidden_BH.detach().numpy(), h, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("forget_bias", [-1.0, 0.0, 1.0, 4.0])
def test_it_begins_forgetting_as_much_as_an_lstm_does(forget_bias):
    cell = cells.create("minlstm", 5, 4, forget_bias=forget_bias)
    y_BH, _ = cell.step(torch.zeros(1, 5), HiddenState(torch.ones(1, 4)))
    torch.testing.assert_close(y_BH, torch.full((1, 4), 1 / (1 + math.exp(-forget_bias))))


@pytest.mark.parametrize(
    ("f", "i", "kept"), [(-200, -200, 0.5), (-200, -201, 0.7310586), (200, 200, 0.5), (0, -300, 1)]
)
def test_gates_too_small_to_divide_by_are_divided_rightly(f, i, kept):
    """In float32 sigmoid(-200) is 0, and 0 / 0 is not a number; nor may the gradient be."""
    cell = cells.create("minlstm", 5, 4)
    with torch.no_grad():
        cell.b[:4], cell.b[4:8] = f, i
    y_TBH, _ = cell(torch.zeros(1, 1, 5), HiddenState(torch.ones(1, 4)))
    torch.testing.assert_close(y_TBH, torch.full((1, 1, 4), float(kept)))
    y_TBH.sum().backward()
    assert cell.b.grad.isfinite().all()


def test_a_closed_gate_keeps_the_state_to_the_last_bit():
    cell = cells.create("minlstm", 5, 4, candidate="positive")
    with torch.no_grad():
        cell.b[4:8] = -1000.0
    state = HiddenState(torch.tensor([[-3.0, 0.0, 1e-30, 7e8]]))
    _, after = cell(torch.randn(50, 1, 5), state)
    assert torch.equal(after.hidden_BH, state.hidden_BH)
