"""Going on: a run that was ended anywhere comes out as the one that was not, to the last bit."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import matrix_memory
import throughtime
from helpers import Cut, PowerCutError, forge
from throughtime import recipe as recipes
from throughtime.errors import SettingError, TerminationError, ThroughtimeError
from throughtime.models.language import LanguageModel
from throughtime.objective.measure import Measure
from throughtime.training.checkpoint import Checkpoints
from throughtime.training.lock import locked

TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs.\n" * 30
STEPS = 24
SMALL = {
    "streams": {"lanes": 3, "window": 8},
    "model": {"hidden_size": 8, "cell": "gru"},
    "training": {"steps": STEPS, "validations": 3, "sample_tokens": 5, "learning_rate": 0.01, "threads": 1},
}
KINDS = {
    "carried": {},
    "random windows": {"streams": {"partition": "random"}},
    "dropped": {"model": {"cell": "lstm", "layers": 2, "dropout": 0.3, "weight_drop": 0.2, "recurrent_dropout": 0.1}},
    "widths": {"model": {"cell": "lstm", "hidden_size": [6, 11, 5], "tied": True, "dropout": 0.3, "weight_drop": 0.2}},
    "reach": {"gradient": {"reach": 20, "clip_quantile": 0.5}},
    "drawn windows": {"gradient": {"truncation": "variable"}, "model": {"tied": True}},
    "geometric": {"gradient": {"truncation": "variable", "lengths": "geometric"}, "model": {"cell": "mingru"}},
    "cuts": {"gradient": {"truncation": "random", "cut": 0.05, "cut_end": 0.3}},
    "whole epochs": {"gradient": {"truncation": "none"}, "model": {"dropout": 0.2}},
    "documents": {"text": {"separator": "jugs"}},
    "states of other shapes": {"gradient": {"reach": 20}, "model": {"cell": matrix_memory.NAME, "layers": 2}},
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def uncut(text, tmp_path_factory):
    """The run of each kind that nothing ended, made once."""
    made = {}

    def run(kind):
        if kind not in made:
            made[kind] = throughtime.train(tree(text, KINDS[kind]), tmp_path_factory.mktemp("uncut") / "run").folder
        return made[kind]

    return run


def tree(text, changes=None, **training):
    made = recipes.change({**SMALL, "text": {"sources": [str(text)]}}, changes or {})
    return recipes.change(made, {"training": training} if training else {})


def cut_run(text, folder, kind, step, every):
    with pytest.raises(PowerCutError):
        throughtime.train(tree(text, KINDS[kind], checkpoint_every=every), folder, Cut(step))
    return folder


def outcome(folder):
    """All that a run comes to, without times, which checkpoint, and how often one was written."""
    entries = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for entry in entries:
        for time in ("seconds", "tokens_per_second"):
            entry.pop(time, None)
    last = Checkpoints(folder / "checkpoints").newest().checkpoint
    facts = {name: last.facts[name] for name in ("learner", "watch", "text", "tokeniser", "best")}
    models = [(folder / name / "model.safetensors").read_bytes() for name in ("best", "last")]
    return entries, models, facts, last.arrays


def assert_same(found, wanted):
    assert found[:3] == wanted[:3]
    assert found[3].keys() == wanted[3].keys()
    for part, arrays in wanted[3].items():
        assert found[3][part].keys() == arrays.keys()
        for name, array in arrays.items():
            assert torch.equal(found[3][part][name], array), f"{part}: {name}"


def goes_on(text, uncut, tmp_path_factory, data):
    """A run of any kind, cut once or twice at any step, comes out as the one that was not."""
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    wanted = uncut(kind)
    most = json.loads((wanted / "journal.jsonl").read_text().splitlines()[-1])["step"]
    every = data.draw(st.integers(1, 9))
    cuts = sorted(data.draw(st.lists(st.integers(1, most), min_size=1, max_size=2, unique=True)))
    folder = tmp_path_factory.mktemp("cut") / "run"
    cut_run(text, folder, kind, cuts[0], every)
    for step in cuts[1:]:
        with pytest.raises(PowerCutError):
            throughtime.resume(folder, display=Cut(step))
    throughtime.resume(folder)
    assert_same(outcome(folder), outcome(wanted))


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_run_that_was_cut_comes_out_as_the_one_that_was_not(text, uncut, tmp_path_factory, data):
    goes_on(text, uncut, tmp_path_factory, data)


def test_a_cell_whose_state_is_no_matrix_of_units_is_carried_over_a_cut(text, uncut, tmp_path):
    kind = "states of other shapes"
    folder = cut_run(text, tmp_path / "run", kind, 11, every=4)
    arrays = Checkpoints(folder / "checkpoints").newest().checkpoint.arrays["position"]
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    assert shapes["state.1.memory_BHK"] == shapes["behind.0.state.1.memory_BHK"] == [3, 8, 3]
    assert shapes["state.1.mass_B"] == [3]
    throughtime.resume(folder)
    assert_same(outcome(folder), outcome(uncut(kind)))


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_fifty_runs_that_were_cut_come_out_as_those_that_were_not(text, uncut, tmp_path_factory, data):
    goes_on(text, uncut, tmp_path_factory, data)


def test_ctrl_c_and_its_validation_leave_no_trace_in_the_run_that_goes_on(text, uncut, tmp_path):
    class Impatient(Cut):
        def show(self, moment):
            if moment.step == self.step:
                os.kill(os.getpid(), signal.SIGINT)

    result = throughtime.train(tree(text), tmp_path / "run", Impatient(11))
    assert (result.ending, result.steps) == ("interrupted", 12)
    with pytest.raises(PowerCutError):
        throughtime.resume(tmp_path / "run", display=Cut(STEPS))
    assert not (tmp_path / "run" / "card.md").exists(), "it would tell of an end that the run has left behind"
    assert throughtime.resume(tmp_path / "run").ending == "budget"
    assert_same(outcome(tmp_path / "run"), outcome(uncut("carried")))


def test_sigterm_writes_a_checkpoint_and_says_how_to_go_on(text, uncut, tmp_path):
    class Stopping(Cut):
        def show(self, moment):
            if moment.step == self.step:
                os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(
        TerminationError, match=r"terminated after step 8; `throughtime train --out .* --resume` goes on"
    ):
        throughtime.train(tree(text), tmp_path / "run", Stopping(7))
    assert signal.getsignal(signal.SIGTERM) is handler
    assert Checkpoints(tmp_path / "run" / "checkpoints").newest().checkpoint.step == 8
    throughtime.resume(tmp_path / "run")
    assert_same(outcome(tmp_path / "run"), outcome(uncut("carried")))


def test_a_run_that_was_cut_before_its_first_checkpoint_begins_anew(text, uncut, tmp_path):
    cut_run(text, tmp_path / "run", "carried", 3, 0)
    log = Cut()
    throughtime.resume(tmp_path / "run", display=log)
    assert "ended before its first checkpoint" in log.lines[0]
    assert_same(outcome(tmp_path / "run"), outcome(uncut("carried")))


def test_what_lies_beside_the_checkpoints_may_be_lost(text, uncut, tmp_path):
    folder = cut_run(text, tmp_path / "run", "carried", 20, 6)
    for name in ("recipe.toml", "tokenizer.json", "journal.jsonl"):
        (folder / name).write_bytes(b"\0\1\2")
    shutil.rmtree(folder / "best")
    throughtime.resume(folder)
    assert_same(outcome(folder), outcome(uncut("carried")))


def test_a_damaged_checkpoint_is_stepped_back_over(text, uncut, tmp_path):
    folder = cut_run(text, tmp_path / "run", "carried", 20, 6)
    (folder / "checkpoints" / "step-18" / "model.safetensors").write_bytes(b"")
    log = Cut()
    throughtime.resume(folder, display=log)
    assert "step-18" in log.lines[0]
    assert "going on after step 12" in log.lines[1]
    assert_same(outcome(folder), outcome(uncut("carried")))
    for found in (folder / "checkpoints").glob("step-*/manifest.json"):
        found.unlink()
    with pytest.raises(ThroughtimeError, match=r"no checkpoint in .* holds: .*manifest\.json.*; begin a new run"):
        throughtime.resume(folder)


def test_a_budget_can_be_raised_and_only_that(text, tmp_path):
    folder = throughtime.train(tree(text), tmp_path / "run").folder
    with pytest.raises(ThroughtimeError, match=r"has used up its budget after 24 steps; give it more .* --steps 48"):
        throughtime.resume(folder)
    longer = throughtime.resume(folder, {"training": {"steps": 40, "validations": 7}})
    assert (longer.steps, longer.ending) == (40, "budget")
    assert recipes.build(recipes.read(str(folder / "recipe.toml"))).training.steps == 40
    steps = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in steps if entry["event"] == "valid"][3:] == [29, 35, 40]
    with pytest.raises(
        SettingError, match=r"another model.cell \(was 'gru', now 'lstm'\), training.seed \(was 0, now 3"
    ):
        throughtime.resume(folder, {"model": {"cell": "lstm"}, "training": {"seed": 3, "steps": 60}})
    with pytest.raises(SettingError, match=r"there is no setting model.sell"):
        throughtime.resume(folder, {"model": {"sell": "lstm"}})


def test_a_run_that_was_cut_behind_its_last_step_is_brought_to_its_end(text, uncut, tmp_path, monkeypatch):
    def cut(*_):
        raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr("throughtime.training.loop.draw_curve", cut)
        with pytest.raises(PowerCutError):
            throughtime.train(tree(text), tmp_path / "run")
    result = throughtime.resume(tmp_path / "run")
    assert (result.steps, result.ending) == (STEPS, "budget")
    assert_same(outcome(tmp_path / "run"), outcome(uncut("carried")))


def test_patience_that_is_used_up_can_be_raised(text, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("throughtime.tasks.language.estimate", lambda *_: Measure(1e9, 1, 1, 1, 0, 0))
        ended = throughtime.train(tree(text, patience=1, validations=6), tmp_path / "run")
    assert (ended.ending, ended.steps) == ("patience", 8)
    with pytest.raises(ThroughtimeError, match=r"has used up its patience after 8 steps; .* --set training.patience=2"):
        throughtime.resume(tmp_path / "run")
    assert throughtime.resume(tmp_path / "run", {"training": {"patience": 9}}).ending == "budget"


def test_another_text_is_refused(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text(TEXT)
    folder = cut_run(path, tmp_path / "run", "carried", 9, 5)
    path.write_text(TEXT.replace("fox", "box", 1))
    with pytest.raises(ThroughtimeError, match=r"the train text is not the one that .* was trained on"):
        throughtime.resume(folder)
    path.write_text(TEXT)
    throughtime.resume(folder)


def test_other_circumstances_are_said(text, tmp_path, monkeypatch):
    folder = cut_run(text, tmp_path / "run", "carried", 9, 5)
    monkeypatch.setattr("throughtime.training.resume.VERSION", "99")
    log = Cut()
    throughtime.resume(folder, {"training": {"threads": 2}}, log)
    assert [line.split(":")[0] for line in log.lines if "was" in line] == [
        "throughtime was 0.1.0, now it is 99",
        "threads was 1, now it is 2",
    ]


def test_an_unfinished_run_is_not_written_over(text, tmp_path):
    folder = cut_run(text, tmp_path / "run", "carried", 9, 5)
    with pytest.raises(ThroughtimeError, match=r"holds an unfinished run; go on with --resume"):
        throughtime.train(tree(text), folder)
    with pytest.raises(ThroughtimeError, match=r"there is no run in .* to go on with"):
        throughtime.resume(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ThroughtimeError, match=r"there is no run in .* to go on with"):
        throughtime.resume(tmp_path / "empty")


def test_a_folder_in_use_is_refused(text, tmp_path):
    folder = cut_run(text, tmp_path / "run", "carried", 9, 5)
    with locked(folder), pytest.raises(ThroughtimeError, match=f"is held by process {os.getpid()} on "):
        throughtime.resume(folder)


def test_a_rollback_goes_back_to_the_checkpoint_with_a_lower_rate(text, tmp_path, monkeypatch):
    nats, calls = LanguageModel.nats, []

    def spoil(self, *arguments):
        found, state = nats(self, *arguments)
        if torch.is_grad_enabled():
            calls.append(1)
            if len(calls) in (4, 15):
                found = found * torch.inf
        return found, state

    monkeypatch.setattr(LanguageModel, "nats", spoil)
    log = Cut()
    settings = {"nonfinite": "rollback", "rollback_rate": 0.25, "checkpoint_every": 5}
    folder = throughtime.train(tree(text, **settings), tmp_path / "run", log).folder
    went_back = [line.partition("to step ")[2] for line in log.lines if line.startswith("went back")]
    assert went_back == ["0, on with 0.25 of the learning rate", "10, on with 0.0625 of the learning rate"]
    entries = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if entry["event"] == "nonfinite"] == [4, 11]
    rates = {entry["step"]: entry["learning_rate"] for entry in entries if entry["event"] == "train"}
    assert rates[20] < 0.0625 * 0.01
    assert len(calls) == STEPS + 4 + 1


def all_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"}


def assert_refused_untouched(folder, message):
    before = all_of(folder)
    with pytest.raises(ThroughtimeError, match=message) as caught:
        throughtime.resume(folder)
    assert "\n" not in str(caught.value)
    assert all_of(folder) == before


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_without_its_checkpoints_does_not_begin_anew_over_its_models(text, uncut, tmp_path, finished):
    if finished:
        folder = shutil.copytree(uncut("carried"), tmp_path / "run")
    else:
        folder = cut_run(text, tmp_path / "run", "carried", 20, 6)
    shutil.rmtree(folder / "checkpoints")
    assert_refused_untouched(folder, r"has no checkpoint to go on from, and .*, which would be lost")
    (folder / "checkpoints").mkdir()
    if finished:
        assert_refused_untouched(folder, r"has no checkpoint to go on from, and card\.md")


def test_a_model_folder_does_not_begin_anew(uncut, tmp_path):
    run = uncut("carried")
    folder = shutil.copytree(run / "best", tmp_path / "product")
    for name in ("recipe.toml", "tokenizer.json"):
        shutil.copy(run / name, folder)
    assert_refused_untouched(folder, r"and model\.safetensors, model\.json, which would be lost")


def rewrite(folder, old, new):
    path = folder / "recipe.toml"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))


def test_an_edited_recipe_is_named_and_taken_where_it_may_change(text, tmp_path):
    folder = cut_run(text, tmp_path / "run", "carried", 20, 6)
    rewrite(folder, f"steps = {STEPS}", "steps = 30")
    rewrite(folder, "patience = 0", "patience = 50")
    log = Cut()
    assert throughtime.resume(folder, display=log).steps == 30
    said = [line for line in log.lines if "was changed" in line]
    assert said == [
        f"{folder}/recipe.toml was changed: training.steps was {STEPS}, now it is 30",
        f"{folder}/recipe.toml was changed: training.patience was 0, now it is 50",
    ]
    assert recipes.load(folder / "recipe.toml").training.patience == 50


def test_an_edited_recipe_gives_way_to_what_is_asked_for(text, tmp_path):
    folder = cut_run(text, tmp_path / "run", "carried", 20, 6)
    rewrite(folder, f"steps = {STEPS}", "steps = 30")
    assert throughtime.resume(folder, {"training": {"steps": 27}}).steps == 27


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hidden_size = 8", "hidden_size = 9", r"another model.hidden_size \(was 8, now 9\)"),
        ("seed = 0", "", None),
        ("seed = 0", "seed = 4", r"another training.seed \(was 0, now 4\)"),
        ("lanes = 3", "lanez = 3", r"run/recipe.toml: there is no setting streams.lanez; did you mean streams.lanes"),
        ("lanes = 3", "lanes = -3", r"run/recipe.toml: streams.lanes: should be greater"),
        ("lanes = 3", "lanes = ", None),
    ],
)
def test_an_edited_recipe_that_decides_the_numbers_is_refused(text, tmp_path, old, new, message):
    folder = cut_run(text, tmp_path / "run", "carried", 20, 6)
    rewrite(folder, old, new)
    if message:
        assert_refused_untouched(folder, message)
        return
    log = Cut()
    assert throughtime.resume(folder, display=log).steps == STEPS
    assert any("recipe.toml is not TOML" in line for line in log.lines) == (new == "lanes = ")


def test_a_text_that_has_moved_is_known_by_its_digest(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text(TEXT)
    folder = cut_run(tmp_path / "a" / "mine.txt", tmp_path / "run", "carried", 9, 5)
    os.rename(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ThroughtimeError, match=r"where the text has moved, name it anew: throughtime train TEXT --out"):
        throughtime.resume(folder)
    with pytest.raises(PowerCutError):
        throughtime.resume(folder, {"text": {"sources": [str(tmp_path / "b" / "mine.txt")]}}, Cut(12))
    (tmp_path / "other.txt").write_text(TEXT[::-1])
    with pytest.raises(ThroughtimeError, match=r"text is not the one that .* was trained on"):
        throughtime.resume(folder, {"text": {"sources": [str(tmp_path / "other.txt")]}})
    monkeypatch.chdir(tmp_path / "b")
    assert throughtime.resume(folder, {"text": {"sources": ["mine.txt"]}}).steps == STEPS
    assert recipes.load(folder / "recipe.toml").text.sources == (str(tmp_path / "b" / "mine.txt"),)


def test_checkpoints_of_version_0_1_0_are_read(text, uncut, tmp_path):
    """Their facts have no format and no record of validations, and NaN where there was no loss yet."""
    folder = cut_run(text, tmp_path / "run", "carried", 20, 6)
    for place in (folder / "checkpoints").glob("step-*"):
        facts = json.loads((place / "facts.json").read_text())
        del facts["format"], facts["watch"]["validations"]
        facts["recent"][0][0] = float("nan")
        forge(place, "facts.json", json.dumps(facts).encode())
    log = Cut()
    assert throughtime.resume(folder, display=log).steps == STEPS
    assert f"going on after step 18, from {folder}/checkpoints/step-18" in log.lines
    assert outcome(folder)[1] == outcome(uncut("carried"))[1]
