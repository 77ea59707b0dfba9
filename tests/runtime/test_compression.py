"""Every file comes back to the last byte, or not at all."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import damaged, model_folder
from throughtime import engine, runtime
from throughtime.errors import ThroughtimeError
from throughtime.runtime import compression
from throughtime.runtime import network as networks
from throughtime.runtime.compression import compress, decompress

TEXT = ("It was the best of times, it was the worst of times, it was the age of wisdom…\n" * 40).encode()


def folder_of(path, tokens, seed=0):
    return model_folder(path, TEXT.decode(), tokens, seed=seed, cell="gru", hidden_size=16)[0]


@pytest.fixture(scope="module", params=["byte", "bpe"])
def place(request, tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp(request.param) / "model", request.param)


@pytest.fixture(scope="module")
def model(place):
    return runtime.load(place)


def compressed(model, content, **options):
    target = io.BytesIO()
    sizes = compress(model, io.BytesIO(content), target, **options)
    assert sizes == (len(content), len(target.getvalue()))
    return target.getvalue()


def back(model, blob):
    return b"".join(decompress(model, io.BytesIO(blob)))


@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"\n",
        TEXT,
        TEXT * 14,
        b"a" * 10_000_000,
        random.Random(0).randbytes(5000),
        bytes(range(256)) * 30,
        b"\0\0\0" + TEXT[:500] + b"\xff\xfe" + TEXT[:7] + b"\xe2\x80",
        "日本語 Ünïcödé 😀\n".encode() * 60,
    ],
    ids=["empty", "one", "line end", "text", "lanes", "10 MB of one byte", "random", "all", "damaged text", "unicode"],
)
def test_what_went_in_comes_out(model, content, adapt):
    blob = compressed(model, content, adapt=adapt)
    assert back(model, blob) == content
    assert len(blob) <= len(content) + 400 + len(content) // 1000


def test_blocks_and_lanes_of_every_length(model, monkeypatch):
    monkeypatch.setattr(compression, "BLOCK", 700)
    monkeypatch.setattr(compression, "BYTES_WORTH_A_LANE", 30)
    for size in (1, 29, 30, 31, 699, 700, 701, 2111):
        content = TEXT[5 : 5 + size]
        assert back(model, compressed(model, content)) == content


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=300))
def test_any_bytes(model, content):
    assert back(model, compressed(model, content)) == content


@pytest.mark.skipif(engine.level() is None, reason="there are no kernels here")
def test_the_number_of_threads_changes_no_bit(place, monkeypatch):
    monkeypatch.setattr(compression, "BYTES_WORTH_A_LANE", 100)
    one, two = (runtime.load(place, threads=threads) for threads in (1, 2))
    assert compressed(one, TEXT) == compressed(two, TEXT)


def test_without_kernels(place, monkeypatch):
    monkeypatch.setattr(networks.engine, "network", lambda _: None)
    monkeypatch.setattr(networks.engine, "level", lambda: None)
    model = runtime.load(place)
    assert back(model, compressed(model, TEXT[:900])) == TEXT[:900]


def test_adapting_learns_what_the_model_does_not_know(model):
    content = bytes(random.Random(0).choices(b"xyz", k=6000))
    adapted, fixed = (len(compressed(model, content, adapt=adapt)) for adapt in (True, False))
    assert adapted < 0.7 * fixed


def test_another_model_is_refused(place, tmp_path, model):
    blob = compressed(model, TEXT)
    other = runtime.load(folder_of(tmp_path / "other", model.tokenizer.kind, seed=1))
    with pytest.raises(ThroughtimeError, match=r"was compressed with model .*, this is"):
        back(other, blob)
    with pytest.raises(ThroughtimeError, match="compressed with form of weights float32, this is bf16"):
        back(runtime.load(place, "bf16"), blob)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_goes_unseen(model, data):
    whole = compressed(model, TEXT[:800])
    blob = damaged(data, whole, data.draw(st.integers(0, len(whole) - 1)))
    if blob == whole:
        return
    found = []
    with pytest.raises(ThroughtimeError) as caught:
        found.extend(decompress(model, io.BytesIO(blob)))
    assert "\n" not in str(caught.value)
    assert b"".join(found) in (b"", TEXT[:800])


def test_a_model_of_characters_is_refused(tmp_path):
    model = runtime.load(folder_of(tmp_path / "char", "char"))
    with pytest.raises(ThroughtimeError, match="a model of char tokens cannot make up every file"):
        compressed(model, TEXT)


def test_what_is_no_compressed_file(model):
    for blob in (b"", b"hello", b"throughtime\x001" + b"\xff" * 50):
        with pytest.raises(ThroughtimeError, match=r"this is no file that|damaged in its header"):
            back(model, blob)


def test_probabilities_are_whole_and_sum_to_one(model):
    logits = np.random.default_rng(0).normal(0, 9, size=(5, model.vocabulary_size)).astype(np.float32)
    bias = np.random.default_rng(1).normal(size=model.vocabulary_size).astype(np.float32)
    found = model.network.probabilities(logits, bias) * 2**24
    assert (found >= 1).all()
    assert (found == np.floor(found)).all()
    assert (found.sum(1) == 2**24).all()
    wanted = torch.softmax(torch.from_numpy(logits + bias), 1).numpy()
    np.testing.assert_allclose(found / 2**24, wanted, atol=3e-5)
