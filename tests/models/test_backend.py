"""A cell without a kernel as a model of the runtime: the same calls give what PyTorch's steps give."""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
import pytest
import torch

import matrix_memory
from helpers import model_folder
from throughtime import runtime
from throughtime.errors import ThroughtimeError
from throughtime.models import saved
from throughtime.runtime import State, Streams, search
from throughtime.runtime import compression as compressing

NAMES = "emma\nolivia\nava\nisabella\nsophia\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m") / "m"
    values = {"cell": matrix_memory.NAME, "hidden_size": 12, "layers": 2, "separator": "\n"}
    return model_folder(folder, NAMES, spread=0.4, **values)[0]


@pytest.fixture(scope="module")
def model(place):
    return saved.load_runtime(place)


@torch.no_grad()
def by_hand(place, ids):
    """The logits after each token, step by step; a document begins after each line."""
    trained = saved.load(place)
    state, logits, fresh = trained.model.initial_state(1), [], False
    for token in ids:
        state = trained.model.initial_state(1) if fresh else state
        logits_BV, state = trained.model.step(torch.tensor([token]), state)
        logits.append(logits_BV[0].numpy())
        fresh = trained.tokenizer.pieces[token] == b"\n"
    return np.array(logits)


def test_steps_and_chunks_are_those_of_the_model(model, place):
    ids = model.tokenizer.encode(NAMES).astype(np.int64)
    wanted = by_hand(place, ids)
    whole_TBV, after = model.feed(ids[:, None], model.initial_state())
    np.testing.assert_allclose(whole_TBV[:, 0], wanted, atol=1e-5)
    last_TBV, _ = model.feed(ids[:, None], model.initial_state(), 2)
    np.testing.assert_allclose(last_TBV[:, 0], wanted[-2:], atol=1e-5)
    state = model.initial_state()
    for token in ids:
        logits_BV, state = model.step([token], state)
    np.testing.assert_allclose(logits_BV[0], wanted[-1], atol=1e-5)
    np.testing.assert_allclose(model.logits(state)[0], wanted[-1], atol=1e-5)
    assert after.positions == state.positions


def test_a_score_is_that_of_the_steps(model, place):
    ids = model.tokenizer.encode(NAMES).astype(np.int64)
    log_p = torch.tensor(by_hand(place, ids)).log_softmax(1)
    bits = [-float(log_p[place, ids[place + 1]]) / math.log(2) for place in range(len(ids) - 1)]
    np.testing.assert_allclose(model.score(NAMES).bits, bits, rtol=1e-4)


def test_the_likeliest_text_is_the_same_from_a_generator_a_stream_a_search_and_the_steps(model, place):
    ids = model.tokenizer.encode("em").tolist()
    for _ in range(30):
        logits_V = by_hand(place, ids)[-1]
        logits_V[model.tokenizer.unknown] = -np.inf
        ids.append(int(logits_V.argmax()))
    wanted = model.tokenizer.decode(ids[2:])
    assert "".join(model.generate("em", 30, temperature=0)) == wanted
    streams = Streams(model)
    key = streams.join("em", temperature=0)
    assert streams.write(30)[key] == wanted
    assert search(model, "em", 30, beams=1)[0].text == wanted


def test_a_stream_goes_on_from_the_bytes_of_its_state(model):
    drawn = "".join(model.generate("", 60, seed=5, top_p=0.9, repetition_penalty=1.1))
    streams = Streams(model)
    settings = {"seed": 5, "top_p": 0.9, "repetition_penalty": 1.1}
    other, key = streams.join("ava"), streams.join("", **settings)
    begun = streams.write(25)[key]
    streams.leave(other)
    state = State.from_bytes(streams.leave(key).to_bytes())
    again = Streams(model)
    key = again.join("", state=state, **settings)
    assert begun + again.write(35)[key] == drawn


def test_a_search_scores_its_texts_as_the_model_does(model):
    found = search(model, "ava", 10, beams=4, best=3)
    assert found[0].score >= found[1].score >= found[2].score
    for one in found:
        ids = model.tokenizer.encode("ava" + one.text).astype(np.int64)
        bits = np.concatenate(list(model.surprise([(ids, None)])))[2:]
        assert one.nats == pytest.approx(float(bits.sum()) * math.log(2), rel=1e-4)


def test_characters_and_stops_bound_what_is_written(model):
    assert set("".join(model.generate("", 50, seed=1, characters="ae"))) <= set("ae")
    free = "".join(model.generate("", 50, seed=1))
    stop = free[10:12]
    assert "".join(model.generate("", 50, seed=1, stop=stop)) == free[: free.find(stop)]


def test_what_is_asked_wrongly_is_refused_as_by_the_kernels(model):
    with pytest.raises(ThroughtimeError, match=r"id (10000 )?is not in a vocabulary of"):
        model.step([10_000], model.initial_state())
    with pytest.raises(ThroughtimeError, match="a state of 2 lanes is needed"):
        model.step([1, 2], model.initial_state(1))
    with pytest.raises(ThroughtimeError, match="top_k must be at least 1, got 0"):
        model.generate("", top_k=0)


def test_it_does_not_compress_for_another_machine_could_not_read_it(tmp_path):
    place, _ = model_folder(tmp_path / "m", NAMES, "byte", cell=matrix_memory.NAME, hidden_size=4)
    with pytest.raises(ThroughtimeError, match="cannot compress: only kernels give the same bits again"):
        compressing.compress(saved.load_runtime(place), io.BytesIO(b"abc"), io.BytesIO())


def test_a_cell_with_a_kernel_gives_the_same_on_pytorch(tmp_path):
    place, _ = model_folder(tmp_path / "m", NAMES, spread=0.4, cell="lstm", hidden_size=12, separator="\n")
    fast, slow = runtime.load(place), saved.load_runtime(place)
    np.testing.assert_allclose(fast.score(NAMES).bits, slow.score(NAMES).bits, rtol=1e-4)
    for seed, settings in itertools.product(range(3), ({}, {"temperature": 0.7, "top_k": 3})):
        one, other = ("".join(model.generate("", 60, seed=seed, **settings)) for model in (fast, slow))
        assert one == other
    assert fast.digest == slow.digest
