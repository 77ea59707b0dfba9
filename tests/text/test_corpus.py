"""Documents, their split, what is odd about them, and pieces: nothing is dropped or changed on the way."""

import hashlib
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers import corpus_of
from throughtime.errors import ThroughtimeError
from throughtime.text import corpus as corpora
from throughtime.text import plain, tokenizer
from throughtime.text.corpus import Corpus, open_corpus, read_pieces, scan, split_corpus
from throughtime.text.corpus import notes as notes_on
from throughtime.text.plain import read_blocks
from throughtime.text.settings import Text

SHAKESPEARE = Path(__file__).parents[2].parent / "shared" / "data" / "text" / "shakespeare.txt"

ODD_CHARACTERS = " \n\t\r\x0b\x1c\u0085\u00a0\u2003\u2028'’.,-<>|&_0aZ\u00e9\u0416\u4e00\U0001f600\u0301\u200d"
texts = st.text(alphabet=st.sampled_from(ODD_CHARACTERS), max_size=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("texts")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path / "cache"))


def bytes_of(corpus: Corpus) -> bytes:
    return b"".join(block for d in corpus.documents for block in read_blocks(d.path, d.start, d.stop))


def set_block(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(plain, "BLOCK", size)
    monkeypatch.setattr(corpora, "BLOCK", size)


NOT_UTF8 = [
    (b"ab\xffcd", "2 is 0xff (invalid start byte)"),
    (b"ab\xc3(d", "2 is 0xc3 (invalid continuation byte)"),
    (b"abc\xe2\x82", "3 is 0xe2 (unexpected end of data)"),
    ("é".encode() * 5 + b"\x80", "10 is 0x80 (invalid start byte)"),
    (b"\xed\xa0\x80", "0 is 0xed (invalid continuation byte)"),
    (b"a" * 1234 + b"\xfe", "1,234 is 0xfe (invalid start byte)"),
]


@pytest.mark.parametrize("block", [1, 2, 3, 4, 1 << 22])
@pytest.mark.parametrize(("content", "finding"), NOT_UTF8)
@pytest.mark.parametrize("tokens", ["char", "word", "bpe"])
def test_bytes_that_are_not_utf8_are_an_error(folder, monkeypatch, content, finding, tokens, block):
    set_block(monkeypatch, block)
    with pytest.raises(ThroughtimeError) as caught:
        scan(corpus_of(folder, b"fine", content), tokens)
    assert str(caught.value).startswith(f"1.txt is not UTF-8: byte {finding}; ")
    assert str(caught.value).endswith(", or use --tokens byte")


@pytest.mark.parametrize("block", [2, 1 << 22])
def test_the_byte_is_counted_from_the_start_of_the_file_in_every_split(folder, monkeypatch, block):
    set_block(monkeypatch, block)
    _, valid, _ = split_corpus(corpus_of(folder, b"abcdefghi\xffj"), (0.5, 0.5, 0.0))
    with pytest.raises(ThroughtimeError, match="byte 9 is 0xff"):
        scan(valid, "char")


@pytest.mark.parametrize("block", [1, 3, 1 << 22])
def test_byte_tokens_take_any_bytes_and_count_no_characters(folder, monkeypatch, block):
    set_block(monkeypatch, block)
    assert scan(corpus_of(folder, "é".encode(), b"a\xffb", b"c"), "byte").characters is None
    assert scan(corpus_of(folder, "é".encode(), "b\u4e00".encode()), "byte").characters == 3


@pytest.mark.parametrize("block", [1, 2, 3, 5, 1 << 22])
@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (b"plain\r text\n", ()),
        (b"a\0b\0", ("0.txt holds 2 NUL bytes, kept as text; is it a text file?",)),
        (b"a\r\nb\r\r\n", ("0.txt has 2 CR LF line ends, kept as text; text.newlines = 'lf' makes them LF",)),
        (
            b"\xef\xbb\xbfab\xef\xbb\xbf",
            ("0.txt begins with a byte-order mark, kept as text; text.encoding = 'utf-8-sig' leaves it out",),
        ),
        (b"", ("0.txt is empty and adds nothing",)),
    ],
)
def test_what_is_odd_is_kept_and_noted(folder, monkeypatch, content, notes, block):
    set_block(monkeypatch, block)
    corpus = corpus_of(folder, content)
    assert notes_on([scan(corpus, "char")]) == notes
    assert b"".join(piece.data for piece in read_pieces(corpus, 64)) == content


