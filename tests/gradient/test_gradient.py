"""Truncation and clipping."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from throughtime.cells.state import HiddenState
from throughtime.gradient.clipping import clip
from throughtime.gradient.truncation import truncation
from throughtime.recipe import Gradient
from throughtime.streams.window import empty_window


def parameters_with(*gradients):
    parameters = [nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return parameters


@pytest.mark.parametrize(
    ("settings", "after"),
    [
        (Gradient(clip_norm=0.0), [[3.0, 0.0], [-4.0]]),
        (Gradient(clip_norm=10.0), [[3.0, 0.0], [-4.0]]),
        (Gradient(clip_norm=1.0), [[0.6, 0.0], [-0.8]]),
        (Gradient(clip_norm=0.0, clip_value=3.5), [[3.0, 0.0], [-3.5]]),
        (Gradient(clip_norm=math.sqrt(2) / 2, clip_value=1.0), [[0.5, 0.0], [-0.5]]),
    ],
)
def test_clipping_bounds_the_norm_and_the_entries(settings, after):
    parameters = parameters_with([3.0, 0.0], [-4.0])
    assert clip(parameters, settings) == pytest.approx(5.0), "the norm before clipping"
    for parameter, wanted in zip(parameters, after, strict=True):
        torch.testing.assert_close(parameter.grad, torch.tensor(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_told_and_left_alone(bad):
    parameters = parameters_with([1.0, bad], [2.0])
    assert not math.isfinite(clip(parameters, Gradient(clip_value=0.5)))
    assert parameters[1].grad.tolist() == [2.0]


def test_fixed_truncation_cuts_between_windows_and_nowhere_else():
    fixed = truncation(Gradient())
    assert fixed.flow(empty_window(4, 2)) is None
    hidden = torch.ones(2, 3, requires_grad=True)
    carried = fixed.carry(HiddenState(hidden * 2))
    assert not carried.hidden_BH.requires_grad
    assert np.array_equal(carried.hidden_BH.numpy(), np.full((2, 3), 2.0))
