"""`train --processes`, `--out` and sizes: what is wrong is one line with the right exit code."""

from __future__ import annotations

import os

import pytest

from throughtime.cli.main import main

SMALL = ["--hidden", "6", "--steps", "4", "--set", "streams.lanes=2", "--set", "streams.window=8", "--set",
         "training.threads=1", "--set", "training.sample_tokens=0"]  # fmt: skip


@pytest.fixture
def call(capfd, tmp_path, monkeypatch):
    """Run the command line in this process, in a folder with a text: exit code and what is said."""
    (tmp_path / "my.txt").write_text("Once upon a time there was a word.\n" * 50)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        return left.value.code, capfd.readouterr().err

    return run


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["my.txt", "--cell", "nosuch", "--set", "streams.lanes=3"], 2, "there is no cell 'nosuch'"),
        (["nosuch.txt"], 1, "there is no file nosuch.txt"),
        (["-"], 2, "standard input can be read only once, and 3 processes read the text"),
        (["my.txt"], 2, "streams.lanes must be at least the number of processes, 3, got 2"),
        (["my.txt", "--set", "training.seed=18446744073709551616"], 2, "training.seed: should be less than"),
        (["--resume"], 1, "there is no run in run to go on with"),
    ],
)
def test_a_wrong_start_of_processes_is_one_line(call, words, code, message):
    found, said = call("train", *SMALL, *words, "--out", "run", "--processes", "3")
    assert (found, said.count("\n")) == (code, 1)
    assert message in said
    assert not os.path.exists("run")


def test_processes_need_a_folder_and_are_torchruns_own_where_it_started_this_one(call, monkeypatch):
    assert "--processes needs --out" in call("train", "my.txt", "--processes", "2", *SMALL)[1]
    monkeypatch.setenv("RANK", "0")
    code, said = call("train", "my.txt", "--out", "run", "--processes", "2", *SMALL)
    assert (code, "torchrun starts the processes here; leave --processes out" in said) == (2, True)


@pytest.mark.parametrize("hidden", ["1000000", "16777216", "16777217", "1" + "0" * 30])
def test_a_model_that_no_memory_could_hold_is_refused_in_a_line(call, hidden):
    code, said = call("train", "my.txt", "--out", "run", *SMALL, "--hidden", hidden)
    assert (code, said.count("\n")) == (2, 1)
    assert "hidden_size" in said


def test_a_tilde_that_the_shell_left_is_the_home_folder(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert call("train", "my.txt", "--out=~/runs/mine", *SMALL)[0] == 0
    assert (tmp_path / "home" / "runs" / "mine" / "card.md").exists()
    assert not os.path.exists("~")
    code, said = call("train", "my.txt", "--out=~nobody-of-that-name/x", *SMALL)
    assert (code, said.count("\n")) == (2, 1)
    assert "cannot find ~nobody-of-that-name/x" in said
