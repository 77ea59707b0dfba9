"""The schedule follows the budget, in whichever unit it was given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import throughtime
from throughtime.recipe import build
from throughtime.tasks.registry import make_task
from throughtime.training.budget import Budget, learning_rate
from throughtime.training.display import Silence
from throughtime.training.loop import Trainer
from throughtime.training.optimizer import AdamW, Optimizer
from throughtime.training.ranks import Ranks
from throughtime.training.settings import Training

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
    made = AdamW([matrix, bias], Training(steps=1, learning_rate=0.1, weight_decay=0.5))
    for parameter in (matrix, bias):
        parameter.grad = torch.zeros_like(parameter)
    made.step(0.1)
    assert matrix.detach().flatten().tolist() == pytest.approx([0.95] * 4)
    assert bias.detach().tolist() == [1.0, 1.0]


def test_updates_are_those_of_pytorch_to_the_last_bit_and_remembered():
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (3,), (3, 2)]
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    training = Training(steps=1, weight_decay=0.3, beta1=0.8, beta2=0.95)
    groups = [{"params": theirs[::2], "weight_decay": 0.3}, {"params": theirs[1:2], "weight_decay": 0.0}]
    made, expected = AdamW(ours, training), torch.optim.AdamW(groups, 1.0, (0.8, 0.95), fused=True)
    assert made.state_dict() == {}
    for step in range(6):
        for parameter, other in zip(ours, theirs, strict=True):
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            other.grad = parameter.grad.clone()
        for group in expected.param_groups:
            group["lr"] = 0.1 / (step + 1)
        expected.step()
        made.step(0.1 / (step + 1))
        made.clear_gradients()
        if step == 3:
            told = {name: array.clone() for name, array in made.state_dict().items()}
            assert made.expected(told).keys() == told.keys()
            made = AdamW(ours, training)
            made.load_state_dict(told)
    for parameter, other in zip(ours, theirs, strict=True):
        assert torch.equal(parameter, other)
        assert parameter.grad is None
    assert {float(array) for name, array in made.state_dict().items() if name.endswith(".step")} == {6.0}


class Average(Optimizer):
    """Plain SGD; from the first validation on, the mean of the weights after each step is measured and kept."""

    def __init__(self, model):
        self.names, self._parameters = zip(*model.named_parameters(), strict=True)
        self.scores, self.sums, self.count = [], None, 0

    def step(self, rate):
        with torch.no_grad():
            for parameter in self._parameters:
                parameter -= rate * parameter.grad
        if self.scores:
            before = self.sums or [torch.zeros_like(parameter) for parameter in self._parameters]
            self.sums = [total + p.detach() for total, p in zip(before, self._parameters, strict=True)]
            self.count += 1

    def clear_gradients(self):
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self):
        return {}

    def load_state_dict(self, arrays):
        assert not arrays

    def expected(self, names):  # noqa: ARG002
        return {}

    def parameters(self):
        return list(self._parameters)

    def averaged_weights(self):
        if not self.count:
            return None
        return {name: total / self.count for name, total in zip(self.names, self.sums, strict=True)}

    def validated(self, score):
        self.scores.append(score)


def test_an_optimizer_may_average_weights_from_a_validation_on(tmp_path):
    (tmp_path / "text.txt").write_text("some text to learn, " * 60)
    recipe = build(
        {
            "text": {"sources": [str(tmp_path / "text.txt")]},
            "streams": {"lanes": 2, "window": 8},
            "model": {"hidden_size": 6},
            "training": {"steps": 8, "validations": 2, "sample_tokens": 0, "threads": 1, "learning_rate": 0.5},
        }
    )
    (tmp_path / "run").mkdir()
    trainer = Trainer(recipe, make_task(recipe).read(), tmp_path / "run", Silence(), Ranks())
    optimizer = trainer.learner.optimizer = Average(trainer.model)
    visited = []
    with trainer:
        trainer.begin(None)
        while trainer.step() is None:
            visited.append({name: array.clone() for name, array in trainer.model.state_dict().items()})
        visited.append({name: array.clone() for name, array in trainer.model.state_dict().items()})
        trainer.finish()
    result = trainer.end()
    assert len(optimizer.scores) == 2
    kept = throughtime.load(tmp_path / "run").model.state_dict()
    for name, array in kept.items():
        torch.testing.assert_close(array, torch.stack([weights[name] for weights in visited[4:]]).mean(0))
    assert result.steps == 8
    assert result.measure.score == pytest.approx(result.measure.nats_per_token)
