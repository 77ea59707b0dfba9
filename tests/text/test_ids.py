"""Ids on disk: what stands in the files, what is counted, and what happens when they are damaged or not finished."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from helpers import corpus_of
from throughtime.errors import ThroughtimeError
from throughtime.objective.measure import measure
from throughtime.text import corpus as corpora
from throughtime.text import ids as ids_module
from throughtime.text import tokenizer
from throughtime.text.corpus import scan
from throughtime.text.ids import TokenIds, write_ids
from throughtime.text.settings import Text
from throughtime.text.tokenizer import ByteTokenizer


def fit(kind: str, text: str = "", **values) -> tokenizer.Tokenizer:
    return tokenizer.fit(Text(tokens=kind, **({"minimum_count": 1} | values)), [text.encode()])


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Tokenise texts into files; the path of the index."""
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path))
    index = tmp_path / "ids" / "text.json"
    index.parent.mkdir()

    def write(fitted: tokenizer.Tokenizer, *texts: str | bytes, separator: bytes = b""):
        contents = [text.encode() if isinstance(text, str) else text for text in texts]
        corpus = corpus_of(tmp_path, *contents)
        for earlier in index.parent.iterdir():
            earlier.unlink()
        write_ids(index, corpus, scan(corpus, fitted.kind), fitted, separator)
        return index

    return write


def shard_of(index, number=0):
    return index.with_name(f"text.{number}.safetensors")


def test_a_shard_is_a_safetensors_file_with_the_same_ids(write):
    index = write(fit("char", "abc|"), "ab|c", "cc", separator=b"|")
    ids = TokenIds(index)
    with safe_open(shard_of(index), "numpy") as file:
        assert file.get_tensor("ids").dtype == np.uint16
        assert file.get_tensor("ids").tolist() == ids.read(0, 6).tolist() == [1, 2, 4, 3, 3, 3]
        assert file.get_tensor("documents").dtype == np.int64
        assert file.get_tensor("documents").tolist() == ids.documents.tolist() == [0, 3, 4]
        counts = json.loads(file.metadata()["counts"])
        assert counts | {"text": ""} == {"text": "", "pieces": 3, "known_bytes": 6, "unknown": 0, "exact": True}
    told = json.loads(index.read_text())
    assert (told["facts"], [length for length, _ in told["shards"]]) == (ids.facts._asdict(), [6])
    assert len(ids) == 6


def test_many_tokens_take_four_bytes_each(write):
    fitted = fit("char", "".join(map(chr, range(0x10000, 0x20001))))
    path = write(fitted, "\U00020000\U00010000")
    with safe_open(shard_of(path), "numpy") as file:
        assert file.get_tensor("ids").dtype == np.uint32
        assert file.get_tensor("ids").tolist() == [65_537, 1]
    assert TokenIds(path).read(0, 2).tolist() == [65_537, 1]


def test_the_facts_name_the_text_and_the_tokeniser(write, tmp_path):
    fitted = fit("char", "ab")
    facts = TokenIds(write(fitted, "ab")).facts
    assert facts.text == scan(corpus_of(tmp_path, b"ab"), "char").digest
    assert facts.tokenizer == fitted.digest


COUNTS = ("bytes", "characters", "unknown", "hidden_bytes", "first_bytes", "first_characters", "exact")


@pytest.mark.parametrize(
    ("kind", "sample", "text", "counts"),
    [
        ("char", "abc\n", "abcabc\n", (7, 7, 0, 0, 1, 1, True)),
        ("char", "ab\u4e00", "\u4e00ab", (5, 3, 0, 0, 3, 1, True)),
        ("char", "ab", "\u00e9ab", (4, 3, 1, 2, 2, 1, False)),
        ("char", "ab", "a\U0001f600b\u00e9", (8, 4, 2, 6, 1, 1, False)),
        ("word", "the cat", "the cat cat", (11, 11, 0, 0, 3, 3, True)),
        ("word", "the cat", "dog cat", (7, 7, 1, 3, 3, 3, False)),
        ("word", "the cat", " d\u00f6g cat", (9, 8, 1, 5, 5, 4, False)),
        ("word", "the cat", "the  cat\n", (9, 9, 2, 2, 3, 3, False)),
        ("byte", "", "\u00e9a", (3, 2, 0, 0, 1, 1, True)),
        ("byte", "", b"\xff\xfea", (3, None, 0, 0, 1, 1, True)),
        ("byte", "", b"\x80a", (2, None, 0, 0, 1, 0, True)),
        ("bpe", "the the the", "the cat", (7, 7, 0, 0, 3, 3, True)),
        ("bpe", "\u4e00\u4e00 \u4e00\u4e00 \u4e00\u4e00", "\u4e00\u4e00x", (7, 3, 0, 0, 6, 2, True)),
    ],
)
def test_counts_of_small_texts(write, kind, sample, text, counts):
    facts = TokenIds(write(fit(kind, sample), text)).facts
    assert tuple(getattr(facts, name) for name in COUNTS) == counts


