"""Checkpoints and recipes that somebody damaged or made up: an error of ours, or the checkpoint before, with a line."""

from __future__ import annotations

import copy
import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

import throughtime
from helpers import Cut, PowerCutError, damaged, forge
from throughtime.errors import ThroughtimeError

TEXT = "the cat sat on the mat, and the rat ate it.\n" * 40
STEPS = 8
FILES = ["manifest.json", "facts.json", "model.safetensors", "best.safetensors", "optimiser.safetensors",
         "position.safetensors", "noise.safetensors"]  # fmt: skip
few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(few, max_examples=200)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run that was cut after step 7, with checkpoints of steps 4 and 6; and the weights of the one that was not."""
    folder = tmp_path_factory.mktemp("forged")
    (folder / "text.txt").write_text(TEXT)
    tree = {
        "text": {"sources": [str(folder / "text.txt")]},
        "streams": {"lanes": 2, "window": 4},
        "model": {"hidden_size": 4, "dropout": 0.1},
        "gradient": {"reach": 6, "clip_quantile": 0.5},
        "training": {"steps": STEPS, "validations": 2, "sample_tokens": 0, "threads": 1, "checkpoint_every": 2},
    }
    throughtime.train(tree, folder / "uncut")
    with pytest.raises(PowerCutError):
        throughtime.train(tree, folder / "run", Cut(7))
    return folder


@pytest.fixture
def run(base, tmp_path):
    """Makes copies of the run that was cut."""

    def fresh():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return shutil.copytree(base / "run", tmp_path / "run")

    return fresh


def last(folder):
    return (folder / "last" / "model.safetensors").read_bytes()


def outcome(folder):
    """What is said, or the error in a line."""
    log, caught = Cut(), None
    try:
        throughtime.resume(folder, display=log)
    except ThroughtimeError as error:
        caught = str(error)
    assert caught is None or (caught.isprintable() and len(caught) < 2000)
    return log.lines if caught is None else None


def damage_a_file(base, run, data):
    """It is named, and the checkpoint before comes out the same."""
    folder, name = run(), data.draw(st.sampled_from(FILES))
    path = folder / "checkpoints" / "step-6" / name
    content = path.read_bytes()
    changed = damaged(data, content, data.draw(st.integers(0, len(content) - 1)))
    path.write_bytes(changed)
    said = outcome(folder)
    assert said is not None
    if changed != content:
        assert any(f"step-6/{name}" in line for line in said)
        assert any("going on after step 4" in line for line in said)
    assert last(folder) == last(base / "uncut")


def places(value, path=()):
    """Where in a tree of JSON something can be changed."""
    yield path
    held = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in held:
        yield from places(inner, (*path, key))


def changed(data, tree):
    """The tree with one value replaced, removed or added."""
    tree = copy.deepcopy(tree)
    path = data.draw(st.sampled_from([place for place in places(tree) if place]))
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    match data.draw(st.sampled_from(["replace", "remove", "add"])):
        case "replace":
            holder[path[-1]] = data.draw(values)
        case "remove":
            del holder[path[-1]]
        case "add":
            if isinstance(holder, dict):
                holder[data.draw(st.text(max_size=5))] = data.draw(values)
            else:
                holder.append(data.draw(values))
    return tree


def forge_facts(_, run, data):
    """They end in an error, or the checkpoint before is taken."""
    folder = run()
    place = folder / "checkpoints" / "step-6"
    facts = json.loads((place / "facts.json").read_bytes())
    facts["recipe"]["training"]["minutes"] = None
    for _ in range(data.draw(st.integers(1, 2))):
        facts = changed(data, facts)
    forge(place, "facts.json", json.dumps(facts).encode())
    (folder / "recipe.toml").unlink()
    recipe = facts.get("recipe") or {}
    if not isinstance(recipe, dict) or recipe.get("training") not in (None, {}):  # those would train for minutes
        outcome(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{", b"[" * 100_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b"1e999", b"\xff",
     b'"\\ud800"', b"9" * 5000],
)  # fmt: skip
def test_facts_that_are_no_facts_are_stepped_back_over(base, run, content):
    folder = run()
    forge(folder / "checkpoints" / "step-6", "facts.json", content)
    said = outcome(folder)
    assert any("step-6/facts.json" in line for line in said)
    assert last(folder) == last(base / "uncut")


def test_facts_of_a_newer_format_are_stepped_back_over(base, run):
    folder = run()
    place = folder / "checkpoints" / "step-6"
    facts = json.loads((place / "facts.json").read_bytes())
    forge(place, "facts.json", json.dumps({**facts, "format": 2}).encode())
    said = outcome(folder)
    assert any("step-6/facts.json cannot be used: format: Input should be 1" in line for line in said)
    assert last(folder) == last(base / "uncut")


def forge_arrays(_, run, data):
    """They end in an error."""
    folder, part = run(), data.draw(st.sampled_from(["model", "best", "optimiser", "position", "noise"]))
    place = folder / "checkpoints" / "step-6"
    arrays = dict(load((place / f"{part}.safetensors").read_bytes()))
    name = data.draw(st.sampled_from(sorted(arrays)))
    match data.draw(st.sampled_from(["shape", "type", "remove", "add", "infinite", "longer"])):
        case "shape":
            arrays[name] = arrays[name].reshape(*arrays[name].shape, 1)
        case "type":
            arrays[name] = arrays[name].astype(np.int16)
        case "remove":
            del arrays[name]
        case "add":
            arrays[data.draw(st.text("abc.01", min_size=1, max_size=9))] = np.zeros(2, np.float32)
        case "infinite":
            name = data.draw(st.sampled_from([n for n in sorted(arrays) if arrays[n].dtype == np.float32] or [name]))
            arrays[name] = np.full_like(arrays[name], np.inf if part != "noise" else 255)
        case "longer":
            arrays[name] = np.concatenate([np.atleast_1d(arrays[name])] * 2)
    forge(place, f"{part}.safetensors", save(arrays))
    said = outcome(folder)
    # Infinite moments make steps that are not finite, of which the training says so itself.
    assert said is None or part in ("optimiser", "position", "noise")


def test_a_checkpoint_without_a_part_or_with_another_is_refused(run):
    for name, content in (("extra.safetensors", save({"x": np.zeros(1)})), ("best.safetensors", None)):
        folder = run()
        place = folder / "checkpoints" / "step-6"
        forge(place, name, content or b"")
        if content is None:
            manifest = json.loads((place / "manifest.json").read_bytes())
            del manifest["files"][name]
            (place / "manifest.json").write_text(json.dumps(manifest))
            assert any("manifest.json is damaged" in line for line in outcome(folder))
        else:
            with pytest.raises(ThroughtimeError, match=r"does not fit this run: it has an unknown extra\.safetensors"):
                throughtime.resume(folder)


def damage_the_recipe(_, run, data):
    """That ends in an error, or the checkpoint says what was changed."""
    folder = run()
    path = folder / "recipe.toml"
    content = path.read_bytes()
    path.write_bytes(damaged(data, content, data.draw(st.integers(0, len(content) - 1))))
    said = outcome(folder)
    if said is not None and path.exists():
        assert any("going on after step 6" in line for line in said)


@pytest.mark.parametrize(
    "content",
    [b"x = " + b"[" * 100_000, b"x = " + b"9" * 5000, b"\xff\xfe", b'[text]\nsources = ["a\\u0000b"]',
     b"[training]\nlearning_rate = inf", b"[model.cell_options]\nforget_bias = nan", b"training = 3",
     b'"\\u001b[31m" = 1'],
)  # fmt: skip
def test_recipes_that_are_none_end_in_a_line(run, content, tmp_path):
    folder = run()
    (folder / "recipe.toml").write_bytes(content)
    outcome(folder)
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(ThroughtimeError) as caught:
        throughtime.train(tmp_path / "mine.toml", tmp_path / "new")
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", [*FILES, "../last"])
def test_pipes_and_devices_in_place_of_checkpoint_files_are_not_waited_for(base, run, kind, name):
    folder = run()
    path = folder / "checkpoints" / "step-6" / name
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
    said = outcome(folder)
    if name == "../last":
        return  # it says no more than which checkpoint there should be
    assert any(f"step-6/{name}: it is a {kind}, not a regular file" in line for line in said)
    assert last(folder) == last(base / "uncut")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)], ids=["pipe", "device"])
def test_a_pipe_or_device_as_a_recipe_is_not_waited_for(run, tmp_path, make):
    folder = run()
    (folder / "recipe.toml").unlink()
    make(folder / "recipe.toml")
    with pytest.raises(ThroughtimeError, match=r"recipe\.toml"):
        throughtime.resume(folder)
    make(tmp_path / "mine.toml")
    with pytest.raises(ThroughtimeError, match="not a regular file"):
        throughtime.train(tmp_path / "mine.toml")


ATTACKS = [damage_a_file, forge_facts, forge_arrays, damage_the_recipe]


@pytest.mark.parametrize("attack", ATTACKS)
@few
@given(data=st.data())
def test_nothing_that_is_damaged_or_forged_is_unforeseen(base, run, attack, data):
    attack(base, run, data)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
@many
@given(data=st.data())
def test_nothing_of_two_hundred_that_are_damaged_or_forged_is_unforeseen(base, run, attack, data):
    attack(base, run, data)
