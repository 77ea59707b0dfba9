"""A prompt is read as the model's text spelled it, or what is unknown about it is named."""

from __future__ import annotations

import unicodedata

import pytest

from throughtime.errors import ThroughtimeError
from throughtime.text.prompt import encode_documents
from throughtime.text.settings import Text
from throughtime.text.tokenizer import fit

WORDS = "the king saw a queen\nand (the) café was full\n"
COMPOSED, APART = "café", unicodedata.normalize("NFD", "café")


def tokens_of(kind, text):
    return fit(Text(tokens=kind, minimum_count=1, vocabulary_size=300), [text.encode()])


def read(tokenizer, prompt, separator=""):
    return [tokenizer.pieces[index].decode() for index in tokenizer.opening(prompt, separator)]


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("queen", [" queen"]), ("king saw", [" king", " saw"]), (" the king", ["the", " king"]), ("the", ["the"]),
        (" queen", [" queen"]), (APART, [" " + COMPOSED]), ("the king", ["the", " king"]),
    ],
)  # fmt: skip
def test_a_prompt_may_begin_in_the_middle_of_a_line(prompt, pieces):
    assert read(tokens_of("word", WORDS), prompt) == pieces


@pytest.mark.parametrize(("known", "typed"), [(COMPOSED, APART), (APART, COMPOSED)])
@pytest.mark.parametrize("kind", ["char", "word"])
def test_both_normal_forms_of_a_prompt_are_read_as_the_text_had_them(kind, known, typed):
    tokenizer = tokens_of(kind, f"a {known}\n")
    assert tokenizer.opening(f"a {typed}") == tokenizer.encode(f"a {known}").tolist()


def test_what_is_known_is_read_as_it_is():
    both = tokens_of("char", f"{COMPOSED} {APART}\n")
    for prompt in (COMPOSED, APART):
        assert "".join(read(both, prompt)) == prompt


@pytest.mark.parametrize(
    ("kind", "prompt", "told"),
    [
        ("char", "k\u0430fe", r"'\u0430' \(U\+0430 CYRILLIC SMALL LETTER A\)$"),
        ("char", "zxZXjz", r"'z' \(U\+007A\), 'x' \(U\+0078\), 'Z' \(U\+005A\), 'X' \(U\+0058\), 'j' \(U\+006A\)$"),
        ("char", "0123456", "and 2 more$"),
        ("word", "the Queen", r"' Queen' \(it has ' queen'\)$"),
        ("word", "the \u0430 king", r"' \u0430' \(U\+0430\)$"),
        ("word", "the (queen", r"'queen' \(it has ' queen'\)$"),
        ("word", "zebra king", "'zebra'$"),
    ],
)  # fmt: skip
def test_what_is_unknown_is_named(kind, prompt, told):
    with pytest.raises(ThroughtimeError, match=r"the model's vocabulary lacks a part of the prompt: .*" + told):
        tokens_of(kind, WORDS).opening(prompt)


@pytest.mark.parametrize(
    ("kind", "text", "separator", "pieces"),
    [
        ("char", "ab\ncd\n", "", ["\n"]),
        ("char", "ACGTACGT", "", ["A"]),
        ("word", "one two two", "", [" two"]),
        ("char", "ab;cd;", ";", [";"]),
        ("char", "ab\ncd\n", "|", ["\n"]),
        ("char", "ACGT", "|", ["A"]),
        ("byte", "ab", "\n\n", ["\n", "\n"]),
        ("bpe", "ab", "", ["\n"]),
    ],
)
def test_no_prompt_begins_with_a_token_that_was_trained(kind, text, separator, pieces):
    tokenizer = tokens_of(kind, text)
    assert read(tokenizer, "", separator) == pieces
    assert tokenizer.unknown not in tokenizer.opening("", separator)


def test_no_token_stands_for_text_of_two_documents():
    tokenizer = tokens_of("bpe", "a..b a..b\n" * 30)
    whole = tokenizer.encode("a..b").tolist()
    parts = encode_documents(tokenizer, "a..b", ".")
    assert [tokenizer.decode(ids) for ids in parts] == ["a.", ".", "b"]
    assert whole != [index for ids in parts for index in ids]
    assert encode_documents(tokenizer, "", ".") == []
    assert encode_documents(tokenizer, "ab.", ".") == [tokenizer.encode("ab.").tolist()]


def test_the_fingerprint_tells_tokenizers_apart():
    made = [tokens_of(*args).fingerprint for args in (("char", "abc"), ("char", "abd"), ("byte", "a"), ("word", "abc"))]
    made += [tokens_of("bpe", text).fingerprint for text in ("ab ab ab", "cd cd cd")]
    assert len(set(made)) == len(made)
    assert tokens_of("char", "cba").fingerprint == made[0]