def test_an_unknown_first_token_is_neither_counted_nor_charged(write):
    ids = TokenIds(write(fit("char", "ab"), "\u00e9y"))
    found = measure(0.0, len(ids) - 1, ids.facts)
    assert (found.unknown, found.spelled_bits) == (1, 16)
    assert found.as_dict()["unknown_share"] == 1


def test_counts_do_not_depend_on_pieces_and_batches(write, monkeypatch):
    fitted = fit("word", "the cat\n")
    text = "dog the cat\nd\u00f6g\n" * 20
    whole = TokenIds(write(fitted, text, text))
    monkeypatch.setattr(ids_module, "BATCH_BYTES", 16)
    monkeypatch.setattr(ids_module, "SHARD_TOKENS", 20)
    monkeypatch.setattr(type(fitted), "piece_limit", 12)
    index = write(fitted, text, text)
    parts = TokenIds(index)
    assert len(json.loads(index.read_text())["shards"]) > 5
    assert parts.facts == whole.facts
    assert parts.read(0, len(parts)).tolist() == whole.read(0, len(whole)).tolist()
    assert parts.documents.tolist() == whole.documents.tolist() == [0, len(fitted.encode(text))]


def test_decoding_that_goes_wrong_is_seen(write):
    """A tokeniser that exchanges two characters of one length, which counts alone cannot show."""
    fitted = fit("char", "abc")
    fitted.pieces = (fitted.pieces[0], b"b", b"a", b"c")
    assert not TokenIds(write(fitted, "abc")).facts.exact


@pytest.mark.parametrize("releases", [1, 2, 2048])
def test_reading_any_span(write, monkeypatch, releases):
    monkeypatch.setattr(ids_module, "READS_BETWEEN_RELEASES", releases)
    in_small_pieces(monkeypatch, ByteTokenizer, shard_tokens=10 * releases)
    ids = TokenIds(write(fit("byte"), bytes(range(200))))
    for start in range(0, 200, 7):
        read = ids.read(start, start + 9)
        assert (read.dtype, read.tolist()) == (np.int64, list(range(start, min(start + 9, 200))))
    assert ids.read(7, 191).tolist() == list(range(7, 191))
    assert [ids.read(*span).tolist() for span in ((5, 5), (200, 210), (0, 0))] == [[], [], []]


def test_documents_within_a_span_are_counted_from_its_start(write):
    ids = TokenIds(write(fit("byte"), b"ab|cdef|g", b"h", separator=b"|"))
    assert ids.documents.tolist() == [0, 3, 8, 9]
    spans = [(0, 10), (0, 3), (1, 3), (3, 9), (4, 9), (9, 10), (10, 12)]
    found = [ids.documents_within(*span).tolist() for span in spans]
    assert found == [[0, 3, 8, 9], [0], [], [0, 5], [4], [0], []]


def in_small_pieces(monkeypatch, kind, shard_tokens):
    monkeypatch.setattr(ids_module, "BATCH_BYTES", 4)
    monkeypatch.setattr(ids_module, "SHARD_TOKENS", shard_tokens)
    monkeypatch.setattr(corpora, "BLOCK", 4)
    monkeypatch.setattr(kind, "piece_limit", 4)


def failing_after(batches, fitted, monkeypatch):
    """The pieces that are encoded; after so many batches there is an error instead."""
    encode_many, seen = fitted.encode_many, []

    def encode(pieces):
        if len(seen) == batches:
            raise RuntimeError("disk")
        seen.append(b"".join(pieces))
        return encode_many(pieces)

    monkeypatch.setattr(fitted, "encode_many", encode)
    return seen


