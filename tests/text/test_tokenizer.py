"""The four tokenisers: ours beside the library's, whole vocabularies, and files that are none of ours."""

import json
import os
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from helpers import damaged
from throughtime.errors import ThroughtimeError
from throughtime.text import tokenizer as tokenizers
from throughtime.text.settings import Text

KINDS = ["byte", "char", "word", "bpe"]
SAMPLE = "the cat's mat, the caf\u00e9 \u4e00\u0416\n  a \U0001f600 it’s\tso; can't <unk>\r\n" * 3
CHARACTERS = "".join(sorted(set(SAMPLE + " \n\t\r\x0b\x1c\0\u0085\u00a0\u2003\u2028\u0301\u200d_0Z\ufeff\U0010ffff")))

seen_texts = st.text(alphabet=st.sampled_from(sorted(set(SAMPLE))), max_size=60)
texts = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=st.sampled_from(CHARACTERS), max_size=60),
    st.lists(st.sampled_from(["the", " ", "cat", "<unk>", "'", "it’s", "\n", "  ", "\r\n"])).map("".join),
)


def fit(kind: str, *pieces: str, **values) -> tokenizers.Tokenizer:
    wanted = {"minimum_count": 1, "vocabulary_size": 400} | values
    return tokenizers.fit(Text(tokens=kind, **wanted), [piece.encode() for piece in pieces])


@pytest.fixture(scope="module", params=KINDS)
def fitted(request):
    return fit(request.param, SAMPLE)


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "tokenizer.json"
    path.write_text(fitted.to_json(), "utf-8")
    return path


@pytest.fixture(scope="module")
def library(saved):
    return Library.from_file(str(saved))


@settings(deadline=None)
@given(text=texts)
@example(text="")
@example(text=CHARACTERS)
@example(text="\n\n \n")
def test_encoding_and_decoding_agree_with_the_library(fitted, library, text):
    ids = fitted.encode(text)
    assert ids.tolist() == library.encode(text).ids
    assert fitted.decode(ids) == library.decode(ids.tolist())


@settings(deadline=None)
@given(text=texts)
@example(text=CHARACTERS)
def test_decoding_gives_back_all_but_the_unknown(fitted, text):
    ids = fitted.encode(text)
    if fitted.kind == "char":
        expected = "".join(character if character in SAMPLE else "<unk>" for character in text)
        assert fitted.decode(ids) == expected
    elif fitted.unknown is None or fitted.unknown not in ids:
        assert fitted.decode(ids) == text


@settings(deadline=None)
@given(text=seen_texts)
def test_seen_characters_are_never_unknown(fitted, text):
    if fitted.kind != "word":
        assert fitted.unknown not in fitted.encode(text)
        assert fitted.decode(fitted.encode(text)) == text


@given(content=st.binary(max_size=60))
def test_byte_ids_are_the_bytes(content):
    fitted = tokenizers.fit(Text(tokens="byte"), [])
    [ids] = fitted.encode_many([content])
    assert ids.tolist() == list(content)
    assert fitted.decode_bytes(ids) == content


@settings(deadline=None)
@given(data=st.data())
def test_a_stream_of_text_joins_to_the_text(fitted, data):
    ids = data.draw(st.lists(st.integers(0, fitted.vocabulary_size - 1), max_size=30))
    parts = list(fitted.decode_stream(ids))
    assert len(parts) == len(ids) + 1
    assert "".join(parts) == fitted.decode(ids)


def test_a_character_of_several_tokens_comes_whole():
    fitted = tokenizers.fit(Text(tokens="byte"), [])
    assert list(fitted.decode_stream("a\u4e00".encode())) == ["a", "", "", "\u4e00", ""]
    assert list(fitted.decode_stream(b"a\xe4\xb8")) == ["a", "", "", "\ufffd"]


@settings(deadline=None)
@given(text=texts)
@example(text=" \n the\n\n!?\r\n")
def test_every_line_end_is_a_token_of_its_own(fitted, text):
    ids = fitted.encode(text).tolist()
    line_end = fitted.pieces.index(b"\n")
    assert ids.count(line_end) == text.count("\n")
    assert [piece for piece in fitted.pieces if b"\n" in piece] == [b"\n"]


