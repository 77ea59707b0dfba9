"""The loop: the same numbers every time, nothing disturbed by watching, nothing lost when it goes wrong."""

from __future__ import annotations

import json
import math
import os
import signal

import pytest
import torch

import throughtime
from throughtime import recipe as recipes
from throughtime.errors import TerminationError, ThroughtimeError
from throughtime.models.language import LanguageModel
from throughtime.tasks import language
from throughtime.training.display import Display, quoted

TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs.\n" * 60
SMALL = {
    "streams": {"lanes": 4, "window": 8},
    "model": {"hidden_size": 16},
    "training": {"steps": 30, "validations": 3, "sample_tokens": 20, "learning_rate": 0.01, "threads": 1},
}
GOLDEN = [3.4155, 3.3116, 3.1697, 3.1056, 3.0068]
"""Losses of SMALL at steps 1, 7, 13, 19 and 25, in nats per token."""


class Log(Display):
    """Keeps what was said."""

    def __init__(self):
        self.lines, self.moments = [], []

    def say(self, line):
        self.lines.append(line)

    def show(self, moment):
        self.moments.append(moment)

    def close(self):
        self.lines.append("closed")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def train(text, out, changes=None, display=None):
    tree = recipes.change({**SMALL, "text": {"sources": [str(text)]}}, changes or {})
    return throughtime.train(tree, out, display)


def journal(folder, without_times=True):
    entries = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    times = {"seconds", "tokens_per_second"} if without_times else set()
    return [{key: value for key, value in entry.items() if key not in times} for entry in entries]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"streams": {"partition": "random"}},
        {"model": {"layers": 2, "dropout": 0.3, "cell": "gru"}},
        {"model": {"weight_drop": 0.3, "recurrent_dropout": 0.2}},
        {"text": {"tokens": "bpe", "vocabulary_size": 280}, "model": {"cell": "elman", "tied": True}},
        {"gradient": {"truncation": "none"}, "model": {"dropout": 0.1}, "training": {"steps": 3}},
        {"gradient": {"reach": 20, "clip_quantile": 0.7}},
        {"gradient": {"truncation": "variable"}},
        {"gradient": {"truncation": "variable", "lengths": "geometric"}},
        {"gradient": {"truncation": "random", "cut_end": 0.5}},
    ],
    ids=["sequential", "random", "dropout", "masks", "bpe", "whole", "reach", "variable", "geometric", "cuts"],
)
def test_the_same_recipe_and_seed_give_the_same_numbers_to_the_last_bit(text, tmp_path, changes):
    first, second = (train(text, tmp_path / name, changes).folder for name in ("a", "b"))
    assert journal(first) == journal(second)
    for name in ("best", "last"):
        weights = [(folder / name / "model.safetensors").read_bytes() for folder in (first, second)]
        assert weights[0] == weights[1]
    other = train(text, tmp_path / "c", recipes.merge(changes, {"training": {"seed": 1}})).folder
    assert journal(other) != journal(first)


def test_validation_does_not_disturb_the_training(text, tmp_path):
    watched = train(text, tmp_path / "a", {"training": {"validations": 30}}).folder
    alone = train(text, tmp_path / "b", {"training": {"validations": 1, "sample_tokens": 0}}).folder
    weights = [(folder / "last" / "model.safetensors").read_bytes() for folder in (watched, alone)]
    assert weights[0] == weights[1]


def test_the_losses_of_a_small_run_stay_what_they_are(text, tmp_path):
    """A refactoring leaves the curve where it is. A change that means to move it changes these figures too."""
    folder = train(text, tmp_path / "run").folder
    losses = [entry["nats_per_token"] for entry in journal(folder) if entry["event"] == "train"]
    assert len(losses) == 30
    assert losses[::6] == pytest.approx(GOLDEN, rel=2e-3)


def test_a_network_learns(text, tmp_path):
    result = train(text, tmp_path / "run", {"training": {"steps": 400}})
    assert result.split == "test"
    assert result.measure.perplexity < 1.5


def test_the_state_is_carried_between_windows(tmp_path):
    """A text whose next letter depends on one further back than a window: only a carried state can know it."""
    path = tmp_path / "far.txt"
    path.write_text(("a" + "x" * 8 + "b" + "x" * 8) * 500)
    settings = {"streams": {"window": 4, "lanes": 8}, "training": {"steps": 800, "sample_tokens": 0}}
    carried = train(path, tmp_path / "s", settings)
    reset = train(path, tmp_path / "r", recipes.merge(settings, {"streams": {"partition": "random"}}))
    assert carried.measure.nats_per_token < 0.5 * reset.measure.nats_per_token


