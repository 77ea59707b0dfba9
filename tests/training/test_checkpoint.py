"""The store of checkpoints: what comes back, what is kept, what is said. Its faults are tried in tests/faults."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest
import torch

from throughtime import durable
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.training.checkpoint import Checkpoints


@pytest.fixture
def place(tmp_path):
    return tmp_path / "run" / "checkpoints"


def write(place, *steps, best=(), keep=2, every=0):
    checkpoints = Checkpoints(place, keep, every)
    for step in steps:
        checkpoints.write(step, {"weights": {"W": torch.full((2, 3), float(step))}}, {"step": step}, step in best)
    checkpoints.close()


def kept(place):
    return sorted(int(path.name.split("-")[1]) for path in place.glob("step-*"))


def test_arrays_of_every_type_and_shape_come_back(place):
    generator = torch.Generator().manual_seed(3)
    arrays = {
        "optimiser": {
            str(dtype): torch.arange(6, dtype=torch.float64).reshape(2, 3).to(dtype)
            for dtype in (torch.uint8, torch.bool, torch.int64, torch.float64, torch.bfloat16)
        },
        "odd": {"scalar": torch.tensor(1.5), "none": torch.empty(0, 3), "turned": torch.randn(3, 4).T},
        "generators": {"noise": generator.get_state()},
        "nothing": {},
    }
    facts = {"epoch": 3, "best": None, "loss": 0.1 + 0.2, "text": "wörd", "nested": {"list": [None, True]}}
    checkpoints = Checkpoints(place)
    checkpoints.write(7, arrays, facts)
    found = checkpoints.newest()
    assert found.notes == []
    assert (found.checkpoint.step, found.checkpoint.facts, found.checkpoint.folder) == (7, facts, place / "step-7")
    assert found.checkpoint.arrays.keys() == arrays.keys()
    for name, part in arrays.items():
        assert found.checkpoint.arrays[name].keys() == part.keys()
        for key, array in part.items():
            assert found.checkpoint.arrays[name][key].dtype == array.dtype
            assert torch.equal(found.checkpoint.arrays[name][key], array)
    again = torch.Generator()
    again.set_state(found.checkpoint.arrays["generators"]["noise"])
    assert torch.equal(torch.rand(5, generator=again), torch.rand(5, generator=generator))


def test_two_names_for_one_array_and_parameters(place):
    weight = torch.nn.Parameter(torch.randn(4, 3))
    checkpoints = Checkpoints(place)
    checkpoints.write(1, {"weights": {"E": weight, "W_o": weight, "part": weight[1:]}}, {})
    found = checkpoints.newest().checkpoint.arrays["weights"]
    assert all(torch.equal(found[name], weight) for name in ("E", "W_o"))
    assert torch.equal(found["part"], weight[1:])
    assert not found["E"].requires_grad


def test_arrays_may_change_after_the_call(place):
    array = torch.zeros(100_000)
    checkpoints = Checkpoints(place)
    checkpoints.write(1, {"weights": {"W": array}}, {})
    array += 1
    assert not checkpoints.newest().checkpoint.arrays["weights"]["W"].any()


def test_none_is_found_where_there_is_none(place):
    assert Checkpoints(place).newest() == (None, [])
    assert not place.exists()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"keep": 1}, [80]),
        ({"keep": 3}, [60, 70, 80]),
        ({"keep": 1, "best": (20, 40)}, [40, 80]),
        ({"keep": 1, "every": 3}, [30, 60, 80]),
        ({"keep": 2, "every": 4, "best": (80,)}, [40, 70, 80]),
    ],
)
def test_what_is_kept(settings, wanted, place):
    write(place, *range(10, 90, 10), **settings)
    assert kept(place) == wanted
    assert (place / "last").read_text() == "step-80\n"


def test_the_best_is_remembered_by_the_next_process(place):
    write(place, 10, 20, 30, best=(20,), keep=1)
    write(place, 40, 50, keep=1)
    assert kept(place) == [20, 50]


def test_the_newest_is_the_one_that_was_written_last(place):
    """After a training went back, a step may be lower than that of an older checkpoint, or the same."""
    write(place, 10, 20, 15, keep=9)
    assert Checkpoints(place).newest().checkpoint.step == 15
    write(place, 20, keep=9)
    found = Checkpoints(place).newest().checkpoint
    assert (found.step, found.folder.name) == (20, "step-20.2")
    assert {path.name for path in place.glob("step-*")} == {"step-10", "step-15", "step-20", "step-20.2"}


def test_what_is_newer_and_damaged_is_told_and_what_is_older_is_not(place):
    write(place, 10, 20, 30, 40, keep=9)
    (place / "step-40" / "manifest.json").write_text("{}")
    (place / "step-30" / "weights.safetensors").write_bytes(b"")
    (place / "step-10" / "facts.json").unlink()
    found = Checkpoints(place).newest()
    assert found.checkpoint.step == 20
    assert found.notes == [
        f"{place}/step-40/manifest.json is damaged, or of a newer version: step: Field required",
        f"{place}/step-30/weights.safetensors is damaged: it has 0 bytes, not 96",
    ]


def test_one_that_is_gone_is_told(place):
    write(place, 10, 20)
    shutil.rmtree(place / "step-20")
    found = Checkpoints(place).newest()
    assert found.checkpoint.step == 10
    assert found.notes == [f"{place}/step-20, which last names, is not there"]
    shutil.rmtree(place / "step-10")
    assert Checkpoints(place).newest().notes == found.notes


def test_what_is_damaged_does_not_count_among_those_kept(place):
    write(place, 10, 20)
    path = place / "step-20" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    write(place, 30)
    assert kept(place) == [10, 30]
    write(place, 20)
    assert kept(place) == [20, 30]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree | {"step": 21}, "manifest.json is damaged: its SHA-256 is another"),
        (lambda tree: tree | {"format": 2}, "of a newer version: format: Input should be 1"),
        (lambda tree: tree | {"files": {"../x.json": {"bytes": 1, "sha256": ""}}}, "String should match pattern"),
        (lambda tree: tree | {"also": 1}, "also: Extra inputs are not permitted"),
        (lambda tree: [tree], "Input should be an object"),
    ],
)
def test_a_manifest_that_does_not_hold(change, message, place):
    write(place, 20)
    path = place / "step-20" / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text())), indent=1) + "\n")
    found = Checkpoints(place).newest()
    assert found.checkpoint is None
    assert message in found.notes[0]


def test_a_folder_that_cannot_be_read(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ThroughtimeError, match=r"cannot read the checkpoints in .*file: Not a directory"):
        Checkpoints(tmp_path / "file").newest()


def test_a_write_that_failed_is_told_at_the_next_call(place, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoints = Checkpoints(place)
    message = r"cannot write the checkpoint of step 1 into .*: No space left on device; those before it are kept"
    for call in (checkpoints.newest, checkpoints.close, lambda: checkpoints.write(2, {}, {})):
        with monkeypatch.context() as broken:
            broken.setattr(durable, "write_file", fail)
            checkpoints.write(1, {}, {})
            with pytest.raises(ThroughtimeError, match=message):
                call()
    checkpoints.write(3, {}, {})
    assert checkpoints.newest().checkpoint.step == 3


def test_none_to_keep_is_refused(place):
    with pytest.raises(SettingError, match="keep should be at least 1, got 0"):
        Checkpoints(place, keep=0)


def test_what_json_cannot_hold_is_refused_before_anything_is_written(place):
    with pytest.raises(TypeError):
        Checkpoints(place).write(1, {}, {"array": torch.zeros(1)})
    assert not place.exists()
