"""The benchmarks run, and count rightly. What they measure here says nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from throughtime import engine

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
GATES = {"gru": 3, "layernorm-lstm": 4, "mingru": 2}

needs_engine = pytest.mark.skipif(engine.level() is None, reason="there are no native kernels here")


def run(script: str, *arguments: object) -> None:
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_engine
def test_layers(tmp_path):
    run("layer.py", "--quick", "--cells", *GATES, "--batches", 3, "--out", tmp_path)
    found = json.loads((tmp_path / "layer.json").read_text())
    assert [(point["cell"], point["kind"]) for point in found["points"]] == [
        (cell, kind) for cell in GATES for kind in ("forward", "both", "variants")
    ]
    for point in found["points"]:
        cell, batch, size = point["cell"], point["batch"], point["size"]
        inputs = size + (0 if cell == "mingru" else size)
        forward = 2 * found["steps"] * batch * GATES[cell] * size * inputs
        ours = point["contenders"]["throughtime float32"]
        assert ours["flops"] == forward * (1 if point["kind"] == "forward" else 3)
        assert all(facts["microseconds"] and min(facts["microseconds"]) > 0 for facts in point["contenders"].values())
        if point["kind"] != "variants":
            assert point["contenders"]["PyTorch float32"]["apart"] < 1e-3
    page = (tmp_path / "layer.md").read_text()
    for cell in GATES:
        assert f"\n## {cell}\n" in page
        assert f"\n| {cell} bf16 | " in page
    assert "<svg" in (tmp_path / "layer.svg").read_text()


@needs_engine
def test_padded_batches(tmp_path):
    sizes = ("--sizes", 8, "--batch", 3, "--steps", 5)
    run("lengths.py", *sizes, "--rounds", 1, "--seconds", 0.01, "--threads", 1, "--out", tmp_path)
    found = json.loads((tmp_path / "lengths.json").read_text())
    assert [layer["cell"] for layer in found["layers"]] == ["gru", "lstm"]
    for layer in found["layers"]:
        assert layer["apart"] < 1e-5
        assert all(min(each) > 0 for each in layer["microseconds_per_token"].values())
    page = (tmp_path / "lengths.md").read_text()
    assert "\n| gru, 8 units | " in page
    assert f"{sum(found['lengths'])} tokens" in page


@needs_engine
@pytest.mark.slow
def test_trainings(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("In the beginning was the word, and the word was long.\n" * 150)
    run("train.py", "--quick", "--text", text, "--target", 10, "--out", tmp_path)
    found = json.loads((tmp_path / "train.json").read_text())
    ours, pytorch = (found["turns"][name] for name in ("throughtime float32", "PyTorch"))
    assert [turn["tokens"] for turn in ours] == [turn["tokens"] for turn in pytorch]
    for one, other in zip(ours, pytorch, strict=True):
        assert one["nats"] == pytest.approx(other["nats"], rel=0.01)
    page = (tmp_path / "train.md").read_text()
    assert all(f"\n| {name} | " in page for name in found["turns"])


@needs_engine
def test_a_model_in_use(tmp_path):
    run("stream.py", "--quick", "--no-peers", "--out", tmp_path)
    found = json.loads((tmp_path / "stream.json").read_text())
    assert [step["cell"] for step in found["steps"]] == ["gru", "lstm"]
    for seconds in (found["text"], found["streams"], *(step["seconds"] for step in found["steps"])):
        assert {"PyTorch", "throughtime float32"} <= {name.split(",")[0] for name in seconds}
        assert all(min(each) > 0 for each in seconds.values())
    assert all(start["megabytes"] > 10 for start in found["start"])
    page = (tmp_path / "stream.md").read_text()
    assert "\n| gru bf16 beside PyTorch | " in page
    assert "\n| throughtime float32, 64 | " in page


@needs_engine
def test_compression(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("In the beginning was the word, and the word was long.\n" * 150)
    run("compress.py", text, "--hidden", 8, "--minutes", 0.02, "--out", tmp_path)
    figures = json.loads((tmp_path / "compress.json").read_text())["texts"]["text"]
    assert figures["bytes"] == len(text.read_bytes()) - int(len(text.read_bytes()) * 0.9)
    # A second of training may have taught ours nothing, on a machine that has other work.
    others = [facts for name, facts in figures["by"].items() if not name.startswith("throughtime")]
    assert len(others) < len(figures["by"])
    assert all(0 < facts["compressed"] < figures["bytes"] for facts in others)
    assert "\n| throughtime float32 | " in (tmp_path / "compress.md").read_text()


@pytest.mark.slow
def test_processes(tmp_path):
    run("processes.py", "--sizes", 4, "--steps", 12, "--rounds", 1, "--out", tmp_path)
    found = json.loads((tmp_path / "processes.json").read_text())["sizes"]["4"]
    assert all(min(paces) > 0 for paces in found["tokens_per_second"].values())
    assert found["step_milliseconds"]
    page = (tmp_path / "processes.md").read_text()
    assert page.count("\n| 4 | ") == 2


@pytest.mark.slow
def test_shards(tmp_path):
    run("shards.py", "--hidden", 8, "--layers", 1, "--rounds", 1, "--out", tmp_path)
    found = json.loads((tmp_path / "shards.json").read_text())
    assert all(min(found[name][kind]) > 0 for name in ("tokens_per_second", "resident_bytes") for kind in found[name])
    page = (tmp_path / "shards.md").read_text()
    assert "\n| whole | " in page
    assert "\n| in shards | " in page


def test_a_child_that_ends_says_why(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from pipe import Child

    talk = "from pipe import Parent\nparent = Parent()\nprint('noise')\nparent.answer(**parent.next())\nparent.why"
    child = Child([sys.executable, "-c", talk])
    assert child.ask(one=1) == {"one": 1}
    with pytest.raises(RuntimeError, match="no attribute 'why'"):
        child.ask(two=2)
    child.close()
