"""A sample of each fault; `make faults` tries them all and writes docs/reliability.md."""

from __future__ import annotations

from random import Random

import pytest

from faults.table import faults


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