def test_what_a_run_folder_holds(text, tmp_path):
    log = Log()
    result = train(text, tmp_path / "run", display=log)
    names = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*") if path.is_file()}
    models = {f"{which}/{name}" for which in ("best", "last") for name in ("model.safetensors", "model.json")}
    parts = ("best", "model", "noise", "optimiser", "position")
    checkpoint = {f"checkpoints/step-30/{name}.safetensors" for name in parts}
    checkpoint |= {f"checkpoints/{name}" for name in ("last", "step-30/facts.json", "step-30/manifest.json")}
    others = {"recipe.toml", "tokenizer.json", "journal.jsonl", "curve.svg", "card.md", "lock"}
    assert names == models | checkpoint | others
    events = [entry["event"] for entry in journal(result.folder)]
    assert [events[0], events[-1]] == ["begin", "end"]
    assert [events.count(event) for event in ("train", "valid", "sample")] == [30, 3, 3]
    end = journal(result.folder)[-1]
    card = (result.folder / "card.md").read_text()
    assert f"{end['bits_per_byte']:.4f}" in card
    assert str(text) in card
    assert (result.folder / "curve.svg").read_text().lstrip().startswith("<?xml")
    assert log.lines[-1] == "closed"
    assert [moment.step for moment in log.moments] == list(range(1, 31))
    assert log.moments[14].progress == pytest.approx(0.5)


def patch_estimates(monkeypatch, measures):
    """Validations find these nats per token, one after the other."""
    given, estimate = iter(measures), language.estimate
    monkeypatch.setattr(
        language, "estimate", lambda *read: (f := estimate(*read))._replace(nats=f.tokens * next(given))
    )


def test_best_is_the_best_and_last_the_last(text, tmp_path, monkeypatch):
    patch_estimates(monkeypatch, [3.0, 1.0, 2.0, 5.0])
    folder = train(text, tmp_path / "run").folder
    steps = {
        name: json.loads((folder / name / "model.json").read_text())["trained"]["step"] for name in ("best", "last")
    }
    assert steps == {"best": 20, "last": 30}


@pytest.mark.parametrize("unlucky", [math.nan, math.inf])
def test_a_validation_that_is_not_finite_is_never_the_best(text, tmp_path, monkeypatch, unlucky):
    patch_estimates(monkeypatch, [unlucky, 3.0, unlucky])
    log = Log()
    folder = train(text, tmp_path / "run", display=log).folder
    trained = json.loads((folder / "best" / "model.json").read_text())["trained"]
    assert (trained["step"], trained["valid"]["nats_per_token"]) == (20, pytest.approx(3.0))
    assert [entry["best"] for entry in journal(folder) if entry["event"] == "valid"] == [False, True, False]
    assert sum("which is never the best" in line for line in log.lines) == 2


def test_without_a_finite_validation_the_error_says_that_training_diverged(text, tmp_path, monkeypatch):
    patch_estimates(monkeypatch, [math.nan] * 3)
    with pytest.raises(ThroughtimeError, match=r"training diverged: none of the validations .* lower training.learn"):
        train(text, tmp_path / "run")
    assert not (tmp_path / "run" / "best").exists()


@pytest.mark.parametrize("policy", ["stop", "skip", "rollback"])
def test_weights_that_are_not_finite_are_neither_kept_nor_sampled_from(text, tmp_path, policy):
    """A learning rate this high spoils the weights; the loss of a step says so only after the next one."""
    changes = {"training": {"learning_rate": 1e38, "warmup": 0.0, "nonfinite": policy, "steps": 4, "validations": 4}}
    log = Log()
    with pytest.raises(ThroughtimeError, match=r"training diverged"):
        train(text, tmp_path / "run", changes, log)
    assert policy == "rollback" or not (tmp_path / "run" / "best").exists()
    assert any("the weights are not finite; this model is not kept" in line for line in log.lines)
    for folder in tmp_path.glob("run/[bl]*st"):  # what a rollback had made before
        assert all(parameter.isfinite().all() for parameter in throughtime.load(folder).model.parameters())


def test_a_model_whose_weights_are_not_finite_is_not_kept_where_nothing_validates_it(text, tmp_path):
    changes = {"training": {"learning_rate": 1e38, "warmup": 0.0, "steps": 1}, "text": {"split": [1.0, 0.0, 0.0]}}
    with pytest.raises(ThroughtimeError, match="training diverged"):
        train(text, tmp_path / "run", changes)
    assert not (tmp_path / "run" / "best").exists()


def test_a_run_with_a_smaller_budget_than_it_used_up_is_validated_before_it_ends(text, tmp_path):
    class Impatient(Log):
        def show(self, moment):
            if moment.step == 13:
                os.kill(os.getpid(), signal.SIGTERM)

    settings = {"training": {"validations": 1, "steps": 40}}
    with pytest.raises(TerminationError):
        train(text, tmp_path / "run", settings, Impatient())
    result = throughtime.resume(tmp_path / "run", {"training": {"steps": 5}})
    assert result.ending == "budget"
    assert math.isfinite(result.measure.nats)


