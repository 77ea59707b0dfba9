"""A cell without a kernel, registered from outside: it is trained, and used by PyTorch or refused in a line."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch import nn

from throughtime.cells import base
from throughtime.cells.base import Cell, register
from throughtime.cells.state import HiddenState
from throughtime.cli.main import main

NAME = "foreign-leaky"


class Leaky(Cell):
    """h_t = a h_(t-1) + (1 - a) tanh(W x_t)."""

    equations = "h_t = a h_(t-1) + (1 - a) tanh(W x_t)"

    def __init__(self, input_size, hidden_size, generator=None):
        super().__init__(input_size, hidden_size)
        self.W = base.input_matrix(hidden_size, input_size, generator)
        self.a = nn.Parameter(torch.zeros(hidden_size))

    def initial_state(self, batch_size):
        return HiddenState(self.zeros(batch_size))

    def step(self, x_BD, state):
        share = torch.sigmoid(self.a)
        hidden_BH = share * state.hidden_BH + (1 - share) * torch.tanh(x_BD @ self.W.T)
        return hidden_BH, HiddenState(hidden_BH)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    register(NAME)(Leaky)
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "my.txt").write_text("Once upon a time there was a word.\n" * 50)
    with pytest.raises(SystemExit) as left:
        main(["train", str(folder / "my.txt"), "--out", str(folder / "run"), "--cell", NAME, "--tokens", "byte",
              "--hidden", "8", "--steps", "6", "--set", "streams.lanes=2", "--set", "streams.window=8",
              "--set", "training.threads=1"])  # fmt: skip
    assert left.value.code == 0
    yield folder / "run"
    del base._FAMILIES[NAME]


def test_a_tokenizer_of_another_run_is_refused_though_pytorch_writes(call, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    described = json.loads((folder / "best" / "model.json").read_text())
    (folder / "best" / "model.json").write_text(json.dumps(described | {"tokenizer": "0" * 32}))
    for command in ("generate", "evaluate"):
        code, _, err = call(command, folder)
        assert code == 1
        assert "tokenizer.json" in err
        assert "is not the one its model was trained with" in err


def test_evaluate_measures_it_by_pytorch(call, run):
    code, out, _ = call("evaluate", run, "--json")
    assert code == 0
    entries = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    end = next(entry for entry in entries if entry["event"] == "end")
    assert json.loads(out)["nats_per_token"] == pytest.approx(end["nats_per_token"], rel=1e-6)


def test_generate_writes_by_pytorch_and_names_what_that_cannot_do(call, run):
    wanted = ("generate", run, "--tokens", 9, "--seed", 3, "--prompt", "On")
    code, out, _ = call(*wanted)
    assert code == 0
    assert len(out) > len("On\n")
    assert call(*wanted)[1] == out
    code, _, err = call(*wanted, "--min-p", 0.1)
    assert (code, err.count("\n")) == (2, 1)
    assert "PyTorch writes without --min-p" in err


@pytest.mark.parametrize(
    "words", [["score"], ["quantize"], ["embed", "OUT"], ["evaluate", "--weights", "int8"], ["compress"]]
)
def test_other_commands_say_in_a_line_that_there_is_no_kernel(call, run, tmp_path, words):
    command, *more = words
    arguments = [run, *(tmp_path / "out" if word == "OUT" else word for word in more)]
    if command == "compress":
        arguments = [run.parent / "my.txt", "-m", run, "-o", tmp_path / "out"]
    code, _, err = call(command, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert f"has no kernel for the cell '{NAME}'" in err
    assert not (tmp_path / "out").exists()


def test_an_unknown_setting_in_its_recipe_keeps_no_model_from_writing(call, run):
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text("shape = 3\n" + recipe)
    try:
        assert call("generate", run, "--tokens", 3)[0] == 0
        code, _, err = call("evaluate", run)
        assert (code, f"{run}/recipe.toml: there is no setting shape" in err) == (2, True)
    finally:
        (run / "recipe.toml").write_text(recipe)
