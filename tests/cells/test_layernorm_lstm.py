"""The LSTM with layer normalisation against its equations, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from throughtime import cells
from throughtime.cells.lstm import LSTMState


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def norm(v, gain, shift=0.0):
    centred = v - v.mean(axis=1, keepdims=True)
    return gain * centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) + shift


def by_hand(p, x_TBD, h, c):
    hidden_size = h.shape[1]
    outputs = []
    for x in x_TBD:
        a = norm(x @ p["W"].T, p["gain_x"]) + norm(h @ p["U"].T, p["gain_h"]) + p["b"]
        i, f, g, o = (a[:, gate * hidden_size : (gate + 1) * hidden_size] for gate in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(norm(c, p["gain_c"], p["shift_c"]))
        outputs.append(h)
    return np.stack(outputs), h, c


@pytest.fixture
def cell():
    generator = torch.Generator().manual_seed(0)
    cell = cells.create("layernorm-lstm", 5, 4, generator=generator).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return cell


def test_its_equations(cell):
    generator = np.random.default_rng(1)
    x, h, c = generator.normal(size=(6, 3, 5)), generator.normal(size=(3, 4)), generator.normal(size=(3, 4))
    parameters = {name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}
    y, h_last, c_last = by_hand(parameters, x, h, c)
    y_TBH, after = cell(torch.from_numpy(x), LSTMState(torch.from_numpy(h), torch.from_numpy(c)))
    for found, expected in ((y_TBH, y), (after.hidden_BH, h_last), (after.cell_BH, c_last)):
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("matrix", ["W", "U"])
def test_the_scale_of_a_matrix_does_not_matter(cell, matrix):
    generator = torch.Generator().manual_seed(1)
    x_TBD = torch.randn(6, 3, 5, generator=generator, dtype=torch.float64)
    state = LSTMState(*torch.randn(2, 3, 4, generator=generator, dtype=torch.float64))
    before, _ = cell(x_TBD, state)
    with torch.no_grad():
        cell.get_parameter(matrix).mul_(50)
    torch.testing.assert_close(cell(x_TBD, state)[0], before, rtol=0, atol=1e-3)


def test_how_it_begins():
    cell = cells.create("layernorm-lstm", 5, 4, forget_bias=2.0)
    assert cell.b.tolist() == [0.0] * 4 + [2.0] * 4 + [0.0] * 8
    assert all((gain == 1).all() for gain in (cell.gain_x, cell.gain_h, cell.gain_c))
    assert not cell.shift_c.any()
    shapes = {name: tuple(parameter.shape) for name, parameter in cell.named_parameters()}
    assert shapes == {
        "W": (16, 5), "U": (16, 4), "b": (16,), "gain_x": (16,), "gain_h": (16,), "gain_c": (4,), "shift_c": (4,)
    }  # fmt: skip
