"""The experiments on small networks run, their tasks are what they say. What is measured here says nothing."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from throughtime.cells import create
from throughtime.probe.jacobian import recurrent_radii

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A script as a module, whose pages and runs go elsewhere."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    common = importlib.import_module("common")
    monkeypatch.setattr(common, "PAGES", tmp_path)
    monkeypatch.setattr(common, "RUNS", tmp_path / "runs")

    def load(name, *arguments, **values):
        shutil.copy(ROOT / "docs" / "experiments" / f"{name}.md", tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--seeds", "2", *map(str, arguments)])
        module = importlib.import_module(name)
        for constant, value in values.items():
            monkeypatch.setattr(module, constant, value)
        return module

    return load


@pytest.fixture
def sequences(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("sequences")


def drawn(task, *lengths):
    """The tasks' lanes one by one: what is read, what is asked, and where."""
    batch = task.draw(np.array(lengths), np.random.default_rng(0))
    return [
        (batch.x_TBD[:, lane].numpy(), batch.targets_TB[:, lane].numpy(), batch.scored_TB[:, lane].numpy())
        for lane in range(len(lengths))
    ]


def test_counting(sequences):
    (x_TD, targets_T, scored_T), _ = drawn(sequences.TASKS["a^n b^n"], 2, 3)
    assert x_TD.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [0, 0]]
    assert scored_T.tolist() == [False, False, True, True, False, False]
    assert targets_T[scored_T].tolist() == [0, 1]


def test_brackets(sequences):
    for x_TD, targets_T, scored_T in drawn(sequences.TASKS["Dyck-2"], *[30] * 50, 7):
        opened, closings = [], []
        for step, symbol in enumerate(x_TD.argmax(1).tolist()):
            if symbol < 2:
                opened.append(symbol)
            else:
                assert opened.pop() == symbol - 2
                closings.append(step)
            assert targets_T[step] == (opened[-1] + 1 if opened else 0)
        assert scored_T.nonzero()[0].tolist() == [at for at in closings if at < 30][: scored_T.sum()]
    assert not scored_T[7:].any()


def test_parity(sequences):
    for length, (x_TD, targets_T, scored_T) in zip((9, 4), drawn(sequences.TASKS["parity"], 9, 4), strict=True):
        assert [sum(x_TD[: step + 1, 0]) % 2 for step in range(9)] == targets_T.tolist()
        assert scored_T.nonzero()[0].tolist() == list(range(length))


def test_addition(sequences):
    for x_TD, targets_T, _ in drawn(sequences.TASKS["addition"], *[12] * 20):
        one, other, total = (sum(int(bit) << place for place, bit in enumerate(bits)) for bits in (*x_TD.T, targets_T))
        assert (one + other) % 2**12 == total


def test_copying(sequences):
    for delay, (x_TD, targets_T, scored_T) in zip((1, 6), drawn(sequences.TASKS["copy"], 1, 6), strict=True):
        assert x_TD.sum(1).nonzero()[0].tolist() == [*range(5), 5 + delay]
        assert scored_T.nonzero()[0].tolist() == list(range(5 + delay, 10 + delay))
        assert targets_T[scored_T].tolist() == x_TD[:5].argmax(1).tolist()


def test_adding(sequences):
    for length, (x_TD, targets_T, scored_T) in zip((2, 9), drawn(sequences.TASKS["adding"], 2, 9), strict=True):
        (first, second) = x_TD[:, 1].nonzero()[0]
        assert first < length // 2 <= second < length
        assert scored_T.nonzero()[0].tolist() == [length - 1]
        assert targets_T[length - 1] == pytest.approx(x_TD[first, 0] + x_TD[second, 0])


def test_tasks(experiment, tmp_path):
    tasks = experiment("tasks", "--steps", 2, CELLS={"mingru": (4, 2)}, TESTED=20)
    tasks.main()
    page = (tmp_path / "tasks.md").read_text("utf-8")
    assert page.count("\n| mingru | ") == len(tasks.TASKS)
    assert (tmp_path / "tasks.svg").exists()


def test_gradients(experiment, tmp_path, monkeypatch):
    text = tmp_path / "text" / "shakespeare.txt"
    text.parent.mkdir()
    text.write_text("In the beginning was the word, and the word was long.\n" * 20)
    tiny = {"CELLS": ("elman", "lstm"), "FAR": 3, "DELAYS": (2,)}
    gradients = experiment("gradients", "--data", tmp_path, "--steps", 2, "--remedysteps", 3, **tiny)
    contenders = {name: gradients.recall.CONTENDERS[name] for name in ("elman, radius 0.8", "lstm, gate's bias 4")}
    monkeypatch.setattr("recall.CONTENDERS", contenders)
    monkeypatch.setattr("flow.LAGS", 5)
    gradients.main()
    page = (tmp_path / "gradients.md").read_text("utf-8")
    assert all(page.count(f"\n| {name} | ") == 2 for name in contenders)
    assert page.count("\n| lstm | ") == len(gradients.RADII)


@pytest.mark.parametrize("name", ["elman", "gru"])
def test_every_block_has_the_radius(experiment, name):
    cell = create(name, 3, 7, generator=torch.Generator().manual_seed(0))
    experiment("gradients").flow.scale(cell, 1.25)
    assert list(recurrent_radii(cell).values()) == pytest.approx([1.25] * (1 if name == "elman" else 3))


def test_dynamics(experiment, tmp_path, monkeypatch):
    tiny = {"CELLS": ("elman",), "SIZES": (16,), "GAINS": (0.5, 3.0)}
    dynamics = experiment("dynamics", "--steps", 2, "--alone", 100, "--networks", 2, **tiny)
    for constant, value in (("HIDDEN", 4), ("LANES", 4), ("ALONE", 30), ("SETTLING", 2)):
        monkeypatch.setattr(f"behaviour.{constant}", value)
    dynamics.main()
    page = (tmp_path / "dynamics.md").read_text("utf-8")
    assert page.count("\n| elman | ") == 2
    assert "(0/4) | point attractor 4 |" in page
    assert all((tmp_path / f"dynamics{part}.svg").exists() for part in ("", "-memory", "-oscillation"))
