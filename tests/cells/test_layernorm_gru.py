"""The GRU with layer normalisation against its equations, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from throughtime import cells
from throughtime.cells.state import HiddenState


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def norm(v, gain):
    centred = v - v.mean(axis=1, keepdims=True)
    return gain * centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)


def by_hand(p, x_TBD, h):
    hidden_size = h.shape[1]
    outputs = []
    for x in x_TBD:
        p_r, p_z, p_n = np.split(norm(x @ p["W"].T, p["gain_x"]), 3, axis=1)
        q_r, q_z, q_n = np.split(norm(h @ p["U"].T, p["gain_h"]), 3, axis=1)
        r = sigmoid(p_r + q_r + p["b"][:hidden_size])
        z = sigmoid(p_z + q_z + p["b"][hidden_size : 2 * hidden_size])
        n = np.tanh(p_n + p["b"][2 * hidden_size :] + r * (q_n + p["c_n"]))
        h = (1 - z) * n + z * h
        outputs.append(h)
    return np.stack(outputs)


@pytest.fixture
def cell():
    generator = torch.Generator().manual_seed(0)
    cell = cells.create("layernorm-gru", 5, 4, generator=generator).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return cell


def test_its_equations(cell):
    generator = np.random.default_rng(1)
    x, h = generator.normal(size=(6, 3, 5)), generator.normal(size=(3, 4))
    y = by_hand({name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}, x, h)
    y_TBH, after = cell(torch.from_numpy(x), HiddenState(torch.from_numpy(h)))
    np.testing.assert_allclose(y_TBH.detach().numpy(), y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(after.hidden_BH.detach().numpy(), y[-1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("matrix", ["W", "U"])
def test_the_scale_of_a_matrix_does_not_matter(cell, matrix):
    generator = torch.Generator().manual_seed(1)
    x_TBD = torch.randn(6, 3, 5, generator=generator, dtype=torch.float64)
    state = HiddenState(torch.randn(3, 4, generator=generator, dtype=torch.float64))
    before, _ = cell(x_TBD, state)
    with torch.no_grad():
        cell.get_parameter(matrix).mul_(50)
    torch.testing.assert_close(cell(x_TBD, state)[0], before, rtol=0, atol=1e-3)


def test_how_it_begins():
    cell = cells.create("layernorm-gru", 5, 4)
    assert all((gain == 1).all() for gain in (cell.gain_x, cell.gain_h))
    assert not cell.b.any()
    assert not cell.c_n.any()
    shapes = {name: tuple(parameter.shape) for name, parameter in cell.named_parameters()}
    assert shapes == {"W": (12, 5), "U": (12, 4), "b": (12,), "c_n": (4,), "gain_x": (12,), "gain_h": (12,)}