def test_the_character_vocabulary_is_what_the_pieces_hold():
    fitted = fit("char", "b\na", "\u4e00b\u00e9", minimum_count=9, vocabulary_size=2)
    assert [piece.decode() for piece in fitted.pieces] == ["<unk>", "\n", "a", "b", "\u00e9", "\u4e00"]
    assert fitted.unknown == 0
    assert fitted.encode("ab?\u4e01\n").tolist() == [2, 3, 0, 0, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ["<unk>", " b", "\n", "c", " c", " don't", "a"]),
        ({"minimum_count": 2}, ["<unk>", " b", "\n", "c"]),
        ({"minimum_count": 3}, ["<unk>", " b"]),
        ({"vocabulary_size": 3}, ["<unk>", " b", "\n"]),
        ({"vocabulary_size": 2}, ["<unk>", " b"]),
    ],
)
def test_the_word_vocabulary_is_the_most_frequent_words(values, expected):
    fitted = fit("word", "a b b\n", "c c\n", "c don't b", **values)
    assert [piece.decode() for piece in fitted.pieces[:2]] == expected[:2]
    assert {piece.decode() for piece in fitted.pieces} == set(expected)
    assert (fitted.unknown, fitted.encode("zebra").tolist()) == (0, [0])


def test_words_bring_their_space_along():
    fitted = fit("word", SAMPLE)
    words = [fitted.pieces[index].decode() for index in fitted.encode(" the cat's  mat,so; can't it’s\t<unk> <unk>\n")]
    assert words[:8] == [" the", " cat's", " ", " mat", ",", "so", ";", " can't"]
    assert words[8:] == [" it’s", "\t", "<unk>", " <unk>", "\n"]


def test_pair_merges_come_from_the_given_pieces_and_keep_to_the_size():
    text = "low lower lowest newer newest\n" * 4
    fitted = fit("bpe", text, vocabulary_size=265)
    merged = [piece.decode() for piece in fitted.pieces[256:]]
    assert sorted(fitted.pieces[:256]) == [bytes([byte]) for byte in range(256)]
    assert len(merged) == 9
    assert all(len(piece) > 1 and piece in text for piece in merged)
    assert fitted.unknown is None


@pytest.mark.parametrize(("count", "merged"), [(1, {b"ab", b"xy"}), (2, {b"ab"})])
def test_pairs_seen_too_seldom_are_not_merged(count, merged):
    assert set(fit("bpe", "ab,ab;xy", minimum_count=count).pieces[256:]) == merged


@pytest.mark.parametrize("size", [2, 256])
def test_pairs_need_more_room_than_the_bytes_take(size):
    message = f"text.vocabulary_size must be over 256 for bpe (the bytes come first), got {size}"
    with pytest.raises(ThroughtimeError) as caught:
        fit("bpe", "abab", vocabulary_size=size)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["", "abc", "a b c d\n"])
def test_pairs_without_a_merge_still_give_the_text_back(text):
    fitted = fit("bpe", text, minimum_count=2)
    assert fitted.encode("abc").tolist() == fitted.library.encode("abc").ids
    assert fitted.decode(fitted.encode("abc")) == "abc"


@pytest.mark.parametrize("kind", KINDS)
def test_fitting_twice_gives_the_same_tokeniser(kind, tmp_path):
    text = " ".join(f"{first}{second}" for first in "abcdefgh" for second in "ijklmnop")  # full of ties
    contents = set()
    for index in range(4):
        fitted = fit(kind, text, text[::-1], vocabulary_size=300)
        (tmp_path / str(index)).write_text(fitted.to_json(), "utf-8")
        contents.add((tmp_path / str(index)).read_bytes())
    assert len(contents) == 1


def test_a_loaded_tokeniser_is_the_saved_one(fitted, saved):
    loaded = tokenizers.load(saved)
    assert type(loaded) is type(fitted)
    assert (loaded.kind, loaded.pieces, loaded.unknown) == (fitted.kind, fitted.pieces, fitted.unknown)
    assert loaded.digest == fitted.digest
    assert loaded.encode(SAMPLE).tolist() == fitted.encode(SAMPLE).tolist()


def test_the_digest_tells_vocabularies_apart():
    assert fit("char", "ab").digest != fit("char", "abc").digest != fit("word", "abc").digest


@pytest.mark.parametrize(("last", "dtype"), [(0x10FFFF, "<u2"), (0x10FFFE, "<u4")])
def test_ids_take_four_bytes_once_there_are_more_than_65536(last, dtype):
    """The characters of the higher planes, up to `last`; with `<unk>` 65,536 tokens or 65,537."""
    count = 65_535 if dtype == "<u2" else 65_536
    fitted = fit("char", "".join(map(chr, range(last - count + 1, last + 1))))
    assert (fitted.vocabulary_size, fitted.dtype) == (count + 1, np.dtype(dtype))
    ids = fitted.encode(chr(last) + chr(last - count + 1))
    assert (ids.dtype, ids.tolist()) == (np.dtype(dtype), [count, 1])
    assert fitted.decode(ids) == chr(last) + chr(last - count + 1)


