"""Bounds on a gradient: entries, norm, and a norm that follows those before."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from throughtime.gradient.clipping import FEWEST_NORMS, Clipping
from throughtime.gradient.settings import Gradient


def parameters_with(*gradients):
    parameters = [nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return parameters


@pytest.mark.parametrize(
    ("settings", "after", "bound"),
    [
        (Gradient(clip_norm=0.0), [[3.0, 0.0], [-4.0]], False),
        (Gradient(clip_norm=10.0), [[3.0, 0.0], [-4.0]], False),
        (Gradient(clip_norm=1.0), [[0.6, 0.0], [-0.8]], True),
        (Gradient(clip_norm=0.0, clip_value=3.5), [[3.0, 0.0], [-3.5]], False),
        (Gradient(clip_norm=math.sqrt(2) / 2, clip_value=1.0), [[0.5, 0.0], [-0.5]], True),
    ],
)
def test_clipping_bounds_the_norm_and_the_entries(settings, after, bound):
    parameters = parameters_with([3.0, 0.0], [-4.0])
    norm, was_bound = Clipping(settings)(parameters)
    assert norm == pytest.approx(5.0), "the norm before clipping"
    assert was_bound == bound
    for parameter, wanted in zip(parameters, after, strict=True):
        torch.testing.assert_close(parameter.grad, torch.tensor(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_told_and_left_alone(bad):
    parameters = parameters_with([1.0, bad], [2.0])
    clipping = Clipping(Gradient(clip_value=0.5, clip_quantile=0.5))
    assert not math.isfinite(clipping(parameters).norm)
    assert parameters[1].grad.tolist() == [2.0]
    assert not clipping.norms, "it would spoil the quantile"


def test_a_quantile_bounds_what_is_larger_than_most():
    clipping = Clipping(Gradient(clip_norm=0.0, clip_quantile=0.5))
    for step in range(FEWEST_NORMS):
        assert not clipping(parameters_with([float(step + 1)])).bound, "too few norms to say what is large"
    parameters = parameters_with([100.0])
    assert clipping(parameters) == (100.0, True)
    assert parameters[0].grad.item() == pytest.approx((FEWEST_NORMS + 1) / 2)
    small = parameters_with([2.0])
    assert clipping(small) == (2.0, False)
    assert small[0].grad.item() == 2.0


def test_the_norms_of_before_can_be_given():
    parameters = parameters_with([100.0])
    assert Clipping(Gradient(clip_norm=50.0, clip_quantile=0.9), [1.0] * FEWEST_NORMS)(parameters).bound
    assert parameters[0].grad.item() == pytest.approx(1.0)
