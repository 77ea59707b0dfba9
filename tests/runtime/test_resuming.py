"""A generation can be paused and go on exactly, from a state, its bytes, or a pickle; copies are what they copy."""

from __future__ import annotations

import copy
import pickle
import shutil

import numpy as np
import pytest

from helpers import model_folder
from throughtime import runtime
from throughtime.errors import ThroughtimeError
from throughtime.runtime import State, Streams

TEXT = "the cat sat on the mat,\nand the hat fell flat; who saw thé rat?\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("m") / "m", TEXT, "byte", spread=0.2, hidden_size=16, layers=2)[0]


def through_bytes(state):
    return State.from_bytes(state.to_bytes())


def through_pickle(state):
    return pickle.loads(pickle.dumps(state))


@pytest.mark.parametrize("way", [copy.deepcopy, through_bytes, through_pickle])
@pytest.mark.parametrize("choice", [{"seed": 7}, {"seed": 7, "repetition_penalty": 1.8}, {"temperature": 0}], ids=str)
@pytest.mark.parametrize("again", [True, False], ids=["the same seed", "no seed"])
def test_a_paused_stream_goes_on_as_if_it_had_not_been(model, way, choice, again):
    streams = Streams(model)
    key = streams.join("the ", **choice)
    streams.write(23)
    kept = way(streams.state(key))
    gone_on = streams.write(40)[key]
    settings = choice if again else {name: value for name, value in choice.items() if name != "seed"}
    resumed = Streams(model)
    key = resumed.join("", state=kept, **settings)
    assert resumed.write(40)[key] == gone_on


def test_a_stream_may_be_paused_after_every_token(model):
    """Characters of two bytes among them: what is pending is kept."""
    whole = "".join(model.generate("thé", 60, seed=3, temperature=1.5))
    streams, text, state = Streams(model), "", None
    for _ in range(60):
        key = streams.join("" if state else "thé", state=state, seed=3, temperature=1.5)
        text += streams.write(1)[key]
        state = streams.leave(key)
    assert text == whole[: len(text)]
    assert len(whole) - len(text) <= 1
    assert len(streams) == 0


def test_a_stream_begun_from_a_state_reads_nothing_first(model):
    _, state = model.read(model.tokenizer.encode("the cat"))
    streams = Streams(model)
    key = streams.join("", state=state, temperature=0)
    np.testing.assert_array_equal(streams.state(key).arrays, state.arrays)
    assert streams.write(9)[key] == "".join(model.generate("the cat", 9, temperature=0))


def test_what_follows_a_state_is_in_the_state(model):
    logits_V, state = model.read(model.tokenizer.encode("the cat"))
    np.testing.assert_allclose(model.logits(state)[0], logits_V, atol=1e-6)


def test_another_seed_begins_draws_of_its_own_and_none_draws_anew(model):
    streams = Streams(model)
    seeded, unseeded = streams.join("the ", seed=1), streams.join("the ")
    streams.write(5)
    other, same, free = (
        streams.join("", state=streams.state(key), **choice)
        for key, choice in ((seeded, {"seed": 2}), (seeded, {}), (unseeded, {}))
    )
    free_again = streams.join("", state=streams.state(unseeded))
    written = streams.write(60)
    assert written[same] == written[seeded] != written[other]
    assert len({written[key] for key in (unseeded, free, free_again)}) == 3


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_of_a_model_is_that_model(model, way):
    same = way(model)
    assert "".join(same.generate("the ", 30, seed=1)) == "".join(model.generate("the ", 30, seed=1))
    _, state = same.read(same.tokenizer.encode("the"))
    model.step([3], state)
    assert way(model.tokenizer).fingerprint == model.tokenizer.fingerprint


@pytest.mark.parametrize("way", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_of_streams_goes_on_as_they_do_and_on_its_own(model, way):
    streams = Streams(model)
    keys = [streams.join("the ", seed=1, top_p=0.9), streams.join("", characters="abc ")]
    streams.leave(streams.join("x"))
    streams.write(9)
    same = way(streams)
    assert same.keys == streams.keys == keys
    assert same.write(30) == streams.write(30)
    assert same.join("a") == streams.join("a") == 3
    same.leave(keys[0])
    assert len(streams) == 3


def test_a_state_is_read_only_whatever_made_it(model):
    _, fed = model.feed([[1], [2]], model.initial_state())
    streams = Streams(model)
    key = streams.join("the ")
    mine = np.ones((1, 3), np.float32), np.ones((1, 2, 2), np.float32), np.ones(1, np.float32)
    made = State(mine, "abc")
    states = [model.initial_state(), fed, fed.select([0, 0]), State.join([fed, fed]), streams.state(key), made]
    states += [way(fed) for way in (copy.copy, copy.deepcopy, through_bytes, through_pickle)]
    states.append(runtime.search(model, "the ", 3)[0].state)
    for state in states:
        for array in state.arrays:
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
    for array in mine:
        array[:] = 5
    assert all((array == 1).all() for array in made.arrays)


def test_a_model_whose_folder_is_gone_says_so_when_it_is_pickled(place, tmp_path):
    folder = shutil.copytree(place, tmp_path / "model")
    model = runtime.load(folder)
    other, _ = model_folder(tmp_path / "other", TEXT, "byte", seed=3, hidden_size=16, layers=2)
    shutil.copy(other / "model.safetensors", folder)
    with pytest.raises(ThroughtimeError, match="holds other weights by now"):
        pickle.dumps(model)
    shutil.rmtree(folder)
    with pytest.raises(ThroughtimeError, match="there is no run folder"):
        pickle.dumps(model)