def foreign(model: models.Model, pattern: str | None = None) -> str:
    library = Library(model)
    if pattern:
        library.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return library.to_str()


NONE_OF_OURS = {
    "empty": "",
    "no JSON": "hello",
    "other JSON": '{"version": "1.0"}',
    "a list": "[1, 2]",
    "cut": json.dumps({"a": 1})[:-1],
    "word pieces": foreign(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")),
    "unigram": foreign(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0)),
    "words without <unk>": foreign(models.WordLevel({"a": 0}, "a"), tokenizers.WORD),
    "words without a pattern": foreign(models.WordLevel({"<unk>": 0, "a": 1}, "<unk>")),
    "ids with a gap": foreign(models.WordLevel({"<unk>": 0, "a": 2}, "<unk>"), tokenizers.WORD),
    "characters of two": foreign(models.WordLevel({"<unk>": 0, "ab": 1}, "<unk>"), tokenizers.ANY_CHARACTER),
    "pairs of no bytes": foreign(models.BPE({"\u2603": 0, "a": 1, "\u2603a": 2}, [("\u2603", "a")])),
}


@pytest.mark.parametrize("which", NONE_OF_OURS)
def test_a_file_that_is_none_of_ours_is_an_error(which, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(NONE_OF_OURS[which], "utf-8")
    with pytest.raises(ThroughtimeError) as caught:
        tokenizers.load(path)
    assert str(caught.value).startswith(f"{path} is not a tokeniser of this project: ")
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_an_error(saved, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(saved.read_bytes()[:-40])
    with pytest.raises(ThroughtimeError, match="is not a tokeniser of this project"):
        tokenizers.load(path)
    path.write_bytes(b"\xff" + saved.read_bytes())
    with pytest.raises(ThroughtimeError, match="byte 0 is not UTF-8"):
        tokenizers.load(path)


def test_a_missing_file_is_an_error(tmp_path):
    path = tmp_path / "none.json"
    with pytest.raises(ThroughtimeError) as caught:
        tokenizers.load(path)
    assert str(caught.value) == f"cannot read {path}: No such file or directory"


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_begins_where_there_is_no_prompt(kind):
    tokenizer = fit(kind, "ab\ncd\n")
    assert tokenizer.opening("") == tokenizer.encode("\n").tolist()
    assert tokenizer.opening("ab") == tokenizer.encode("ab").tolist()


def test_a_prompt_must_be_known():
    with pytest.raises(ThroughtimeError, match=r"lacks a part of the prompt: 'z' \(U\+007A\)"):
        fit("char", "ab").opening("abz")


def test_a_prompt_must_be_text():
    with pytest.raises(ThroughtimeError, match="the prompt is no text at character 1: surrogates not allowed"):
        fit("char", "ab").opening("a\udcff")


FORGED = {
    "cut": {"truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}},
    "filled up": {
        "padding": {
            "strategy": {"Fixed": 100_000_000}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "a",
        }
    },
    "added tokens": {
        "added_tokens": [
            {"id": 0, "content": "a", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}
        ]
    },
    "normalized": {"normalizer": {"type": "Lowercase"}},
    "processed": {
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    },
    "without a decoder": {"decoder": None},
    "cut otherwise": {"pre_tokenizer": {"type": "Whitespace"}},
    "not cut": {"pre_tokenizer": None},
    "an unknown key": {"more": 1},
    "a key less": {"truncation": ...},
    "of another version": {"version": "2.0"},
    "no model": {"model": None},
}  # fmt: skip
MODELS = {
    "an affix": {"continuing_subword_prefix": "\u00e9"},
    "another affix": {"end_of_word_suffix": "</w>"},
    "dropout": {"dropout": 0.5},
    "fused": {"fuse_unk": True},
    "another unknown token": {"unk_token": "a"},
    "merges of nothing": {"merges": [["zz", "yy"]]},
    "merges of three": {"merges": [["a", "b", "c"]]},
    "merges of two kinds": {"merges": ["a b", ["a", "b"], 7]},
    "merges of numbers": {"merges": [[1, 2]]},
    "no list of merges": {"merges": 7},
    "another kind": {"type": "Unigram"},
    "no vocabulary": {"vocab": None},
    "an empty vocabulary": {"vocab": {}},
    "ids that are no integers": {"vocab": {"<unk>": 0.0, "a": 1.0}},
    "ids that are booleans": {"vocab": {"<unk>": False, "a": True}},
    "ids below 0": {"vocab": {"<unk>": -1, "a": 0}},
    "ids out of range": {"vocab": {"<unk>": 0, "a": 1 << 70}},
    "an id twice": {"vocab": {"<unk>": 0, "a": 1, "b": 1}},
    "an empty token": {"vocab": {"<unk>": 0, "": 1}},
}


@pytest.mark.parametrize("how", [*FORGED, *MODELS])
def test_a_tokeniser_that_this_project_does_not_write_is_an_error(fitted, tmp_path, how):
    description = json.loads(fitted.to_json())
    changes = FORGED.get(how) or {"model": description["model"] | MODELS[how]}
    changed = {key: value for key, value in (description | changes).items() if value is not ...}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(changed), "utf-8")
    with pytest.raises(ThroughtimeError) as caught:
        tokenizers.load(path)
    assert str(caught.value).startswith(f"{path} is not a tokeniser of this project: ")
    assert "\n" not in str(caught.value)


def test_bytes_without_a_token_are_an_error():
    """The library would leave them out of a text."""
    description = json.loads(fit("bpe", SAMPLE).to_json())
    tokens = [token for token in description["model"]["vocab"] if token != "q"]
    description["model"]["vocab"] = {token: index for index, token in enumerate(tokens)}
    with pytest.raises(ValueError, match="tokens are not bytes and sequences of them"):
        tokenizers.from_json(json.dumps(description))


@pytest.mark.parametrize("where", ["/dev/zero", "pipe", "folder", "large"])
def test_what_is_no_regular_file_of_bearable_size_is_no_tokeniser(tmp_path, where):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ThroughtimeError, match=r"^cannot read "):
        tokenizers.load(tmp_path / where)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def forged(data: st.DataObject, document: Any) -> Any:
    """The document with one of its values replaced, left out or added, anywhere in it."""
    if not isinstance(document, dict | list) or not document or data.draw(st.integers(0, 5)) == 0:
        return data.draw(json_values)
    changed = document.copy()
    key = data.draw(st.sampled_from(sorted(document) if isinstance(document, dict) else list(range(len(document)))))
    if data.draw(st.integers(0, 5)) == 0:
        del changed[key]
    else:
        changed[key] = forged(data, document[key])
    return changed


def agree_on(text: str, found: tokenizers.Tokenizer) -> None:
    """Nothing is left out, added or changed: what is known decodes to the text."""
    ids = found.encode(text)
    assert all(0 <= index < found.vocabulary_size for index in ids.tolist())
    if found.unknown is None or found.unknown not in ids:
        assert found.decode(ids) == text


@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_a_forged_tokeniser_is_an_error_or_gives_every_text_back(fitted, data):
    content = json.dumps(forged(data, json.loads(fitted.to_json())))
    with suppress(ValueError, KeyError, TypeError):
        agree_on(SAMPLE, tokenizers.from_json(content))


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_damaged_tokeniser_is_an_error_or_gives_every_text_back(saved, tmp_path_factory, data):
    content = saved.read_bytes()
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(damaged(data, content, data.draw(st.integers(0, len(content) - 1))))
    with suppress(ThroughtimeError):
        agree_on(SAMPLE, tokenizers.load(path))


def test_a_tokeniser_of_an_earlier_library_is_read():
    """It wrote merges as strings, and fewer settings of the model."""
    now = fit("bpe", SAMPLE)
    description = json.loads(now.to_json())
    description["model"]["merges"] = [" ".join(merge) for merge in description["model"]["merges"]]
    del description["model"]["ignore_merges"]
    assert tokenizers.from_json(json.dumps(description)).digest == now.digest


@pytest.mark.parametrize("text", ["every word once\n", "", "a b c"])
def test_a_text_in_which_no_word_comes_twice_gives_no_vocabulary(text):
    message = (
        "no word stands 2 times in the training text, so that the vocabulary would be empty; set text.minimum_count = "
        "1, name more text, or use --tokens char or bpe"
    )
    with pytest.raises(ThroughtimeError) as caught:
        fit("word", text, minimum_count=2)
    assert str(caught.value) == message


@pytest.mark.parametrize(("kind", "text"), [("char", "ACGTACGT"), ("word", "the cat the cat")])
def test_without_a_line_end_a_text_begins_after_a_token_that_was_trained(kind, text):
    fitted = fit(kind, text)
    [first] = fitted.opening("")
    assert first != fitted.unknown
    assert fitted.pieces[first] in text.encode()
