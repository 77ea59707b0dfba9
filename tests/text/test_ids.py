"""The file of ids: what stands in it, what is counted, and what happens when it is damaged."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from helpers import corpus_of
from throughtime.errors import ThroughtimeError
from throughtime.objective.measure import measure
from throughtime.recipe import Text
from throughtime.text import corpus as corpora
from throughtime.text import ids as ids_module
from throughtime.text import tokenizer
from throughtime.text.corpus import scan
from throughtime.text.ids import IdsFile, write_ids


def fit(kind: str, text: str = "", **values) -> tokenizer.Tokenizer:
    return tokenizer.fit(Text(tokens=kind, **({"minimum_count": 1} | values)), [text.encode()])


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Tokenise texts into a file; its path."""
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path))

    def write(fitted: tokenizer.Tokenizer, *texts: str | bytes, separator: bytes = b""):
        contents = [text.encode() if isinstance(text, str) else text for text in texts]
        corpus = corpus_of(tmp_path, *contents)
        return write_ids("text.safetensors", corpus, scan(corpus, fitted.kind), fitted, separator)

    return write


def test_the_file_is_a_safetensors_file_with_the_same_ids(write):
    path = write(fit("char", "abc|"), "ab|c", "cc", separator=b"|")
    ids = IdsFile(path)
    with safe_open(path, "numpy") as file:
        assert file.get_tensor("ids").dtype == np.uint16
        assert file.get_tensor("ids").tolist() == ids.read(0, 6).tolist() == [1, 2, 4, 3, 3, 3]
        assert file.get_tensor("documents").dtype == np.int64
        assert file.get_tensor("documents").tolist() == ids.documents.tolist() == [0, 3, 4]
        assert json.loads(file.metadata()["facts"]) == ids.facts._asdict()
    assert len(ids) == 6


def test_many_tokens_take_four_bytes_each(write):
    fitted = fit("char", "".join(map(chr, range(0x10000, 0x20001))))
    path = write(fitted, "\U00020000\U00010000")
    with safe_open(path, "numpy") as file:
        assert file.get_tensor("ids").dtype == np.uint32
        assert file.get_tensor("ids").tolist() == [65_537, 1]
    assert IdsFile(path).read(0, 2).tolist() == [65_537, 1]


def test_the_facts_name_the_text_and_the_tokeniser(write, tmp_path):
    fitted = fit("char", "ab")
    facts = IdsFile(write(fitted, "ab")).facts
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
    facts = IdsFile(write(fit(kind, sample), text)).facts
    assert tuple(getattr(facts, name) for name in COUNTS) == counts


def test_an_unknown_first_token_is_neither_counted_nor_charged(write):
    ids = IdsFile(write(fit("char", "ab"), "\u00e9y"))
    found = measure(0.0, len(ids) - 1, ids.facts)
    assert (found.unknown, found.spelled_bits) == (1, 16)
    assert found.as_dict()["unknown_share"] == 1


def test_counts_do_not_depend_on_pieces_and_batches(write, monkeypatch):
    fitted = fit("word", "the cat\n")
    text = "dog the cat\nd\u00f6g\n" * 20
    whole = IdsFile(write(fitted, text, text))
    monkeypatch.setattr(ids_module, "BATCH_BYTES", 16)
    monkeypatch.setattr(type(fitted), "piece_limit", 12)
    parts = IdsFile(write(fitted, text, text))
    assert parts.facts == whole.facts
    assert parts.read(0, len(parts)).tolist() == whole.read(0, len(whole)).tolist()
    assert parts.documents.tolist() == whole.documents.tolist() == [0, len(fitted.encode(text))]


def test_decoding_that_goes_wrong_is_seen(write):
    """A tokeniser that exchanges two characters of one length, which counts alone cannot show."""
    fitted = fit("char", "abc")
    fitted.pieces = (fitted.pieces[0], b"b", b"a", b"c")
    assert not IdsFile(write(fitted, "abc")).facts.exact


@pytest.mark.parametrize("releases", [1, 2, 2048])
def test_reading_any_span(write, monkeypatch, releases):
    monkeypatch.setattr(ids_module, "READS_BETWEEN_RELEASES", releases)
    ids = IdsFile(write(fit("byte"), bytes(range(200))))
    for start in range(0, 200, 7):
        read = ids.read(start, start + 9)
        assert (read.dtype, read.tolist()) == (np.int64, list(range(start, min(start + 9, 200))))


def test_documents_within_a_span_are_counted_from_its_start(write):
    ids = IdsFile(write(fit("byte"), b"ab|cdef|g", b"h", separator=b"|"))
    assert ids.documents.tolist() == [0, 3, 8, 9]
    spans = [(0, 10), (0, 3), (1, 3), (3, 9), (4, 9), (9, 10), (10, 12)]
    found = [ids.documents_within(*span).tolist() for span in spans]
    assert found == [[0, 3, 8, 9], [0], [], [0, 5], [4], [0], []]


def test_encoding_that_fails_leaves_what_was_there(write, monkeypatch):
    fitted = fit("byte")
    path = write(fitted, b"good")
    before = path.read_bytes()
    fail_after_the_first_batch(monkeypatch, fitted)
    with pytest.raises(RuntimeError, match="disk"):
        write(fitted, b"0123456789")
    assert path.read_bytes() == before


def test_encoding_that_fails_leaves_nothing_at_the_final_name(write, monkeypatch, tmp_path):
    fitted = fit("byte")
    fail_after_the_first_batch(monkeypatch, fitted)
    with pytest.raises(RuntimeError, match="disk"):
        write(fitted, b"0123456789")
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".txt"]


def fail_after_the_first_batch(monkeypatch, fitted):
    encode_many, calls = fitted.encode_many, []

    def failing(pieces):
        if calls:
            raise RuntimeError("disk")
        calls.append(len(pieces))
        return encode_many(pieces)

    monkeypatch.setattr(ids_module, "BATCH_BYTES", 4)
    monkeypatch.setattr(corpora, "BLOCK", 4)
    monkeypatch.setattr(type(fitted), "piece_limit", 4)
    monkeypatch.setattr(fitted, "encode_many", failing)


DAMAGES = {
    "empty": lambda content: content[:0],
    "cut in the header": lambda content: content[:100],
    "cut in the ids": lambda content: content[:4097],
    "cut by a byte": lambda content: content[:-1],
    "no JSON": lambda content: content[:8] + b"\xff" * 4088 + content[4096:],
    "a list": lambda content: content[:8] + b"[1]".ljust(4088) + content[4096:],
    "no facts": lambda content: content[:8] + b"{}".ljust(4088) + content[4096:],
    "other facts": lambda content: content.replace(b"hidden_bytes", b"hidden_bites"),
    "another dtype": lambda content: content.replace(b'"U16"', b'"F16"'),
    "a text": lambda _: b"hello, this is a text and no file of ids",
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_an_error(write, how):
    path = write(fit("byte"), b"some text")
    path.write_bytes(DAMAGES[how](path.read_bytes()))
    with pytest.raises(ThroughtimeError) as caught:
        IdsFile(path)
    message = str(caught.value)
    assert message.startswith(f"the ids {path} are damaged (")
    assert message.endswith("); delete the file to make it anew")
    assert "\n" not in message


def test_a_missing_file_is_an_error(tmp_path):
    path = tmp_path / "none.safetensors"
    with pytest.raises(ThroughtimeError) as caught:
        IdsFile(path)
    assert str(caught.value) == f"cannot read the ids {path}: No such file or directory; delete it to make it anew"