def test_settings_take_the_oddities_away(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb")
    corpus = open_corpus([str(path)], Text(encoding="utf-8-sig", newlines="lf"))
    assert (notes_on([scan(corpus, "char")]), bytes_of(corpus)) == ((), b"a\nb")


def test_a_file_that_shrinks_while_it_is_read_is_an_error(folder):
    corpus = corpus_of(folder, b"abcdef")
    (folder / "0.txt").write_bytes(b"abc")
    with pytest.raises(ThroughtimeError, match=r"^0\.txt changed while it was read; start again when it is complete$"):
        scan(corpus, "char")


def test_the_hash_tells_texts_and_documents_apart(folder):
    digests = [scan(corpus_of(folder, *parts), "char").digest for parts in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"])]
    assert len(set(digests)) == 3
    assert scan(corpus_of(folder, b"ab", b"c"), "byte").digest == digests[0]


@settings(deadline=None)
@given(contents=st.lists(texts, min_size=1, max_size=4), cuts=st.tuples(st.integers(1, 100), st.integers(0, 100)))
def test_a_split_is_contiguous_whole_and_cuts_no_character(folder, contents, cuts):
    train_percent, valid_percent = cuts[0], min(cuts[1], 100 - cuts[0])
    shares = (train_percent / 100, valid_percent / 100, (100 - train_percent - valid_percent) / 100)
    corpus = corpus_of(folder, *(text.encode() for text in contents))
    parts = [bytes_of(part) for part in split_corpus(corpus, shares)]
    assert b"".join(parts) == bytes_of(corpus)
    for part, wanted in zip(parts, shares, strict=True):
        part.decode()
        assert abs(len(part) - wanted * corpus.size) <= 4
    assert [part for part, wanted in zip(parts, shares, strict=True) if part and not wanted] == []


def test_a_split_keeps_documents_apart(folder):
    corpus = corpus_of(folder, b"01234", b"56789", b"abcde")
    spans = [[(d.name, d.start, d.stop) for d in part.documents] for part in split_corpus(corpus, (0.6, 0.2, 0.2))]
    assert spans == [
        [("0.txt", 0, 5), ("1.txt", 0, 4)],
        [("1.txt", 4, 5), ("2.txt", 0, 2)],
        [("2.txt", 2, 5)],
    ]


@pytest.mark.parametrize(
    "contents",
    [
        [b"", b"full"],
        [b"full", b"", b"fuller"],
        [b"full", b""],
        [b"", b""],
    ],
)
@pytest.mark.parametrize("shares", [(1.0, 0.0, 0.0), (0.5, 0.3, 0.2)])
def test_every_empty_file_is_in_one_split_and_noted_once(folder, contents, shares):
    parts = split_corpus(corpus_of(folder, *contents), shares)
    notes = notes_on(scan(part, "char") for part in parts)
    assert list(notes) == [
        f"{index}.txt is empty and adds nothing" for index, content in enumerate(contents) if not content
    ]


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="Tiny Shakespeare is not beside the repository")
def test_tiny_shakespeare_splits_by_convention():
    parts = split_corpus(open_corpus([str(SHAKESPEARE)], Text()), (0.9, 0.1, 0.0))
    assert [part.size for part in parts] == [1_003_854, 111_540, 0]
    assert [scan(part, "char").characters for part in parts] == [1_003_854, 111_540, 0]


separators = st.sampled_from(["", "|", "\n\n", "\r\n", "<|>", "aa", "\u4e00|"])


@settings(deadline=None, max_examples=300)
@given(text=texts, separator=separators, limit=st.integers(4, 64), block=st.integers(9, 60))
def test_pieces_are_bounded_join_to_the_text_and_open_documents_behind_separators(
    folder, text, separator, limit, block
):
    corpus = corpus_of(folder, text.encode(), b"second")
    with pytest.MonkeyPatch.context() as patch:
        set_block(patch, block)
        pieces = list(read_pieces(corpus, limit, separator.encode()))
    assert b"".join(piece.data for piece in pieces) == text.encode() + b"second"
    assert all(0 < len(piece.data) <= limit for piece in pieces)
    for piece in pieces:
        piece.data.decode()
    parts = [part + separator for part in text.split(separator)[:-1]] if separator else []
    parts += [text.removeprefix("".join(parts)), "second"]
    assert documents_of(pieces) == [part.encode() for part in parts if part]


@pytest.mark.parametrize("separator", ["<|>", "\n\n", "aaaab", "\u4e00|"])
def test_a_separator_over_a_block_boundary_is_one(folder, monkeypatch, separator):
    set_block(monkeypatch, 8)
    for before in range(1, 30):
        first, second = "x" * before + separator, "end"
        pieces = list(read_pieces(corpus_of(folder, (first + second).encode()), 64, separator.encode()))
        assert documents_of(pieces) == [first.encode(), second.encode()]


def documents_of(pieces) -> list[bytes]:
    documents: list[bytes] = []
    for piece in pieces:
        if piece.opens_document:
            documents.append(b"")
        documents[-1] += piece.data
    return documents


SAMPLE = "the cat's mat, the caf\u00e9 \u4e00\u0416\n  a \U0001f600 it’s\tso\r\n" * 3


@pytest.fixture(scope="module", params=["byte", "char", "word", "bpe"])
def fitted(request):
    wanted = Text(tokens=request.param, minimum_count=1, vocabulary_size=300)
    return tokenizer.fit(wanted, [(SAMPLE + ODD_CHARACTERS).encode()])


def ids_agree(fitted, folder, text: str, limit: int) -> bool:
    pieces = [piece.data for piece in read_pieces(corpus_of(folder, text.encode()), limit)]
    joined = [index for ids in fitted.encode_many(pieces) for index in ids.tolist()]
    return len(pieces) > 1 and joined == fitted.encode(text).tolist()


inner = st.text(alphabet=st.sampled_from(ODD_CHARACTERS.replace(" ", "").replace("\n", "")), max_size=4)
plain_words = st.builds(str.__add__, inner, st.sampled_from("aZ0_.,'>|"))
plain_gaps = st.sampled_from([" ", "  ", "\n", " \n", "\n ", "\r\n"])


@settings(deadline=None)
@given(words=st.lists(st.tuples(plain_words, plain_gaps), min_size=24, max_size=40), limit=st.integers(20, 64))
def test_pieces_give_the_ids_of_the_whole_text(fitted, folder, words, limit):
    """Each word is far below the limit and ends in a printable ASCII character."""
    assert ids_agree(fitted, folder, "".join(word + gap for word, gap in words) + "end of text" * 5, limit)


LETTERS = "'’.,-aZ\u00e9\u0416\u4e00\U0001f600\u0301"
any_words = st.text(alphabet=st.sampled_from(LETTERS), min_size=1, max_size=2)
any_gaps = st.text(alphabet=st.sampled_from(" \n\t\r\u00a0\u2003"), min_size=1, max_size=2)


@pytest.fixture(scope="module", params=["word", "bpe"])
def fitted_to_pairs(request):
    pairs = [f" {first}{second}\t{first}{second}" for first in LETTERS for second in LETTERS]
    return tokenizer.fit(Text(tokens=request.param, minimum_count=1, vocabulary_size=2000), ["".join(pairs).encode()])


@settings(deadline=None)
@given(words=st.lists(st.tuples(any_words, any_gaps), min_size=24, max_size=40), limit=st.integers(20, 64))
@example(words=[("\u0416\u0416", " ")] * 24, limit=22)
def test_pieces_give_the_ids_of_the_whole_text_in_any_script(fitted_to_pairs, folder, words, limit):
    assert ids_agree(fitted_to_pairs, folder, "".join(word + gap for word, gap in words), limit)


@pytest.mark.parametrize(("text", "limit"), [("\u0416\u0416 \u0416\u0416", 8), ("\u0416\u0416\t\u0416\u0416", 7)])
def test_words_of_other_scripts_and_between_tabs_stay_whole(fitted_to_pairs, folder, text, limit):
    assert ids_agree(fitted_to_pairs, folder, text, limit)


def test_bytes_that_are_no_text_come_in_large_pieces(folder):
    """Silence in eight-bit sound is a run of 0x80, which looks like the rest of a UTF-8 character."""
    sizes = [len(piece.data) for piece in read_pieces(corpus_of(folder, b"\x80" * 1000), 100)]
    assert len(sizes) < 20


@pytest.mark.parametrize("kind", ["byte", "char"])
def test_a_line_of_100_megabytes_is_read_in_bounded_memory(tmp_path, kind):
    megabyte = b"no line end " * 83_333 + b"...."
    path = tmp_path / "long.txt"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(megabyte)
    corpus = open_corpus([str(path)], Text(tokens=kind))
    fitted = tokenizer.fit(Text(tokens=kind), [megabyte])
    digest, tokens = hashlib.sha256(), 0
    tracemalloc.start()
    found = scan(corpus, kind)
    for piece in read_pieces(corpus, fitted.piece_limit):
        assert len(piece.data) <= fitted.piece_limit
        digest.update(piece.data)
        tokens += len(fitted.encode_many([piece.data])[0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.characters == tokens == 100_000_000
    assert digest.digest() == hashlib.sha256(megabyte * 100).digest()
    assert peak < 48_000_000
