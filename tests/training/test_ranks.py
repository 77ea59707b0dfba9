"""Several processes: the same numbers as one, whoever dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers import workers_of
from throughtime import recipe as recipes
from throughtime.errors import SettingError
from throughtime.tasks.registry import make_task
from throughtime.training.checkpoint import Checkpoints
from throughtime.training.learner import Learner
from throughtime.training.ranks import Ranks

TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs.\n" * 200
STEPS, FEW = 200, 40
SMALL = {
    "streams": {"lanes": 5, "window": 8},
    "model": {"hidden_size": 12, "cell": "gru"},
    "training": {
        "steps": FEW,
        "validations": 2,
        "sample_tokens": 5,
        "learning_rate": 0.005,
        "threads": 1,
        "checkpoint_every": 15,
        "checkpoint_keep": 99,
    },
}
KINDS = {
    "sequential": {"training": {"steps": STEPS}},
    "random": {"streams": {"partition": "random"}, "training": {"steps": STEPS}},
    "cuts": {"gradient": {"truncation": "random", "cut": 0.05}},
    "documents": {"text": {"separator": "jugs"}, "gradient": {"clip_quantile": 0.8}},
    "shards": {
        "training": {"shard": True, "steps": STEPS, "signs_every": 20, "learning_rate": 0.001},
        "model": {"cell": "lstm", "layers": 2, "tied": True},
        "gradient": {"clip_norm": 0.2},
    },
}
GONE_ON = {
    "dropped": {"model": {"dropout": 0.3}},
    "dropped-shards": {
        "training": {"shard": True},
        "model": {"dropout": 0.3, "weight_drop": 0.2},
        "gradient": {"clip_value": 0.02, "clip_quantile": 0.8},
    },
}
"""Those that two processes go on with after they were cut."""
ALONE = ("sequential", "shards")
"""Kinds of which one process goes on with what two began."""
JOBS = """
import json, sys, throughtime

def held(recipe):
    "Of each parameter the rows of its weights, its gradient and its means that this process holds."
    from throughtime.tasks.registry import make_task
    from throughtime.training.learner import Learner
    from throughtime.training.ranks import this_rank
    recipe = throughtime.recipe.build(recipe)
    learner = Learner(recipe, make_task(recipe).read(), this_rank())
    optimizer, found = learner.optimizer, {}
    update = optimizer.step

    def look(rate):
        update(rate)
        moments = optimizer.state_dict()
        for index, parameter in enumerate(optimizer.parameters()):
            arrays = parameter, parameter.grad, moments[f"{index}.exp_avg"], moments[f"{index}.exp_avg_sq"]
            [name] = [name for name, other in learner.model.named_parameters() if other is parameter]
            found[name] = [len(array.to_local()) for array in arrays]

    optimizer.step = look
    learner.step(0.5, [])
    return found

for job in json.loads(sys.argv[1]):
    if "resume" in job:
        throughtime.resume(job["resume"])
    elif "held" in job:
        print(json.dumps(held(job["held"])))
    else:
        throughtime.train(job["recipe"], job["out"])
"""
"""What each process does, one after the other."""


def run(processes, jobs):
    """Do jobs in so many processes at once, as torchrun would start them: what each prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", JOBS, json.dumps(jobs)],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        told = [child.communicate(timeout=240) for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0] * processes, [err for _, err in told]
    return [out for out, _ in told]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return str(path)


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
    """Each kind of training by one process and by two; and two that go on from a checkpoint, by one and by two."""
    base = tmp_path_factory.mktemp("runs")

    def job(changes, name):
        recipe = recipes.merge({**SMALL, "text": {"sources": [text]}}, changes)
        return {"recipe": recipe, "out": str(base / name)}

    run(1, [job(changes, f"{kind}-1") for kind, changes in KINDS.items()])
    run(
        2,
        [job(changes, f"{kind}-2") for kind, changes in KINDS.items()] + [job(GONE_ON[name], name) for name in GONE_ON],
    )
    for name in GONE_ON:
        cut(base / name, base / f"{name}-again", 15)
    for kind in ALONE:
        cut(base / f"{kind}-2", base / f"{kind}-alone", 165)
    run(2, [{"resume": str(base / f"{name}-again")} for name in GONE_ON])
    run(1, [{"resume": str(base / f"{kind}-alone")} for kind in ALONE])
    return base


def cut(folder, copy, step):
    """A run as it was after a step."""
    shutil.copytree(folder, copy)
    for checkpoint in (copy / "checkpoints").glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    (copy / "card.md").unlink()


