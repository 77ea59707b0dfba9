"""A state or a model folder that somebody damaged or made up is refused in a line, or is what it says it is."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save, save_file

from helpers import damaged, model_folder
from throughtime import runtime
from throughtime.errors import ThroughtimeError
from throughtime.models import saved
from throughtime.runtime import State, Streams
from throughtime.runtime.state import ABOUT, Position, _hash

TEXT = "the cat sat on the mat,\nand the hat fell flat\n"
MEMORY = 1 << 24
"""Bytes that reading a few kilobytes may take."""

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([-1, 2**31, 2**63, 2**64, 10**30]), st.floats(),
    st.text(max_size=9), st.sampled_from(["", "00", "c3", "ff", "\u0000", "../..", "a" * 2000]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("m") / "m", TEXT, hidden_size=8, layers=2, separator="\n")[0]


@pytest.fixture(scope="module")
def model(place):
    return runtime.load(place)


@pytest.fixture(scope="module")
def state(model):
    streams = Streams(model)
    key = streams.join("the ", seed=3, repetition_penalty=1.2)
    streams.write(9)
    return State.join([streams.leave(key), model.read(model.prompt_ids("the cat"))[1]])


def refusal_of(work):
    """What it is refused with, which a terminal may show; empty where it is done."""
    refusal = ""
    try:
        work()
    except ThroughtimeError as error:
        refusal = str(error)
    assert refusal.isprintable()
    return refusal


def in_bounded_memory(work):
    """The same, in little memory."""
    tracemalloc.start()
    try:
        return refusal_of(work)
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < MEMORY


def used(model, blob):
    """A state read from bytes, and gone on from lane by lane."""
    found = State.from_bytes(blob)
    for lane in range(found.batch_size):
        streams = Streams(model)
        key = streams.join("", state=found.select([lane]), repetition_penalty=1.2)
        streams.write(3)
        streams.leave(key)
    return found


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_state_is_refused(model, state, data):
    blob = state.to_bytes()
    changed = damaged(data, blob, data.draw(st.integers(0, len(blob) - 1)))
    assume(changed != blob)
    refusal = in_bounded_memory(lambda: used(model, changed))
    if not refusal:  # such as a space less in the header
        same = State.from_bytes(changed)
        np.testing.assert_array_equal(same.arrays, state.arrays)
        assert (same.model, same.positions) == (state.model, state.positions)


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "format": st.one_of(st.sampled_from(["1", "2", "3"]), values),
            "model": values,
            "positions": st.one_of(
                values, st.lists(st.tuples(*[scalars] * 4, st.lists(scalars, max_size=4) | scalars), max_size=3)
            ),
            "sha256": values,
        },
    ),
    st.sampled_from(["float32", "float64", "int64", "float16"]),
    st.lists(st.integers(0, 3), max_size=4) | st.sampled_from([[4, 1, 8], [4, 2, 8], [1, 8], [2, 8]]),
    st.integers(0, 5),
    st.sampled_from([0.0, 1.0, np.nan, np.inf, 3e38]),
    st.booleans(),
)
def test_a_state_that_is_made_up_is_refused_or_goes_on(model, forged, kind, shape, count, value, rightly_hashed):
    """With the right hash too, which whoever forges it can make."""
    with np.errstate(invalid="ignore", over="ignore"):
        array = np.full(shape, value).astype(kind)
    about = {"format": "3", "model": model.digest, "positions": [], "sha256": ""} | forged
    arrays = {f"state.{place}": array for place in range(count)} if about["format"] == "3" else {"state": array}
    if rightly_hashed:
        shapes = [shape] * count if about["format"] == "3" else shape
        told = () if about["format"] == "1" else (shapes, str(about["model"]), about["positions"])
        about["sha256"] = _hash(list(arrays.values()), *told)
    blob = save(arrays, {ABOUT: json.dumps(about)})
    in_bounded_memory(lambda: used(model, blob))


@pytest.mark.parametrize(
    ("position", "told"),
    [
        (Position(matched=2), "another separator"), (Position(matched=1 << 70), "no whole number of 64 bits"),
        (Position(pending=b"abcd"), "the beginning of a character"), (Position(pending=b"a"), "the beginning"),
        (Position(pending=b"\xff"), "decode"), (Position(seed=1 << 64), "no whole number of 64 bits"),
        (Position(seed=-1), "no whole number"), (Position(drawn=1 << 64), "no whole number"),
        (Position(seen=(3, 3)), "not ascending"), (Position(seen=(5, 3)), "not ascending"),
        (Position(seen=(999,)), "has seen the token 999"), (Position(matched=True), "no whole number"),
    ],
)  # fmt: skip
def test_a_position_that_cannot_be_is_named(model, position, told):
    forged = State(model.initial_state().arrays, model.digest, [position])
    with pytest.raises(ThroughtimeError, match=told):
        used(model, forged.to_bytes())


def test_a_state_of_more_lanes_than_memory_holds_is_refused(model):
    blob = State([np.zeros((1 << 40, 0), np.float32)], model.digest).to_bytes()
    with pytest.raises(ThroughtimeError, match="with lanes and without numbers"):
        State.from_bytes(blob)
    assert State.from_bytes(model.initial_state(0).to_bytes()).batch_size == 0


def test_a_state_of_the_older_format_is_read(model):
    array = np.stack(model.initial_state().arrays)
    about = {"format": "1", "model": model.digest, "sha256": _hash([array])}
    found = used(model, save({"state": array}, {ABOUT: json.dumps(about)}))
    assert found.positions == ()


LOADS = {"runtime": runtime.load, "training": saved.load}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_description_that_is_made_up_is_refused_or_is_a_model(place, tmp_path_factory, load, data):
    described = json.loads((place / "model.json").read_text())
    branch = data.draw(st.sampled_from([described, described["model"]]))
    name = data.draw(st.sampled_from([*branch, "more"]))
    branch[name] = data.draw(values)
    folder = shutil.copytree(place, tmp_path_factory.mktemp("forged") / "model")
    (folder / "model.json").write_text(json.dumps(described))
    refusal_of(lambda: load(folder))


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_tokenizer_of_another_run_is_refused(place, tmp_path, load):
    other, _ = model_folder(tmp_path / "other", TEXT.replace("t", "T"), hidden_size=8)
    assert runtime.load(other).vocabulary_size == runtime.load(place).vocabulary_size
    folder = shutil.copytree(place, tmp_path / "model")
    shutil.copy(other / "tokenizer.json", folder)
    with pytest.raises(ThroughtimeError, match=r"tokenizer.json .* is not the one its model was trained with"):
        load(folder)
    described = json.loads((folder / "model.json").read_text())
    described.pop("tokenizer")  # as an earlier version wrote it
    (folder / "model.json").write_text(json.dumps(described))
    load(folder)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_weights_that_changed_are_refused_and_those_of_an_older_version_are_read(place, tmp_path, load):
    folder = shutil.copytree(place, tmp_path / "model")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-2] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ThroughtimeError, match="SHA-256 mismatch"):
        load(folder)
    save_file(load_file(place / "model.safetensors"), folder / "model.safetensors")
    load(folder)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize(
    "put",
    [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()],
    ids=["pipe", "zero", "dir"],
)
def test_what_is_no_regular_file_is_not_read(place, tmp_path, load, name, put):
    folder = shutil.copytree(place, tmp_path / "model")
    (folder / name).unlink()
    put(folder / name)
    with pytest.raises(ThroughtimeError, match=f"cannot read .*{name}: it is a .*, not a regular file"):
        load(folder)


def test_a_recipe_that_blocks_is_not_read_for_the_separator(place, tmp_path):
    folder = shutil.copytree(place, tmp_path / "model")
    described = json.loads((folder / "model.json").read_text())
    described.pop("separator")
    (folder / "model.json").write_text(json.dumps(described))
    os.mkfifo(folder / "recipe.toml")
    with pytest.raises(ThroughtimeError, match=r"recipe\.toml: it is a pipe"):
        runtime.load(folder)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize(
    "header",
    [
        b"", b"[]", b"{}", b"null", b'{"W_o": 5}', b'{"W_o": {"dtype": "F32"}}', b"[" * 5000, b'{"a":' * 5000,
        b'{"__metadata__": 5}', b'{"W_o": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 1]}}', b"\xff\xff",
        b'{"W_o": {"dtype": "\\u001b[31m", "shape": "\\u001b", "data_offsets": [0, 1]}}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("length", [None, 0, 1 << 30, (1 << 64) - 1])
def test_a_header_of_weights_that_is_made_up_is_refused(place, tmp_path, load, header, length):
    folder = shutil.copytree(place, tmp_path / "model")
    start = (len(header) if length is None else length).to_bytes(8, "little")
    (folder / "model.safetensors").write_bytes(start + header)
    os.truncate(folder / "model.safetensors", 1 << 40)  # sparse: a terabyte that takes no room
    assert "model.safetensors" in in_bounded_memory(lambda: load(folder))


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_weights_with_a_terabyte_behind_them_are_refused_unread(place, tmp_path, load):
    folder = shutil.copytree(place, tmp_path / "model")
    os.truncate(folder / "model.safetensors", 1 << 40)
    assert "bytes where its arrays need" in in_bounded_memory(lambda: load(folder))
