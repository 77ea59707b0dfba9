"""What is refused before a training begins, and which run a restart may touch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import distributed

import throughtime
from helpers import Cut, PowerCutError
from throughtime import recipe as recipes
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.training.launch import LAUNCH, claim
from throughtime.training.launcher import TOKEN
from throughtime.training.ranks import Ranks
from throughtime.training.start import check_resume, check_start

TEXT = "the cat sat on the mat, and the rat ate it.\n" * 60


def tree(text, **training):
    return {
        "text": {"sources": [str(text)]},
        "streams": {"lanes": 2, "window": 8},
        "model": {"hidden_size": 6},
        "training": {"steps": 8, "validations": 2, "sample_tokens": 0, "threads": 1, **training},
    }


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def unfinished(text, folder, **training):
    with pytest.raises(PowerCutError):
        throughtime.train(tree(text, **training), folder, Cut(3))
    return folder


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"}


@pytest.mark.parametrize("checkpoint_every", [0, 2])
def test_processes_that_are_started_again_touch_no_run_that_they_had_not_begun(
    text, tmp_path, monkeypatch, checkpoint_every
):
    folder = unfinished(text, tmp_path / "mine", checkpoint_every=checkpoint_every)
    before = content(folder)
    (tmp_path / "other.txt").write_text(TEXT[::-1])
    for launch in ("first", "second"):
        monkeypatch.setenv(TOKEN, launch)
        for start in ("0", "1", "3"):
            monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", start)
            with pytest.raises(ThroughtimeError, match="holds an unfinished run; go on with --resume"):
                throughtime.train(tree(tmp_path / "other.txt"), folder)
    assert content(folder) == before


def test_processes_that_are_started_again_go_on_with_the_run_that_they_had_begun(text, tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN, "one")
    folder = unfinished(text, tmp_path / "mine", checkpoint_every=2)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    log = Cut()
    assert throughtime.train(tree(text), folder, log).steps == 8
    assert any("going on after step 2" in line for line in log.lines)
    assert not (folder / LAUNCH).exists()


def test_processes_that_died_before_the_recipe_was_written_begin_anew(text, tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN, "one")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "lock").touch()
    claim(tmp_path / "mine")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert throughtime.train(tree(text), tmp_path / "mine").steps == 8


def test_restarts_by_torchrun_are_known_by_the_process_that_starts_them(text, tmp_path, monkeypatch):
    folder = unfinished(text, tmp_path / "mine", checkpoint_every=2)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with monkeypatch.context() as patched:
        patched.setattr(os, "getppid", lambda: 0)
        with pytest.raises(ThroughtimeError, match="holds an unfinished run"):
            throughtime.train(tree(text), folder)
    assert throughtime.train(tree(text), folder).steps == 8


@pytest.mark.parametrize(
    ("changes", "processes", "message"),
    [
        ({"model": {"cell": "nosuch"}}, 2, "there is no cell 'nosuch'"),
        ({"model": {"cell_options": {"nosuch": 1}}}, 2, "has no option 'nosuch'"),
        ({"model": {"cell": "mingru", "engine": "torch"}}, 2, "PyTorch has no fused form of the cell mingru"),
        ({"model": {"hidden_size": 1_000_000}}, 2, "GB to train, and this machine has"),
        ({"streams": {"lanes": 3}}, 4, "streams.lanes must be at least the number of processes, 4, got 3"),
        ({"streams": {"window": 10_000}}, 2, "the training text has .* need"),
        ({"text": {"sources": ["nosuch.txt"]}}, 2, "there is no file nosuch.txt"),
        ({"text": {"sources": ["-"]}}, 2, "standard input can be read only once, and 2 processes read the text"),
        ({"text": {"valid": ["/dev/stdin"], "split": [1.0, 0.0, 0.0]}}, 2, "standard input can be read only once"),
    ],
)
def test_a_wrong_start_of_several_processes_is_refused_before_any_is_started(
    text, tmp_path, changes, processes, message
):
    recipe = recipes.build(recipes.merge(tree(text), changes))
    with pytest.raises(ThroughtimeError, match=message):
        check_start(recipe, tmp_path / "run", processes)
    assert not (tmp_path / "run").exists()


def test_a_pipe_is_refused_where_several_processes_would_read_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingError, match="pipe can be read only once, and 2 processes"):
        check_start(recipes.build(tree(tmp_path / "pipe")), tmp_path / "run", 2)


def test_a_folder_that_is_taken_is_refused_before_processes_are_started(text, tmp_path):
    folder = unfinished(text, tmp_path / "mine", checkpoint_every=2)
    with pytest.raises(ThroughtimeError, match="holds an unfinished run"):
        check_start(recipes.build(tree(text)), folder, 2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(ThroughtimeError, match="holds something already"):
        check_start(recipes.build(tree(text)), tmp_path / "full", 2)


def test_a_run_that_cannot_go_on_is_refused_before_processes_are_started(text, tmp_path):
    folder = unfinished(text, tmp_path / "mine", checkpoint_every=2)
    check_resume(folder, {}, 2)
    with pytest.raises(SettingError, match=r"another model.cell \(was 'lstm', now 'gru'\)"):
        check_resume(folder, {"model": {"cell": "gru"}}, 2)
    with pytest.raises(SettingError, match="must be at least the number of processes, 3"):
        check_resume(folder, {}, 3)
    with pytest.raises(ThroughtimeError, match="there is no run in"):
        check_resume(tmp_path / "none", {}, 2)
    throughtime.resume(folder)
    with pytest.raises(ThroughtimeError, match="has used up its budget after 8 steps"):
        check_resume(folder, {}, 2)
    check_resume(folder, {"training": {"steps": 9}}, 2)
    text.write_text(TEXT[::-1])
    with pytest.raises(ThroughtimeError, match="text is not the one"):
        check_resume(folder, {"training": {"steps": 9}}, 2)


def test_a_run_from_standard_input_does_not_wait_for_a_terminal(text, tmp_path, monkeypatch):
    with text.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        folder = throughtime.train(tree("-"), tmp_path / "run").folder
    more = {"training": {"steps": 10}}
    master, terminal = os.openpty()
    empty, silent = os.pipe()
    monkeypatch.setattr("throughtime.tasks.files.INPUT_SECONDS", 0.1)
    with os.fdopen(terminal) as shown, os.fdopen(empty) as nothing, open(os.devnull) as null:
        for stream in (shown, nothing, null, None):
            monkeypatch.setattr("sys.stdin", stream)
            with pytest.raises(ThroughtimeError, match="was trained from standard input, and nothing comes there"):
                throughtime.resume(folder, more)
    os.close(master)
    os.close(silent)
    with text.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert throughtime.resume(folder, more).steps == 10
    # A file of the same text does as well.
    more = {"text": {"sources": [str(text)]}, "training": {"steps": 11}}
    assert throughtime.resume(folder, more).steps == 11


@pytest.fixture
def group(tmp_path):
    """A process group of this process alone, which believes to be the first of two."""
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield Ranks(0, 2)
    distributed.destroy_process_group()


def test_nothing_can_be_shared_among_processes_and_sums_are_of_double_precision(group):
    assert group.share(b"") == b""
    assert group.share(b"abc") == b"abc"
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.full((3,), 0.5)
    exact = 2.0**24 + 1  # which a float32 does not hold
    assert group.add_up([parameter], [exact, 1 / 3]) == [exact, 1 / 3]
    assert group.add_up([], [exact]) == [exact]
    assert torch.equal(parameter.grad, torch.full((3,), 0.5))


@pytest.mark.parametrize(
    "setting",
    [torch.no_grad, torch.inference_mode, lambda: torch.device("meta"), lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["no_grad", "inference_mode", "device", "autocast"],
)
def test_what_the_caller_has_set_in_pytorch_does_not_matter(text, tmp_path, setting):
    plain = throughtime.train(tree(text), tmp_path / "plain").measure
    with setting():
        assert throughtime.train(tree(text, checkpoint_every=4), tmp_path / "run").measure == plain
        throughtime.resume(tmp_path / "run", {"training": {"steps": 10}})


def test_another_default_type_or_device_does_not_matter_and_is_as_before(text, tmp_path):
    plain = throughtime.train(tree(text), tmp_path / "plain").measure
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        assert throughtime.train(tree(text), tmp_path / "run").measure == plain
        assert (torch.get_default_dtype(), torch.get_default_device().type) == (torch.float64, "meta")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_a_path_is_taken_as_a_recipe_file_and_anything_else_refused(text, tmp_path):
    (tmp_path / "mine").write_text(recipes.to_toml(recipes.build(tree(text))))
    assert throughtime.train(tmp_path / "mine", tmp_path / "run").steps == 8
    with pytest.raises(SettingError, match=r"cannot read the recipe .*none: No such file"):
        throughtime.train(tmp_path / "none")
    for wrong in (None, 3, [("text", {})]):
        with pytest.raises(
            SettingError, match="a recipe is a Recipe, a tree of settings, a name or a TOML file, got a"
        ):
            throughtime.train(wrong)


@pytest.mark.parametrize("remove", [True, False])
def test_a_run_folder_that_is_moved_or_removed_ends_the_training_and_comes_not_back(text, tmp_path, remove):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"

    class Moving(Cut):
        def show(self, moment):
            if moment.step == self.step:
                while not (folder / "checkpoints" / "last").exists():  # a thread writes it
                    time.sleep(0.01)
                shutil.rmtree(folder) if remove else os.rename(folder, elsewhere)

    with pytest.raises(ThroughtimeError, match=r"moved or removed|cannot write the checkpoint") as caught:
        throughtime.train(tree(text, checkpoint_every=2, steps=80), folder, Moving(3))
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    if not remove:
        assert throughtime.resume(elsewhere, {"training": {"steps": 8}}).steps == 8


def test_processes_do_not_take_modules_from_the_working_directory(text, tmp_path):
    """By the command line; and the wish to end is granted after a checkpoint."""
    (tmp_path / "queue.py").write_text("raise SystemExit('taken from the working directory')")
    (tmp_path / "random.py").write_text("raise SystemExit('taken from the working directory')")
    words = ["train", str(text), "--out", "run", "--processes", "2", "--hidden", "6", "--minutes", "5", "--set",
             "streams.lanes=2", "--set", "streams.window=8", "--set", "training.threads=1"]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "throughtime", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as parent:
        lines = []
        for line in parent.stderr:
            lines.append(line)
            if "processes of 1 threads share the lanes" in line:
                threading.Timer(1.0, parent.terminate).start()
        assert parent.wait() == 143, lines
    assert lines[-1].startswith("throughtime: terminated after step ")
    assert not any("working directory" in line for line in lines)
    assert (tmp_path / "run" / "checkpoints" / "last").exists()
