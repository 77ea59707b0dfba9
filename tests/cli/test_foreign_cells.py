"""Cells without a kernel, from outside the package: trained and used on PyTorch, or refused in a line."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import matrix_memory
from helpers import forget_leaky, leaky_file
from throughtime.cli.main import main

SMALL = """--tokens byte --hidden 8 --steps 12 --set streams.lanes=4 --set streams.window=8 --set training.threads=1
           --set training.validations=2 --set training.sample_tokens=9""".split()  # noqa: SIM905
FILE = Path(matrix_memory.__file__)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "my.txt").write_text("Once upon a time there was a word.\n" * 50)
    return folder


def train(folder, name, *words):
    with pytest.raises(SystemExit) as left:
        main(["train", str(folder / "my.txt"), "--out", str(folder / name), *map(str, words), *SMALL])
    assert left.value.code == 0
    return folder / name


@pytest.fixture(scope="module")
def leaky(folder):
    """The example of CONTRIBUTING, as its file and by its registered name."""
    with leaky_file(folder) as path:
        yield path


@pytest.fixture(scope="module")
def run(folder, leaky):
    return train(folder, "leaky", "--import", leaky, "--cell", "leaky")


@pytest.fixture(scope="module")
def memory(folder):
    """A cell whose state is [B, H, K] and [B], by its module and class."""
    return train(folder, "memory", "--import", FILE, "--cell", matrix_memory.NAME)


@pytest.fixture(scope="module", autouse=True)
def both(run, memory):
    """Made before a test listens to what is printed."""
    return {"leaky": run, "memory": memory}


@pytest.fixture(params=["leaky", "memory"])
def either(request, both):
    return both[request.param]


def end_of(run):
    entries = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return next(entry for entry in entries if entry["event"] == "end")


def test_evaluate_gives_the_figure_of_the_training(call, either):
    code, out, _ = call("evaluate", either, "--json")
    assert code == 0
    assert json.loads(out)["nats_per_token"] == pytest.approx(end_of(either)["nats_per_token"], rel=1e-6)


def test_score_adds_up_to_what_evaluate_measures(call, either, folder):
    total = json.loads(call("score", either, folder / "my.txt", "--json")[1])["total_bits"]
    found = json.loads(call("evaluate", either, folder / "my.txt", "--json")[1])
    assert total == pytest.approx(found["nats_per_token"] * found["tokens"] / math.log(2), rel=1e-5)


def test_generate_takes_every_setting(call, either):
    wanted = ("generate", either, "--tokens", 9, "--seed", 3, "--prompt", "On", "--min-p", 0.01, "--top-k", 20)
    code, out, _ = call(*wanted, "--characters", "on ce", "--repetition-penalty", 1.1, "--stop", "xyz")
    assert code == 0
    assert len(out) == len("On") + 9 + len("\n")
    assert set(out[2:]) <= set("on ce\n")
    assert call(*wanted)[1] == call(*wanted)[1]


def test_inspect_shows_a_state_of_any_shape(call, memory, folder, tmp_path):
    (folder / "short.txt").write_text((folder / "my.txt").read_text()[:100])
    code, out, err = call("inspect", memory, folder / "short.txt", "--out", tmp_path / "page.html", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["perplexity"] > 1
    assert len(found["layers"]) == 1
    assert "memory" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    "words", [["quantize"], ["embed", "OUT"], ["evaluate", "--weights", "int8"], ["generate", "--weights", "bf16"],
              ["compress"]]
)  # fmt: skip
def test_what_needs_a_kernel_says_so_in_a_line(call, run, tmp_path, words):
    command, *more = words
    arguments = [run, *(tmp_path / "out" if word == "OUT" else word for word in more)]
    if command == "compress":
        arguments = [run.parent / "my.txt", "-m", run, "-o", tmp_path / "out"]
    code, _, err = call(command, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert "has no kernel for the cell 'leaky'" in err
    assert ("leave --weights" in err) == ("--weights" in words)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_another_run_is_refused(call, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    described = json.loads((folder / "best" / "model.json").read_text())
    (folder / "best" / "model.json").write_text(json.dumps(described | {"tokenizer": "0" * 32}))
    for command in ("generate", "evaluate"):
        code, _, err = call(command, folder)
        assert code == 1
        assert "tokenizer.json" in err
        assert "is not the one its model was trained with" in err


def test_an_unknown_setting_in_its_recipe_keeps_no_model_from_writing(call, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "recipe.toml").write_text("shape = 3\n" + (run / "recipe.toml").read_text())
    assert call("generate", folder, "--tokens", 3)[0] == 0
    code, _, err = call("evaluate", folder)
    assert (code, f"{folder}/recipe.toml: there is no setting shape" in err) == (2, True)


def test_a_run_says_what_to_import_and_imports_nothing_by_itself(call, run, leaky):
    forget_leaky()
    for command in (["evaluate"], ["generate"], ["score"], ["inspect"], ["train", "--resume", "--out"]):
        code, _, err = call(*command, run)
        assert (code, err.count("\n")) == (2, 1)
        assert f"the cell 'leaky' is not registered: {leaky} defines it; add --import {leaky}" in err
    assert "leaky" not in sys.modules
    assert call("generate", run, "--tokens", 3, "--import", leaky)[0] == 0


def test_a_file_that_registers_nothing_of_the_run_does_not_help(call, run, leaky, tmp_path):
    forget_leaky()
    (tmp_path / "other_cells.py").write_text("")
    code, _, err = call("evaluate", run, "--import", tmp_path / "other_cells.py")
    assert (code, err.count("\n")) == (2, 1)
    assert f"add --import {leaky}" in err
    sys.modules.pop("other_cells")
    assert call("evaluate", run, "--import", leaky)[0] == 0


def test_cells_lists_what_is_imported(call, leaky):
    code, out, _ = call("cells", "--import", FILE, "--import", leaky, "--json")
    assert code == 0
    listed = json.loads(out)["cells"]
    assert listed[matrix_memory.NAME]["engine"] == "reference"
    assert {"leaky", "lstm"} <= listed.keys()
    assert "leaky:Leaky" not in listed


@pytest.mark.slow
def test_two_processes_and_a_resume_give_the_figures_of_one(folder, memory, tmp_path):
    """Processes of their own, that know the cell by --import alone."""
    words = ["--out", str(tmp_path / "two"), "--import", str(FILE)]

    def run(*arguments):
        command = [sys.executable, "-P", "-m", "throughtime", "train", *arguments, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    begun = [str(folder / "my.txt"), "--processes", "2", "--cell", matrix_memory.NAME, *SMALL]
    done = run(*begun, "--set", "training.checkpoint_every=5")
    assert done.returncode == 0, done.stderr
    assert end_of(tmp_path / "two")["nats_per_token"] == pytest.approx(end_of(memory)["nats_per_token"], rel=1e-5)
    done = run("--resume", "--steps", "14")
    assert done.returncode == 0, done.stderr
    assert end_of(tmp_path / "two")["step"] == 14