def entries(folder, event):
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_come_to_the_same_as_one(trained, kind):
    one, two = (trained / f"{kind}-{processes}" for processes in (1, 2))
    for name in ("nats_per_token", "gradient_norm"):
        found, wanted = ([entry[name] for entry in entries(folder, "train")] for folder in (two, one))
        assert found == pytest.approx(wanted, rel=1e-5)
    assert [e["tokens"] for e in entries(two, "train")] == [e["tokens"] for e in entries(one, "train")]
    for found, wanted in zip(entries(two, "valid"), entries(one, "valid"), strict=True):
        assert found["valid"] == pytest.approx(wanted["valid"], rel=1e-6)
    assert entries(two, "end")[0]["nats_per_token"] == pytest.approx(entries(one, "end")[0]["nats_per_token"], rel=1e-6)
    assert entries(two, "begin")[0]["processes"] == 2
    position = [Checkpoints(folder / "checkpoints").newest().checkpoint.arrays["position"] for folder in (one, two)]
    for name, array in position[0].items():
        torch.testing.assert_close(position[1][name], array, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", GONE_ON)
def test_as_many_processes_go_on_to_the_last_bit(trained, name):
    found, wanted = (
        Checkpoints(trained / folder / "checkpoints").newest().checkpoint.arrays for folder in (f"{name}-again", name)
    )
    assert len(wanted["noise"]) == 2
    for part, arrays in wanted.items():
        assert all(torch.equal(found[part][name], array) for name, array in arrays.items()), part


@pytest.mark.parametrize("kind", ALONE)
def test_another_number_of_processes_goes_on_in_the_same_text(trained, kind):
    found, wanted = (entries(trained / name, "train") for name in (f"{kind}-alone", f"{kind}-1"))
    for name in ("tokens", "nats_per_token", "gradient_norm"):
        assert [e[name] for e in found] == pytest.approx([e[name] for e in wanted], rel=1e-5)


def test_shards_come_to_the_same_checkpoint_and_signs_as_a_model_in_one_piece(trained):
    one, two = (Checkpoints(trained / f"shards-{count}" / "checkpoints").newest().checkpoint for count in (1, 2))
    for part in ("model", "optimiser", "best"):
        assert one.arrays[part].keys() == two.arrays[part].keys()
        for name, array in one.arrays[part].items():
            torch.testing.assert_close(two.arrays[part][name], array, rtol=1e-3, atol=1e-4)
    found, wanted = (entries(trained / f"shards-{count}", "signs") for count in (2, 1))
    assert len(found) == len(wanted) == STEPS // 20
    norms = [[layer["gradient_norm"] for entry in signs for layer in entry["layers"]] for signs in (found, wanted)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_of_a_model_in_shards_each_process_holds_its_rows(text):
    held = run(2, [{"held": recipes.merge({**SMALL, "text": {"sources": [text]}}, KINDS["shards"])}])
    rows = [json.loads(line) for line in held]
    assert rows[0].keys() == rows[1].keys()
    for first, second in zip(rows[0].values(), rows[1].values(), strict=True):
        assert len(first) == 4  # weights, gradient, two means
        assert all(0 <= a - b <= 1 for a, b in zip(first, second, strict=True))


def test_shards_cannot_go_back_through_a_whole_epoch():
    with pytest.raises(SettingError, match=r"training\.shard needs"):
        recipes.build({"training": {"shard": True}, "gradient": {"truncation": "none"}})


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds a process by its environment")
def test_a_process_that_dies_is_started_again_and_the_training_goes_on(text, trained, tmp_path):
    """By the command line and torchrun."""
    out = tmp_path / "run"
    (tmp_path / "mine.toml").write_text(recipes.to_toml(recipes.build({**SMALL, "text": {"sources": [text]}})))
    words = [
        "train",
        "--recipe",
        str(tmp_path / "mine.toml"),
        "--steps",
        str(STEPS),
        "--out",
        str(out),
        "--processes=2",
    ]
    with subprocess.Popen([sys.executable, "-m", "throughtime", *words], stderr=subprocess.PIPE, text=True) as torchrun:
        while not (out / "checkpoints" / "last").exists() and torchrun.poll() is None:
            time.sleep(0.01)
        os.kill(workers_of(out)[1], signal.SIGKILL)
        _, err = torchrun.communicate(timeout=240)
    assert torchrun.returncode == 0, err
    assert "going on after step" in err
    found, wanted = (entries(folder, "train") for folder in (out, trained / "sequential-1"))
    assert [e["nats_per_token"] for e in found] == pytest.approx([e["nats_per_token"] for e in wanted], rel=1e-5)


def test_lanes_are_dealt_to_neighbours_and_none_is_left_out():
    for lanes, count in ((5, 2), (7, 3), (4, 4), (9, 1)):
        dealt = [list(Ranks(rank, count).own(lanes)) for rank in range(count)]
        assert [lane for own in dealt for lane in own] == list(range(lanes))
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_more_processes_than_lanes_are_refused(text):
    recipe = recipes.build({**SMALL, "text": {"sources": [text]}})
    with pytest.raises(SettingError, match=r"streams.lanes must be at least the number of processes, 6, got 5"):
        Learner(recipe, make_task(recipe).read(), Ranks(0, 6))
