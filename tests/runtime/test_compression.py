"""Every file comes back to the last byte, or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

from helpers import damaged, model_folder
from throughtime import engine, runtime
from throughtime.cli.decompress import command as decompress_command
from throughtime.errors import ThroughtimeError
from throughtime.runtime import compression, reference
from throughtime.runtime import network as networks
from throughtime.runtime.compression import CODED, END, MAGIC, SAME, STORED, compress, decompress, read_header
from throughtime.runtime.parts import built, shapes
from throughtime.text import tokenizer as tokenizers

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


def as_header(content: bytes) -> bytes:
    return MAGIC + struct.pack("<II", len(content), zlib.crc32(content)) + content


def as_block(kind: int, size: int, payload: bytes, content: bytes = b"") -> bytes:
    """A block whose check sum is right, whatever it says of itself."""
    start = struct.pack("<BII", kind, size, len(payload))
    return (
        start + struct.pack("<I", zlib.crc32(payload, zlib.crc32(start))) + hashlib.sha256(content).digest() + payload
    )


def header_of(blob: bytes) -> bytes:
    return blob[: len(MAGIC) + 8 + int.from_bytes(blob[len(MAGIC) : len(MAGIC) + 4], "little")]


FORGED = {
    "terabytes of one byte": (SAME, 1 << 20, b"a" * (1 << 20)),
    "the same nothing": (SAME, 5, b""),
    "two of the same": (SAME, 4, b"ab"),
    "stored, and longer": (STORED, 3, b"abcd"),
    "stored, and shorter": (STORED, 5, b"abcd"),
    "an end with content": (END, 4, b""),
    "an end with payload": (END, 0, b"abcd"),
    "coded, and empty": (CODED, 0, b""),
    "coded, and longer than stored": (CODED, 3, b"\1\0\0\0\1\0\0\0"),
    "no lanes": (CODED, 100, struct.pack("<II", 0, 0)),
    "a million lanes": (CODED, 1 << 20, struct.pack("<II", 1 << 20, 1)),
    "one lane for a block of many": (CODED, 1 << 20, struct.pack("<II", 1, 1 << 20)),
    "one long lane beside empty ones": (CODED, 1 << 20, struct.pack("<65I", 64, 1 << 20, *[0] * 63)),
    "more tokens than bytes": (CODED, 100, struct.pack("<III", 1, 101, 0)),
    "an unknown kind": (4, 4, b"abcd"),
    "a large block": (STORED, (1 << 20) + 1, bytes((1 << 20) + 1)),
}


@pytest.mark.parametrize("block", FORGED.values(), ids=FORGED)
def test_a_block_that_its_kind_cannot_have_is_refused_before_it_is_made(model, block):
    """None reaches the hash of its content: the hash would be compared after memory and time were spent."""
    start = header_of(compressed(model, TEXT))
    with pytest.raises(ThroughtimeError, match="damaged in block 0") as caught:
        back(model, start + as_block(*block))
    assert "it comes out differently" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"rate": 1}, "written by another version"),
        ({"model": None}, "written by another version"),
        ({"adapt": 1}, "written by another version"),
        ({"weights": "int4\x1b[2J"}, r"unknown form of weights: int4\\x1b\[2J"),
        ({"tokenizer": "\x1b[2J" * 4}, r"tokeniser \\x1b\[2J"),
        (b"[1, 2]", "written by another version"),
        (b"{}", "written by another version"),
        (b"[" * 4000, "is not JSON|nested deeper"),
        (b'{"adapt": NaN}', "is not JSON"),
        (b'{"adapt": 1e999}', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
    ],
    ids=str,
)
def test_a_header_that_is_none_is_one_line(model, header, message):
    whole = header_of(compressed(model, b""))
    if isinstance(header, dict):
        header = json.dumps(json.loads(whole[len(MAGIC) + 8 :]) | header).encode()
    with pytest.raises(ThroughtimeError, match=message) as caught:
        back(model, as_header(header))
    assert str(caught.value).isprintable()


def test_another_version_is_named(model):
    with pytest.raises(ThroughtimeError, match="by another version"):
        read_header(io.BytesIO(MAGIC[:-1] + b"2" + compressed(model, b"")[len(MAGIC) :]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_forged_blocks_are_refused_or_are_what_they_say(model, data):
    """Every check sum is right, so that the numbers inside are believed, if at all, for a reason."""
    content = TEXT[:300]
    whole = compressed(model, content)
    start = header_of(whole)
    kind, size, length = struct.unpack_from("<BII", whole, len(start))
    payload = whole[len(start) + 45 :][:length]
    strange = st.sampled_from([0, 1, 2, 255, 1 << 14, (1 << 20) - 1, 1 << 20, (1 << 32) - 1])
    match data.draw(st.sampled_from(["kind", "size", "number", "payload"])):
        case "kind":
            kind = data.draw(st.integers(0, 255))
        case "size":
            size = data.draw(strange)
        case "number":
            at = 4 * data.draw(st.integers(0, 2))
            payload = payload[:at] + data.draw(strange).to_bytes(4, "little") + payload[at + 4 :]
        case "payload":
            payload = damaged(data, payload, data.draw(st.integers(0, len(payload) - 1)))
    forged = as_block(kind, size, payload, content)
    with suppress(ThroughtimeError):
        assert back(model, start + forged + as_block(END, 0, b"", b"")) == content


def test_a_tokeniser_that_loses_text_is_refused(place):
    """Its ids are those of another text: what is made of them could never be brought back."""
    whole = tokenizers.load(place / "tokenizer.json")
    if whole.kind == "byte":
        pytest.skip("bytes are encoded without the library")
    library = Library.from_str(whole.to_json())
    library.enable_truncation(20)
    lossy = tokenizers.LibraryTokenizer("bpe", library, whole.pieces, None)
    loaded = runtime.load(place)
    wanted = shapes(loaded.settings, lossy.vocabulary_size)
    network = runtime.Network(*built(loaded.settings, {name: np.zeros(wanted[name], np.float32) for name in wanted}))
    model = runtime.Model(loaded.settings, network, lossy, loaded.digest)
    with pytest.raises(ThroughtimeError, match="does not give back what it reads"):
        compressed(model, TEXT)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("twin", ["native", "reference"])
def test_logits_that_are_not_finite_still_make_a_distribution(model, value, twin):
    logits = np.zeros((4, 300), np.float32)
    logits[0, 0] = logits[1, 7] = logits[2, 299] = value
    logits[3] = value
    bias, found = np.zeros(300, np.float32), np.empty(logits.shape)
    if twin == "native":
        found = model.network.probabilities(logits, bias)
    else:
        reference.Network().probabilities(logits, bias, found)
    whole = found * 2**24
    assert (whole >= 1).all()
    assert (whole == np.floor(whole)).all()
    assert (whole.sum(1) == 2**24).all()


def test_probabilities_of_a_large_even_vocabulary_stay_above_zero(model):
    """A sum in float32 of so many equal parts is short by more than the likeliest token has."""
    logits = np.full((1, 1 << 20), -0.1, np.float32)
    logits[0, 5] = 0
    found = model.network.probabilities(logits, np.zeros(1 << 20, np.float32))
    assert (found > 0).all()
    assert found.sum() == 1


def test_the_command_line_refuses_a_pipe(place, tmp_path):
    os.mkfifo(tmp_path / "pipe.tt")
    found = CliRunner().invoke(decompress_command, [str(tmp_path / "pipe.tt"), "-m", str(place)])
    assert isinstance(found.exception, ThroughtimeError)
    assert "it is a pipe, not a regular file" in str(found.exception)
