"""The schedule follows the budget, in whichever unit it was given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from throughtime.recipe import Training
from throughtime.training.optimiser import Budget, learning_rate, optimiser

TRAINING = Training(steps=100, learning_rate=0.5, warmup=0.2, final_rate=0.1)


@pytest.mark.parametrize(
    ("progress", "rate"), [(0.0, 0.0), (0.1, 0.25), (0.2, 0.5), (0.6, 0.5 * 0.55), (1.0, 0.05), (1.5, 0.05)]
)
def test_warm_up_then_half_a_cosine(progress, rate):
    assert learning_rate(TRAINING, progress) == pytest.approx(rate)


def test_without_warm_up_it_begins_at_the_top():
    assert learning_rate(TRAINING.model_copy(update={"warmup": 0.0}), 0.0) == 0.5


def test_a_budget_of_steps_and_epochs_counts_steps():
    assert Budget.of(Training(steps=40), lambda _: 10).progress(10, 99.0) == 0.25
    assert Budget.of(Training(epochs=2.5), lambda epochs: round(10 * epochs)).steps == 25


def test_a_budget_of_minutes_looks_at_the_clock():
    budget = Budget.of(Training(minutes=2.0), lambda _: 10)
    assert budget.progress(0, 30.0) == 0.25
    assert budget.progress(0, 500.0) == 1.0
    assert budget.seconds_left(5, 30.0) == pytest.approx(90.0)
    assert budget.seconds_left(0, 30.0) is None


def test_only_matrices_decay():
    matrix, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    made = optimiser([matrix, bias], Training(steps=1, learning_rate=0.1, weight_decay=0.5))
    for parameter in (matrix, bias):
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    assert matrix.detach().flatten().tolist() == pytest.approx([0.95] * 4)
    assert bias.detach().tolist() == [1.0, 1.0]