def test_encoding_that_fails_leaves_no_file(write, monkeypatch, tmp_path):
    fitted = fit("byte")
    in_small_pieces(monkeypatch, ByteTokenizer, shard_tokens=100)
    failing_after(1, fitted, monkeypatch)
    with pytest.raises(RuntimeError, match="disk"):
        write(fitted, b"0123456789")
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".txt"]


@pytest.mark.parametrize("damaged", [None, 0, 1])
def test_a_text_goes_on_after_the_last_shard_that_is_whole(tmp_path, monkeypatch, damaged):
    fitted, text, index = fit("byte"), bytes(range(100)), tmp_path / "text.json"
    corpus = corpus_of(tmp_path, text[:50], text[50:])
    in_small_pieces(monkeypatch, ByteTokenizer, shard_tokens=12)
    found = scan(corpus, "byte")
    with monkeypatch.context() as broken:
        failing_after(8, fitted, broken)
        with pytest.raises(RuntimeError, match="disk"):
            write_ids(index, corpus, found, fitted)
    assert not index.exists()
    whole = [path.name for path in sorted(tmp_path.glob("*.safetensors"))]
    assert whole == ["text.0.safetensors", "text.1.safetensors"]
    if damaged is not None:
        place = shard_of(index, damaged)
        place.write_bytes(place.read_bytes()[:-1])
    seen = failing_after(None, fitted, monkeypatch)
    write_ids(index, corpus, found, fitted)
    ids = TokenIds(index)
    lengths = [length for length, _ in json.loads(index.read_text())["shards"]]
    assert b"".join(seen) == text[sum(lengths[: 2 if damaged is None else damaged]) :]
    assert ids.read(0, 100).tolist() == list(text)
    assert ids.documents.tolist() == [0, 50]
    assert ids.facts.exact
    assert (ids.facts.bytes, ids.facts.first_bytes) == (100, 1)


DAMAGES = {
    "nothing in it": lambda content: content[:0],
    "cut in the header": lambda content: content[:100],
    "cut in the ids": lambda content: content[:4097],
    "cut by a byte": lambda content: content[:-1],
    "no JSON": lambda content: content[:8] + b"\xff" * 4088 + content[4096:],
    "a list": lambda content: content[:8] + b"[1]".ljust(4088) + content[4096:],
    "no counts": lambda content: content[:8] + b"{}".ljust(4088) + content[4096:],
    "other counts": lambda content: content.replace(b"known_bytes", b"known_bites"),
    "fewer ids": lambda content: content.replace(b"[0, 18]", b"[0, 16]"),
    "another dtype": lambda content: content.replace(b'"U16"', b'"F16"'),
    "a text": lambda _: b"hello, this is a text and no file of ids",
}


DAMAGED_INDEX = {
    "nothing in it": lambda _: "",
    "a list": lambda _: "[1]",
    "no shards": lambda content: content.replace("shards", "sharts"),
    "other facts": lambda content: content.replace("hidden_bytes", "hidden_bites"),
    "other lengths": lambda content: content.replace(" 9,", " 8,"),
    "a number that JSON has not": lambda content: content.replace(" 9,", " NaN,"),
    "a depth that nobody reads": lambda _: "[" * 100_000,
}


def refused(index):
    """What is said of damaged files, between where they lie and how to make them anew."""
    with pytest.raises(ThroughtimeError) as caught:
        TokenIds(index)
    message = str(caught.value)
    assert "\n" not in message
    told, remedy = message.split("; ")
    assert remedy == f"delete {index} to make them anew"
    return told


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_shard_is_an_error(write, how):
    index = write(fit("byte"), b"some text")
    place = shard_of(index)
    place.write_bytes(DAMAGES[how](place.read_bytes()))
    assert refused(index).startswith(f"the ids {place} are damaged (")


@pytest.mark.parametrize("how", DAMAGED_INDEX)
def test_a_damaged_index_is_an_error(write, how):
    index = write(fit("byte"), b"some text")
    before = index.read_text()
    index.write_text(DAMAGED_INDEX[how](before))
    assert index.read_text() != before
    assert refused(index).startswith(f"the ids {index} are damaged (")


def test_a_missing_file_is_an_error(write):
    index = write(fit("byte"), b"some text")
    shard_of(index).unlink()
    assert refused(index).startswith(f"the ids {shard_of(index)} are damaged (cannot read ")
    index.unlink()
    assert refused(index).startswith(f"the ids {index} are damaged (cannot read ")
