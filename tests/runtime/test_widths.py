"""Layers of different widths, tied: text is written, searched for and kept as with layers of one width."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import model_folder
from throughtime import engine, runtime
from throughtime.runtime import State, Streams, search

TEXT = "the cat sat on the mat,\nand the hat fell flat\n"
WIDTHS = {"hidden_size": [12, 31, 9], "tied": True}


@pytest.fixture(scope="module", params=["lstm", "layernorm-gru", "minlstm"])
def place(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("widths") / "m"
    return model_folder(folder, TEXT, spread=0.2, separator="\n", cell=request.param, **WIDTHS)[0]


def assert_close(state, other):
    for array, wanted in zip(state.arrays, other.arrays, strict=True):
        np.testing.assert_allclose(array, wanted, atol=1e-5)


def test_each_layer_has_arrays_of_its_own_width(model):
    arrays = engine.forms.FORMS[model.settings.cell].state_arrays
    assert [array.shape for array in model.initial_state(2).arrays] == [
        (2, width) for width in (12, 31, 9) for _ in range(arrays)
    ]


def test_streams_write_what_a_text_alone_is(model):
    wanted = ["".join(model.generate("the ", 40, seed=seed)) for seed in range(3)]
    streams = Streams(model)
    keys = [streams.join("the ", seed=seed) for seed in range(3)]
    found = streams.write(15)
    other = streams.join("a", seed=9)
    for key, more in streams.write(15).items():
        found[key] = found.get(key, "") + more
    streams.leave(keys.pop(1))
    moved = State.from_bytes(streams.leave(other).to_bytes())
    for key, more in streams.write(10).items():
        found[key] += more
    assert [found[key] for key in keys] == [wanted[0], wanted[2]]
    assert streams.write(1).keys() == set(keys)
    key = streams.join("", state=moved)
    assert found[other] + streams.write(10)[key] == "".join(model.generate("a", 25, seed=9))


def test_lanes_are_selected_joined_and_sent(model):
    _, state = model.feed(np.arange(12).reshape(3, 4) % model.vocabulary_size, model.initial_state(4))
    picked = State.join([state.select([2]), State.from_bytes(state.to_bytes()).select([0, 2])])
    logits, _ = model.step([1, 1, 1], picked)
    wanted, _ = model.step([1] * 4, state)
    np.testing.assert_allclose(logits, wanted[[2, 0, 2]], atol=1e-5)
    np.testing.assert_allclose(model.logits(picked), model.logits(state)[[2, 0, 2]], atol=1e-5)


def test_a_search_leaves_the_state_after_the_last_token(model):
    for found in search(model, "the ", 9, beams=4, best=2):
        _, state = model.read(model.tokenizer.opening("the " + found.text, model.separator))
        assert_close(found.state, state)
        assert found.state.positions == state.positions


@pytest.mark.skipif(engine.level() is None, reason="there are no kernels here")
def test_both_twins_search_alike(place, monkeypatch):
    how = {"beams": 7, "best": 5, "stop": ["at"], "length_penalty": 0.6}
    found = search(runtime.load(place), "the ", 20, **how)
    monkeypatch.setattr(engine, "network", lambda _: None)
    wanted = search(runtime.load(place), "the ", 20, **how)
    assert [text.text for text in found] == [text.text for text in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert_close(one.state, other.state)


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_smaller_weights_change_little(place, weights):
    small, whole = runtime.load(place, weights), runtime.load(place)
    assert small.score(TEXT * 4).total_bits == pytest.approx(whole.score(TEXT * 4).total_bits, rel=0.02)
