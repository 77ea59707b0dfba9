"""A sample of each fault; `make faults` tries them all and writes docs/reliability.md."""

from __future__ import annotations

import re
import shutil
from random import Random

import pytest

from faults.jobs import FILES
from faults.table import faults
from faults.trials import nothing_went_past
from faults.watching import recorded
from throughtime.cli.main import main
from throughtime.training.train import train


@pytest.fixture(scope="module")
def every_fault(tmp_path_factory):
    return {fault.name: list(fault.trials) for fault in faults(tmp_path_factory.mktemp("recordings"), thorough=False)}


SAMPLES = {
    "SIGKILL while a checkpoint is written": 50,
    "SIGKILL while a model or an output is saved": 25,
    "SIGKILL while a text is tokenised": 25,
    "the power goes while a checkpoint is written": 80,
    "the power goes while a model or an output is saved": 40,
    "the power goes while a text is tokenised": 40,
    "SIGKILL, the next write, and then the power goes": 50,
    "the disk is full (ENOSPC) at an operation": 30,
    "the disk fails (EIO) at an operation": 30,
    "a file may not grow so large": 9,
    "the folder may not be written": 1,
    "a file of the newest checkpoint is damaged": 42,
    "`last` is damaged": 7,
    "the clock goes back": 2,
    "a second training in the folder": 2,
    "SIGKILL of a training, twice": 4,
}


def test_every_fault_is_sampled(every_fault):
    assert every_fault.keys() == SAMPLES.keys()


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_is_lost(name, every_fault, tmp_path):
    trials = every_fault[name]
    for number, trial in enumerate(Random(0).sample(trials, min(SAMPLES[name], len(trials)))):
        try:
            trial.run(tmp_path / str(number))
        except AssertionError as error:
            raise AssertionError(trial.name) from error


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text("abc abd abe\n" * 80)
    tree = {"text": {"sources": [str(folder / "text.txt")], "tokens": "byte"}, "streams": {"lanes": 2, "window": 8},
            "model": {"hidden_size": 6},
            "training": {"steps": 4, "validations": 2, "sample_tokens": 5, "threads": 1}}  # fmt: skip
    return train(tree, folder / "run").folder


def test_the_checkpoints_of_the_trials_have_the_files_of_a_real_one(trained):
    (checkpoint,) = (trained / "checkpoints").glob("step-*")
    assert sorted(path.name for path in checkpoint.iterdir()) == FILES


COMMANDS = {
    "embed": "embed RUN OUT/model",
    "compress": "compress TEXT -m RUN -o OUT/my.tt",
    "quantize": "quantize RUN TEXT --out OUT/small",
    "inspect": "inspect RUN TEXT --out OUT/report.html",
    "resume": "train --resume --out OUT/run --steps 6",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_that_a_command_writes_goes_past_the_harness(command, trained, tmp_path):
    before, out = tmp_path / "before", tmp_path / "out"
    before.mkdir()
    if command == "resume":
        shutil.copytree(trained, before / "run")
    shutil.copytree(before, out)
    named = {"RUN": trained, "TEXT": trained.parent / "text.txt", "OUT": out}
    words = [re.sub("RUN|TEXT|OUT", lambda word: str(named[word[0]]), word) for word in COMMANDS[command].split()]

    def job():
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 0

    operations = recorded(out, job)
    assert any(operation.kind == "write" for operation in operations)
    nothing_went_past(before, operations, out)
