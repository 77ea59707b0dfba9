"""Runs of format 1, made by version 0.1.0, load, evaluate, generate and resume with the figures they gave then.

Each was cut off at step 30 of 40, ten steps after its checkpoint; `figures.json` has what the version that made them
measured, and what it came to without the cut.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "format1"
FIGURES = json.loads((FOLDER / "figures.json").read_text("utf-8"))

every_run = pytest.mark.parametrize("name", FIGURES)


@every_run
def test_a_run_of_format_1_is_evaluated_to_the_same_figure(call, name):
    code, out, err = call("evaluate", FOLDER / name, FOLDER / "text.txt", "--json")
    assert code == 0, err
    assert json.loads(out)["nats_per_token"] == pytest.approx(FIGURES[name]["evaluated"], rel=1e-5)


@every_run
def test_a_run_of_format_1_generates_the_same_text(call, name):
    code, out, err = call("generate", FOLDER / name, "--tokens", 20, "--temperature", 0)
    assert code == 0, err
    assert out == FIGURES[name]["text"]


@every_run
def test_a_run_of_format_1_is_resumed_to_the_same_losses(call, name, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(FOLDER / name, folder)
    code, _, err = call("train", FOLDER / "text.txt", "--out", folder, "--resume")
    assert code == 0, err
    lines = (folder / "journal.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    losses = [entry["nats_per_token"] for entry in entries if entry["event"] == "train"]
    assert losses[-5:] == pytest.approx(FIGURES[name]["losses"], rel=1e-4)
    assert entries[-1]["nats_per_token"] == pytest.approx(FIGURES[name]["test"], rel=1e-4)
