"""The command line as a user meets it: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import throughtime
from throughtime import recipe as recipes
from throughtime.cli.main import COMMANDS, main

from .conftest import SMALL


@pytest.fixture(scope="module")
def run(text):
    folder = text.parent / "run"
    with pytest.raises(SystemExit) as left:
        main(["train", str(text), "--out", str(folder), *SMALL])
    assert left.value.code == 0
    return folder


def test_train_reports_on_standard_error_and_sums_up_on_standard_output(call, text, tmp_path):
    code, out, err = call("train", text, "--out", tmp_path / "run", *SMALL)
    assert code == 0
    assert "text: " in err
    assert "step 3: valid" in err
    assert "6 steps in" in out
    assert "test split" in out
    assert "bits per byte" in out
    assert f"curve:  {tmp_path / 'run' / 'curve.svg'}" in out
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        (["--tokens", "bpe"], "text.tokens", "bpe"),
        (["--cell", "gru"], "model.cell", "gru"),
        (["--hidden", "9"], "model.hidden_size", 9),
        (["--hidden", "9,12"], "model.hidden_size", (9, 12)),
        (["--layers", "3"], "model.layers", 3),
        (["--minutes", "0.5"], "training.minutes", 0.5),
        (["--epochs", "3"], "training.epochs", 3.0),
        (["--steps", "7"], "training.steps", 7),
        (["--valid", "v.txt", "--valid", "w.txt"], "text.valid", ("v.txt", "w.txt")),
        (["--test", "t.txt"], "text.test", ("t.txt",)),
        (["--set", "gradient.clip_norm=0.25"], "gradient.clip_norm", 0.25),
        (["--recipe", "demo", "--set", "streams.window=5"], "streams.window", 5),
        (["my.txt", "other"], "text.sources", ("my.txt", "other")),
    ],
)
def test_options_are_settings(call, arguments, path, value):
    code, out, _ = call("train", *arguments, "--print-recipe")
    assert code == 0
    built = recipes.build(recipes.tomllib.loads(out))
    section, name = path.split(".")
    assert getattr(getattr(built, section), name) == value


def test_a_printed_recipe_can_be_fed_back(call, tmp_path):
    _, first, _ = call("train", "x.txt", "--recipe", "shakespeare-char", "--cell", "gru", "--print-recipe")
    (tmp_path / "mine.toml").write_text(first)
    _, second, _ = call("train", "--recipe", tmp_path / "mine.toml", "--print-recipe")
    assert first == second


def test_a_dry_run_says_what_would_happen_and_leaves_nothing(call, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("train", text, "--dry-run", *SMALL)
    assert code == 0
    assert "model: 1 x lstm of 8 units" in out
    assert "the budget is 6 steps" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["trian"], 2, "No such command 'trian'"),
        (["train"], 2, "no text is named"),
        (["train", "x", "--tokens", "letters"], 2, "'letters' is not one of 'byte', 'char', 'word', 'bpe'"),
        (["train", "x", "--steps", "many"], 2, "'many' is not a valid integer"),
        (["train", "x", "--steps", "2", "--minutes", "3"], 2, "one of steps, epochs or minutes"),
        (["train", "x", "--set", "model.width=3"], 2, "there is no setting model.width"),
        (["train", "x", "--recipe", "nope"], 2, "there is no recipe 'nope'"),
        (["train", "builtin", "--cell", "rnn"], 2, "there is no cell 'rnn'"),
        (["train", "builtin", "--set", "model.cell_options={bias=3}"], 2, "has no option 'bias'"),
        (["train", "--resume"], 2, "--resume trains, and needs --out"),
        (["train", "--resume", "--out", "no-such-run"], 1, "there is no run in no-such-run to go on with"),
        (["train", "no-such-file.txt"], 1, "there is no file no-such-file.txt"),
        (["evaluate"], 2, "Missing argument 'RUN'"),
        (["evaluate", "no-such-run"], 1, "there is no run folder no-such-run"),
        (["generate", "no-such-run"], 1, "there is no run folder no-such-run"),
        (["score", "no-such-run"], 1, "there is no run folder no-such-run"),
        (["inspect", "no-such-run"], 1, "there is no run folder no-such-run"),
    ],
)
def test_what_is_wrong_is_one_line_and_no_traceback(call, arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, out, err = call(*arguments)
    assert found == code
    assert message in err
    assert err.startswith("throughtime: ")
    assert err.count("\n") == 1
    assert not out


def test_a_traceback_is_there_for_who_asks(call):
    for arguments in (["--traceback", "train", "no-such"], ["train", "no-such", "--traceback"]):
        code, _, err = call(*arguments)
        assert code == 1
        assert "Traceback" in err
        assert err.splitlines()[-1].startswith("throughtime: there is no file")


def test_what_nobody_foresaw_is_still_one_line(call, monkeypatch):
    from throughtime import folder

    monkeypatch.setattr(folder, "find", lambda _: 1 / 0)
    code, _, err = call("evaluate", "x")
    assert code == 1
    assert err.startswith("throughtime: unforeseen ZeroDivisionError")
    assert err.count("\n") == 1


def test_evaluate_gives_the_same_figures_for_any_lanes(call, run, text):
    found = [json.loads(call("evaluate", run, text, "--lanes", lanes, "--json")[1]) for lanes in (1, 7, 64)]
    for figures in found:
        assert figures["tokens"] == len(text.read_text()) - 1
        assert figures["bytes"] == len(text.read_bytes()) - 1
        assert figures["nats_per_token"] == pytest.approx(found[0]["nats_per_token"], rel=1e-6)
        assert figures["perplexity"] == pytest.approx(math.exp(figures["nats_per_token"]))
        bits = figures["nats_per_token"] * figures["tokens"] / math.log(2)
        assert figures["bits_per_char"] == pytest.approx(bits / figures["tokens"])
        assert figures["bits_per_byte"] == pytest.approx(bits / figures["bytes"])


def test_evaluate_measures_what_was_held_out(call, run):
    code, out, err = call("evaluate", run, "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    end = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()][-1]
    assert figures["text"] == "test"
    assert figures["nats_per_token"] == pytest.approx(end["nats_per_token"], rel=1e-6)
    code, out, _ = call("evaluate", run)
    assert f"perplexity      {figures['perplexity']:.6f} per char" in out


def test_generate_goes_on_from_the_prompt(call, run):
    first, second = (call("generate", run, "--prompt", "Once", "--tokens", 30, "--seed", 4)[1] for _ in range(2))
    assert first == second
    assert first.startswith("Once")
    assert len(first) == 4 + 30 + 1
    assert call("generate", run, "--prompt", "Once", "--tokens", 3, "--temperature", 0, "--top-k", 2)[0] == 0
    code, _, err = call("generate", run, "--top-p", "1.5")
    assert (code, err) == (2, "throughtime: top_p must be above 0 and at most 1, got 1.5\n")
    code, out, _ = call("generate", run, "--tokens", 50, "--characters", "ab ", "--weights", "bf16", "--stop", "zzz")
    assert code == 0
    assert set(out) <= set("ab \n")


def test_score_adds_up_to_what_evaluate_says(call, run, text):
    scored = json.loads(call("score", run, text, "--json")[1])
    measured = json.loads(call("evaluate", run, text, "--json")[1])
    assert "".join(scored["tokens"]) == text.read_text()
    assert scored["bits"][0] is None
    assert sum(scored["bits"][1:]) == pytest.approx(measured["bits_per_byte"] * measured["bytes"], rel=1e-5)
    code, out, err = call("score", run, text)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["-", "'O'"]
    assert float(lines[1].split()[0]) == pytest.approx(scored["bits"][1], abs=1e-3)
    assert f"{scored['total_bits']:.3f} bits" in err


def test_inspect_writes_a_report_and_sums_it_up(call, run, text, tmp_path):
    code, out, err = call("inspect", run, text, "--out", tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert f"{len(text.read_text()):,} of {len(text.read_text()):,} tokens of char read" in out
    assert f"report: {tmp_path / 'page.html'}" in out
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>\n<!-- throughtime report -->")
    figures = json.loads(call("inspect", run, text, "--out", tmp_path / "page.html", "--json")[1])
    scored = json.loads(call("score", run, text, "--json")[1])
    assert figures["bits_per_token"] == pytest.approx(scored["total_bits"] / (len(scored["bits"]) - 1), rel=1e-4)
    (tmp_path / "page.html").write_text("mine")
    code, _, err = call("inspect", run, text, "--out", tmp_path / "page.html")
    assert (code, "give --force" in err) == (1, True)
    assert (tmp_path / "page.html").read_text() == "mine"


def test_inspect_leaves_out_damaged_lines_of_the_journal_and_says_so(call, run, text, tmp_path):
    copy, page = shutil.copytree(run, tmp_path / "run"), tmp_path / "page.html"
    journal = copy / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    code, _, err = call("inspect", copy, text, "--out", page)
    assert (code, err.startswith(f"1 damaged line of {journal} left out, the first: line ")) == (0, True)
    assert "1 damaged line of" in page.read_text("utf-8")
    assert "How it was trained" in page.read_text("utf-8")
    journal.unlink()
    os.mkfifo(journal)
    code, _, err = call("inspect", copy, text, "--out", page)
    assert (code, err) == (0, f"cannot read {journal}: it is a pipe, not a regular file\n")


def test_inspect_reads_what_was_held_out_and_writes_into_the_run(call, run):
    code, out, _ = call("inspect", run)
    assert code == 0
    assert out.startswith("test: ")
    assert (run / "report.html").exists()


def test_compress_and_back(call, run_of_bytes, run, text, tmp_path):
    content = text.read_bytes() + bytes(range(256))
    file = tmp_path / "my.txt"
    file.write_bytes(content)
    code, out, err = call("compress", file, "-m", run_of_bytes)
    assert (code, err) == (0, "")
    packed = tmp_path / "my.txt.tt"
    assert f"{packed}: {len(content):,} to {packed.stat().st_size:,} bytes" in out
    code, _, err = call("decompress", packed, "-m", run_of_bytes)
    assert (code, err) == (1, f"throughtime: {file} is there already; name another with --out, or give --force\n")
    assert call("decompress", packed, "-m", run_of_bytes, "-o", tmp_path / "back")[0] == 0
    assert (tmp_path / "back").read_bytes() == content
    damaged = bytearray(packed.read_bytes())
    damaged[-90] ^= 1
    packed.write_bytes(damaged)
    code, _, err = call("decompress", packed, "-m", run_of_bytes, "-o", tmp_path / "again")
    assert code == 1
    assert "the compressed file is damaged in block" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "my.txt", "my.txt.tt"]
    assert "a model of char tokens cannot make up every file" in call("compress", file, "-m", run, "--force")[2]
    assert "name the file to write with --out" in call("decompress", file, "-m", run)[2]


def test_quantize_writes_a_smaller_folder(call, run, text, tmp_path):
    code, out, err = call("quantize", run, text, "--out", tmp_path / "small")
    assert (code, err) == (0, "")
    before, after = (line.split() for line in out.splitlines()[:2])
    assert (before[0], after[0]) == ("float32", "int8")
    assert int(after[1].replace(",", "")) < int(before[1].replace(",", ""))
    assert float(after[4]) == pytest.approx(float(before[4]), rel=0.05)
    assert call("generate", tmp_path / "small", "--tokens", 5)[0] == 0
    assert throughtime.load(tmp_path / "small").recipe == throughtime.load(run).recipe
    assert "is there already" in call("quantize", run, text, "--out", tmp_path / "small")[2]


def test_a_text_from_standard_input(call, run, text, monkeypatch):
    with text.open("rb") as stream:
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": stream}))
        piped = json.loads(call("evaluate", run, "-", "--json")[1])
    named = json.loads(call("evaluate", run, text, "--json")[1])
    assert piped["nats_per_token"] == named["nats_per_token"]


def test_a_text_too_short_to_predict(call, run, tmp_path):
    (tmp_path / "one.txt").write_text("O")
    (tmp_path / "none.txt").write_text("")
    assert "with fewer than 2 there is nothing to predict" in call("evaluate", run, tmp_path / "one.txt")[2]
    assert "there is no text in" in call("evaluate", run, tmp_path / "none.txt")[2]


def test_cells_lists_equations_and_parameters(call):
    code, out, _ = call("cells", "--input", 3, "--hidden", 5, "--json")
    assert code == 0
    found = json.loads(out)["cells"]
    assert {name: facts["parameters"] for name, facts in found.items()} == {
        "elman": 5 * (3 + 5 + 1),
        "gru": 15 * (3 + 5 + 1) + 5,
        "layernorm-gru": 15 * (3 + 5 + 1) + 5 + 2 * 15,
        "layernorm-lstm": 20 * (3 + 5 + 1) + 2 * 20 + 2 * 5,
        "lstm": 20 * (3 + 5 + 1),
        "mingru": 10 * (3 + 1),
        "minlstm": 15 * (3 + 1),
    }
    _, out, _ = call("cells")
    for facts in found.values():
        assert facts["equations"].splitlines()[0] in out


def test_doctor_knows_this_machine(call):
    code, out, err = call("doctor", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["throughtime"] == throughtime.__version__
    assert report["threads"] == len(os.sched_getaffinity(0))
    assert report["packages"]["torch"].startswith("2.")
    assert report["missing"] == ["nothing"]
    assert "processor" in call("doctor")[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert out.startswith(f"Usage: throughtime {command} ")
    assert "--traceback" in out


@pytest.fixture
def training(text, tmp_path):
    """A training of five minutes in a process of its own, once it has begun; and its folder."""
    arguments = ["train", str(text), "--out", str(tmp_path / "run"), "--hidden", "8", "--minutes", "5",
                 "--set", "training.threads=1", "--set", "streams.lanes=2", "--set", "streams.window=8"]  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-m", "throughtime", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    journal = tmp_path / "run" / "journal.jsonl"
    for _ in range(600):
        if journal.exists() and journal.stat().st_size:
            break
        time.sleep(0.1)
    time.sleep(0.5)
    return child, tmp_path / "run"


def test_ctrl_c_in_a_terminal(training):
    """The first Ctrl-C ends the training and keeps the model; the exit code tells."""
    child, run = training
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 130
    assert "ending after this step with what has been learned" in err
    assert "(interrupted)" in out
    assert throughtime.load(run).model.vocabulary_size > 5


def test_a_training_that_is_terminated_says_how_to_go_on(training, call):
    child, run = training
    child.terminate()
    out, err = child.communicate(timeout=120)
    assert (child.returncode, out) == (143, "")
    assert f"`throughtime train --out {run} --resume` goes on" in err.splitlines()[-1]
    steps = json.loads(
        (run / "checkpoints" / (run / "checkpoints/last").read_text().strip() / "manifest.json").read_text()
    )
    code, out, err = call("train", "--out", run, "--resume", "--steps", steps["step"] + 1)
    assert code == 0
    assert f"going on after step {steps['step']:,}" in err


def test_a_run_goes_on_with_its_own_settings(call, text, tmp_path):
    run = tmp_path / "run"
    call("train", text, *SMALL, "--out", run)
    assert "has used up its budget after 6 steps" in call("train", "--out", run, "--resume")[2]
    code, out, err = call("train", "--out", run, "--resume", "--steps", "9")
    assert code == 0
    assert "going on after step 6" in err
    assert out.startswith("9 steps in ")
    assert "cannot go on with another model.hidden_size" in call("train", "--out", run, "--resume", "--hidden", "9")[2]


def test_a_reader_that_has_seen_enough_is_no_error(run):
    command = f"{sys.executable} -m throughtime score {run} {run.parent / 'my.txt'} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.split() == ["-", "'O'"]
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr
