"""The experiments on text run, and write their pages. What they measure here says nothing."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "data": ["--effort", 0.01],
    "order": ["--steps", 2, "--hidden", 4],
    "truncation": ["--epochs", 1, "--bytes", 2000, "--hidden", 4, "--draws", 2],
}


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A script as a module, whose pages and runs go elsewhere, beside a text of a few thousand bytes."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    common = importlib.import_module("common")
    for name, value in (("PAGES", tmp_path), ("RUNS", tmp_path / "runs"), ("VALID", 300), ("TEST", 400)):
        monkeypatch.setattr(common, name, value)
    text = tmp_path / "data" / "text" / "shakespeare.txt"
    text.parent.mkdir(parents=True)
    text.write_text("In the beginning was the word, and the word was long.\n" * 300)

    def load(name):
        shutil.copy(ROOT / "docs" / "experiments" / f"{name}.md", tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--data", str(tmp_path / "data"), "--seeds", "2"])
        sys.argv += map(str, TINY[name])
        return importlib.import_module(name)

    return load


def block(page: Path) -> str:
    return page.read_text("utf-8").partition("begin -->")[2].partition("<!--")[0]


def test_data(experiment, tmp_path, monkeypatch):
    data = experiment("data")
    for name, value in (("STEPS", {700: 1}), ("RATE_AT", 700), ("RATES", (1e-3,)), ("DROPOUTS", (0.2,))):
        monkeypatch.setattr(data, name, value)
    for name, value in (("UPDATES", 1), ("ROUNDS", 2)):
        monkeypatch.setattr(f"costs.{name}", value)
    data.main()
    assert "\n| 700 | " in block(tmp_path / "data.md")
    assert (tmp_path / "data.svg").exists()


def test_order(experiment, tmp_path, monkeypatch):
    order = experiment("order")
    monkeypatch.setattr(order, "PARTITIONS", ("random",))
    order.main()
    assert "\n| random | " in block(tmp_path / "order.md")


def test_truncation(experiment, tmp_path, monkeypatch):
    truncation = experiment("truncation")
    ways = {way: truncation.WAYS[way] for way in ("fixed", "variable, geometric", "none")}
    for name, value in (("WAYS", ways), ("WINDOWS", (8, 16)), ("MEASURED", 32 * 32 + 16)):
        monkeypatch.setattr(truncation, name, value)
    monkeypatch.setattr("estimates.WINDOWS", (8, 16))
    truncation.main()
    found = block(tmp_path / "truncation.md")
    assert all(found.count(f"\n| {way} | ") == 2 for way in ways)
    assert "\n| none | 1.000 ± 0.000 | 0.000 ± 0.000 | 0.000 ± 0.000 | 0.000 ± 0.000 |" in found


def test_spreads_tell_order_from_initialisation(experiment):
    """Of normal draws with known deviations, many of them."""
    order = experiment("order")
    generator = np.random.default_rng(0)
    orders, initialisations = generator.normal(0, 0.3, 300), generator.normal(0, 0.4, 300)
    found = order.spreads(initialisations[:, None] + orders + generator.normal(0, 1.2, (300, 300)))
    wanted = {"order itself": 0.3, "initialisation itself": 0.4, "pairing": 1.2}
    wanted |= {"order": np.hypot(0.3, 1.2), "initialisation": np.hypot(0.4, 1.2)}
    assert found == pytest.approx(wanted, rel=0.1)
