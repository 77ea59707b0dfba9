"""What threads may share, and what a long call does when it is to end."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import torch

from helpers import model_folder
from throughtime import engine, runtime
from throughtime.errors import ThroughtimeError
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model
from throughtime.runtime import Streams

TEXT = "the cat sat on the mat, and the rat ate it.\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return runtime.load(model_folder(tmp_path_factory.mktemp("m") / "m", TEXT, spread=0.2, hidden_size=16)[0])


def at_once(*jobs):
    """Run jobs in threads; what they raised."""
    raised = []

    def run(job):
        try:
            job()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_threads_that_share_streams_wait_for_one_another(model):
    streams, texts = Streams(model), []
    keys = [streams.join("the ", top_p=0.9, seed=seed) for seed in range(4)]

    def write():
        texts.extend(streams.write(5) for _ in range(40))

    def come_and_go():
        for _ in range(40):
            key = streams.join("a", seed=9)
            streams.state(key)
            streams.leave(key)

    assert at_once(write, write, come_and_go) == []
    # A call's text of one stream is a piece of what it would write alone, all calls' together the whole.
    for seed, key in enumerate(keys):
        alone = "".join(model.generate("the ", 400, top_p=0.9, seed=seed))
        assert sorted(piece[key] for piece in texts) == sorted(alone[at : at + 5] for at in range(0, 400, 5))


def test_what_a_copy_of_streams_is_made_of_does_not_change_with_them(model):
    streams = Streams(model)
    keys = [streams.join("the ", seed=seed) for seed in range(2)]
    make, parts = streams.__reduce__()  # copy and pickle go through the parts after this, beside other threads
    streams.leave(keys[0])
    streams.join("a", seed=9)
    assert make(*parts).write(5)[keys[1]] == streams.write(5)[keys[1]]
    assert make(*parts).keys == keys


@pytest.mark.skipif(engine.level() is None, reason="there are no kernels here")
def test_a_sampler_in_use_is_refused(model):
    sampler = model.network.sampler(
        temperature=1.0, top_k=0, top_p=0.9, min_p=0.0, repetition_penalty=1.0, seed=0,
        allowed=None,
    )  # fmt: skip
    logits, state = np.zeros((1, 2, model.vocabulary_size), np.float32), model.network.initial_state(2)
    with pytest.raises(ValueError, match="a sampler draws for one lane of one call at a time"):
        model.network.generate(logits, state, [sampler, sampler], 3)

    def draw():
        own = np.zeros((1, 1, model.vocabulary_size), np.float32), model.network.initial_state(1)
        for _ in range(300):
            model.network.generate(*own, [sampler], 20)

    raised = at_once(draw, draw)
    assert all("one lane of one call" in str(error) for error in raised)
    assert len(raised) <= 1


def test_ids_that_another_thread_changes_are_read_as_they_were_when_checked(model):
    ids = np.zeros((3000, 1), np.int64)
    ended = threading.Event()

    def spoil():
        while not ended.is_set():
            ids[:] = 1 << 40
            ids[:] = 3

    def feed():
        for _ in range(30):
            with suppress(ThroughtimeError):  # the ids of that moment
                model.feed(ids, model.initial_state(), 1)
        ended.set()

    assert at_once(spoil, feed) == []


def test_ids_that_change_in_a_call_of_a_model_in_pytorch_are_read_as_they_were_when_checked():
    trained = LanguageModel(Model(hidden_size=16), 8)
    ids, ended = torch.zeros(2000, 4, dtype=torch.int64), threading.Event()

    def spoil():
        while not ended.is_set():
            ids.numpy()[:] = 1 << 40
            ids.numpy()[:] = 3

    def run():
        for _ in range(20):
            with suppress(ValueError, IndexError):
                trained(ids)[0].sum().backward()
        ended.set()

    assert at_once(spoil, run) == []


@pytest.mark.skipif(engine.level() is None, reason="there are no kernels here")
def test_a_network_that_runs_takes_no_layer():
    rng = np.random.default_rng(0)
    native = engine.network(0)
    rows = rng.normal(size=(5, 64)).astype(np.float32)
    W, U = (rng.normal(size=(192, 64)).astype(np.float32) for _ in range(2))
    vectors = np.zeros(256, np.float32)
    native.embed(rows)
    native.add("gru", "float32", W, U, vectors, 1)
    raised = []

    def add():
        while not raised:
            try:
                native.add("gru", "float32", W, U, vectors, 1)
            except ValueError as error:
                raised.append(str(error))

    def feed():
        while not raised:
            arrays = 1
            while True:
                try:
                    ids = np.zeros((400, 1), np.int64)
                    native.feed_ids(ids, None, np.zeros((arrays, 1, 64), np.float32), 1, 1)
                    break
                except ValueError:
                    arrays += 1

    assert at_once(feed, add) == []
    assert raised == ["the network is running in another thread"]


def interrupted(work, after=0.2):
    """Seconds from Ctrl-C to the end of a call."""
    sent = []

    def press():
        sent.append(time.perf_counter())
        signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(after, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        work()
    timer.join()
    return time.perf_counter() - sent[0]


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    return runtime.load(model_folder(tmp_path_factory.mktemp("s") / "m", TEXT, hidden_size=512)[0], threads=1)


@pytest.mark.skipif(engine.level() is None, reason="there are no kernels here")
@pytest.mark.parametrize("call", ["feed", "feed many lanes", "search", "write", "score", "vectors"])
def test_ctrl_c_ends_a_long_call(slow, call):
    """None of the calls would end within the test's own patience."""
    ids, streams = np.ones((300_000, 1), np.int64), Streams(slow)
    streams.join("the ", seed=0)
    rows = slow.network.initial_state(1)
    work = {
        "feed": lambda: slow.feed(ids, slow.initial_state(), 1),
        "feed many lanes": lambda: slow.feed(np.ones((30_000, 16), np.int64), slow.initial_state(16), 1),
        "search": lambda: runtime.search(slow, "the ", 100_000, beams=8),
        "write": lambda: streams.write(10**9),
        "score": lambda: slow.score(TEXT * 10_000),
        "vectors": lambda: slow.network.advance(ids, np.zeros(ids.shape, bool), rows),
    }[call]
    assert interrupted(work) < 5


@pytest.mark.skipif(engine.level() is None, reason="there are no kernels here")
def test_text_written_before_ctrl_c_comes_with_the_next_call(slow):
    streams = Streams(slow)
    key = streams.join("the ", seed=0)
    interrupted(lambda: streams.write(10**9))
    text = streams.write(5)[key]
    assert text == "".join(slow.generate("the ", len(text), seed=0))
    assert len(text) > 5


@pytest.mark.skipif(engine.level() is None, reason="there are no kernels here")
@pytest.mark.parametrize("wanted", [0, 1, 700, 1500])
def test_a_call_that_is_cut_gives_what_shorter_calls_give(slow, wanted):
    ids = np.random.default_rng(0).integers(slow.vocabulary_size, size=(1500, 2))
    fresh = np.random.default_rng(1).random((1500, 2)) < 0.01
    outputs, state = slow.network.feed(ids, slow.network.initial_state(2), wanted, fresh)
    after, parts = slow.network.initial_state(2), []
    for at in range(0, 1500, 100):
        part, after = slow.network.feed(ids[at : at + 100], after, None, fresh[at : at + 100])
        parts.append(part)
    np.testing.assert_array_equal(outputs, np.concatenate(parts)[1500 - wanted :])
    np.testing.assert_array_equal(state, after)