def test_what_is_estimated_during_training_is_said_and_the_final_figure_is_exact(text, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text(TEXT * 10)
    log = Log()
    result = train(long, tmp_path / "run", display=log)
    assert any(line.startswith("validation during training is an estimate") for line in log.lines)
    assert result.measure.reading == "2 lanes"
    short = Log()
    train(text, tmp_path / "short", display=short)
    assert not any(line.startswith("validation during training") for line in short.lines)


def test_patience_ends_the_training(text, tmp_path, monkeypatch):
    patch_estimates(monkeypatch, [3.0, 2.0, 2.5, 2.5, 9.0])
    result = train(text, tmp_path / "run", {"training": {"patience": 2, "validations": 10}})
    assert (result.ending, result.steps) == ("patience", 12)


@pytest.mark.parametrize(
    ("budget", "steps"), [({"steps": 7}, 7), ({"epochs": 2.0}, 2 * ((len(TEXT) * 9 // 10 - 8) // 4 // 8))]
)
def test_budgets_of_steps_and_epochs(text, tmp_path, budget, steps):
    result = train(text, tmp_path / "run", {"training": budget})
    assert (result.ending, result.steps) == ("budget", steps)


def test_a_budget_of_minutes_ends_by_the_clock(text, tmp_path):
    result = train(text, tmp_path / "run", {"training": {"minutes": 0.02}})
    assert result.ending == "budget"
    assert result.seconds >= 1.2


def test_without_a_validation_split_the_last_model_is_the_best(text, tmp_path):
    result = train(text, tmp_path / "run", {"text": {"split": [1.0, 0.0, 0.0]}})
    assert (result.split, result.measure) == (None, None)
    weights = [(result.folder / name / "model.safetensors").read_bytes() for name in ("best", "last")]
    assert weights[0] == weights[1]


@pytest.fixture
def spoiled(monkeypatch):
    """The loss of the eighteenth step is not finite."""
    nats, calls = LanguageModel.nats, []

    def spoil(self, *arguments):
        found, state = nats(self, *arguments)
        if torch.is_grad_enabled():
            calls.append(1)
            if len(calls) == 18:
                found = found * math.inf
        return found, state

    monkeypatch.setattr(LanguageModel, "nats", spoil)


@pytest.mark.usefixtures("spoiled")
def test_a_loss_that_is_not_finite_stops_and_names_the_batch(text, tmp_path):
    with pytest.raises(ThroughtimeError, match=r"step 18 \(epoch 0, window 17\): loss .*best is kept; lower"):
        train(text, tmp_path / "run")
    batch = json.loads((tmp_path / "run" / "nonfinite-18.json").read_text())
    assert (batch["epoch"], batch["window"], len(batch["lanes"])) == (0, 17, 4)
    assert all(lane["text"] in TEXT and len(lane["ids"]) == 8 for lane in batch["lanes"])
    kept = throughtime.load(tmp_path / "run").model
    assert all(parameter.isfinite().all() for parameter in kept.parameters())


@pytest.mark.usefixtures("spoiled")
def test_or_is_left_out_if_the_recipe_says_so(text, tmp_path):
    log = Log()
    result = train(text, tmp_path / "run", {"training": {"nonfinite": "skip"}}, log)
    assert any("left out step 18 (epoch 0, window 17)" in line for line in log.lines)
    assert [entry["step"] for entry in journal(result.folder) if entry["event"] == "nonfinite"] == [18]
    assert math.isfinite(result.measure.nats)


def test_ctrl_c_ends_with_what_has_been_learned(text, tmp_path):
    class Impatient(Log):
        def show(self, moment):
            super().show(moment)
            if moment.step == 13:
                os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    result = train(text, tmp_path / "run", display=Impatient())
    assert result.ending == "interrupted"
    assert result.steps == 14
    assert throughtime.load(result.folder).model.vocabulary_size > 20
    assert (result.folder / "card.md").exists()
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_out_folder_that_holds_something_is_refused(text, tmp_path):
    with pytest.raises(ThroughtimeError, match="holds something already; give --out"):
        train(text, tmp_path)


def test_runs_without_a_name_are_numbered(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [train(text, None, {"training": {"steps": 1, "validations": 1}}).folder for _ in range(2)]
    assert [str(folder) for folder in folders] == ["runs/text-char", "runs/text-char-2"]


def test_a_tree_a_name_and_a_recipe_are_all_taken(text, tmp_path):
    tree = {**SMALL, "text": {"sources": [str(text)]}}
    one = throughtime.train(tree, tmp_path / "a")
    other = throughtime.train(recipes.build(tree), tmp_path / "b")
    assert one.measure == other.measure
    path = tmp_path / "mine.toml"
    path.write_text(recipes.to_toml(recipes.build(tree)))
    assert throughtime.train(str(path), tmp_path / "c").measure == one.measure


def test_a_sample_cannot_steer_the_terminal():
    assert quoted("one\ttab\n\x1b[2J\x07 é\r") == "  | one\ttab\n  | \\x1b[2J\\x07 é\\r"
