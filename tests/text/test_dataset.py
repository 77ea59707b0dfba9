"""From settings to ids of each split: made once, found again, and made anew when the text changes."""

import os
from pathlib import Path

import pytest

from throughtime.errors import SettingError, ThroughtimeError
from throughtime.text import dataset, plain
from throughtime.text.corpus import open_corpus, scan
from throughtime.text.dataset import describe, held_out, prepare, tokenise
from throughtime.text.settings import Text


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    """The cache of this test alone; the test runs in an empty folder."""
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "cache"


def write(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def digests_of(prepared) -> dict[str, str]:
    return {name: ids.facts.text for name, ids in prepared.splits().items()}


def text_of(ids, tokenizer) -> str:
    return tokenizer.decode(ids.read(0, len(ids)))


def test_every_split_holds_its_share():
    prepared = prepare(Text(sources=(write("a.txt", "abcdefghij"),), split=(0.5, 0.3, 0.2), tokens="byte"))
    texts = {name: text_of(ids, prepared.tokenizer) for name, ids in prepared.splits().items()}
    assert texts == {"train": "abcde", "valid": "fgh", "test": "ij"}
    assert list(prepared.splits()) == ["train", "valid", "test"]


def test_files_for_validation_and_test_stand_beside_the_whole_source():
    names = [write(name, content) for name, content in (("a", "train text"), ("b", "valid"), ("c", "test"))]
    prepared = prepare(Text(sources=names[:1], valid=names[1:2], test=names[2:], tokens="byte"))
    texts = {name: text_of(ids, prepared.tokenizer) for name, ids in prepared.splits().items()}
    assert texts == {"train": "train text", "valid": "valid", "test": "test"}


def test_an_empty_split_is_none():
    prepared = prepare(Text(sources=(write("a.txt", "some text"),), split=(1.0, 0.0, 0.0)))
    assert (prepared.valid, prepared.test) == (None, None)
    assert list(prepared.splits()) == ["train"]


@pytest.mark.parametrize("kind", ["byte", "char", "word", "bpe"])
def test_a_second_run_finds_everything_in_the_cache(monkeypatch, kind):
    settings = Text(sources=(write("a.txt", "the cat sat on the mat\r\n" * 20),), tokens=kind, vocabulary_size=300)
    first = prepare(settings)
    monkeypatch.setattr(dataset, "write_ids", None)
    monkeypatch.setattr(dataset.tokenizers, "fit", None)
    second = prepare(settings)
    assert second.tokenizer.digest == first.tokenizer.digest
    assert second.notes == first.notes
    assert second.notes == ("a.txt has 20 CR LF line ends, kept as text; text.newlines = 'lf' makes them LF",)
    for name, ids in first.splits().items():
        again = second.splits()[name]
        assert (again.facts, again.read(0, len(ids)).tolist()) == (ids.facts, ids.read(0, len(ids)).tolist())


def test_a_changed_text_is_tokenised_anew():
    settings = Text(sources=(write("a.txt", "aabb"),), split=(1.0, 0.0, 0.0))
    assert prepare(settings).train.read(0, 4).tolist() == [1, 1, 2, 2]
    write("a.txt", "bacb")
    prepared = prepare(settings)
    assert prepared.tokenizer.pieces == (b"<unk>", b"a", b"b", b"c")
    assert prepared.train.read(0, 4).tolist() == [2, 1, 3, 2]


def test_a_changed_validation_text_keeps_the_vocabulary(monkeypatch):
    settings = Text(sources=(write("a.txt", "aabb"),), valid=(write("v.txt", "ab"),))
    prepare(settings)
    write("v.txt", "bz")
    monkeypatch.setattr(dataset.tokenizers, "fit", None)
    assert prepare(settings).valid.read(0, 2).tolist() == [2, 0]


@pytest.mark.parametrize(
    "change", [{"tokens": "char"}, {"minimum_count": 1}, {"vocabulary_size": 3}, {"separator": "b"}, {"newlines": "lf"}]
)
def test_other_settings_are_not_mistaken_for_these(change):
    settings = {"sources": (write("a.txt", "a b b\r\nc c c\r\n"),), "split": (1.0, 0.0, 0.0), "tokens": "word"}
    first, second = prepare(Text(**settings)), prepare(Text(**settings | change))
    told_apart = [
        (ids.tokenizer.pieces, ids.train.read(0, 99).tolist(), ids.train.documents.tolist()) for ids in (first, second)
    ]
    assert told_apart[0] != told_apart[1]


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_the_vocabulary_comes_from_the_training_split_alone(kind):
    source = write("a.txt", " ab" * 40 + " zy" * 40)
    settings = Text(sources=(source,), split=(0.5, 0.5, 0.0), tokens=kind, vocabulary_size=300)
    prepared = prepare(settings)
    learnt = prepared.tokenizer.pieces[256 if kind == "bpe" else 1 :]
    assert b"ab" in b"".join(learnt)
    assert not [piece for piece in learnt if b"z" in piece or b"y" in piece]
    assert prepared.train.facts.unknown == 0
    assert prepared.valid.facts.unknown == {"char": 80, "word": 40, "bpe": 0}[kind]


@pytest.mark.parametrize(
    ("kind", "fit_bytes", "taken"),
    [
        ("word", 1000, "0123456789"),
        ("word", 50, "03579"),
        ("word", 30, "069"),
        ("word", 10, "0"),
        ("char", 10, "0123456789"),
    ],
)
def test_the_vocabulary_is_built_from_evenly_spaced_pieces(monkeypatch, kind, fit_bytes, taken):
    monkeypatch.setattr(dataset, "FIT_PIECE", 10)
    source = write("a.txt", "".join(f"{digit} is told\n" for digit in range(10)))
    prepared = prepare(
        Text(sources=(source,), split=(1.0, 0.0, 0.0), tokens=kind, fit_bytes=fit_bytes, minimum_count=1)
    )
    assert "".join(sorted(piece.decode() for piece in prepared.tokenizer.pieces if piece.isdigit())) == taken


@pytest.mark.parametrize(("sources", "size"), [(["one.txt"], 1), (["empty.txt"], 0), (["empty.txt", "empty2.txt"], 0)])
def test_too_short_a_text_is_an_error(sources, size):
    write("one.txt", "x"), write("empty.txt", ""), write("empty2.txt", "")
    with pytest.raises(ThroughtimeError) as caught:
        prepare(Text(sources=sources, split=(1.0, 0.0, 0.0)))
    assert str(caught.value).startswith(
        f"there is too little text to train on: {', '.join(sources)} gives {size} bytes"
    )
    assert str(caught.value).endswith("name more text, or give it a larger share by text.split")


def test_no_source_is_a_wrong_setting():
    with pytest.raises(SettingError) as caught:
        prepare(Text())
    assert str(caught.value) == "no text is named; text.sources takes files, folders, globs, - or builtin"


def test_separators_and_files_open_documents():
    names = [write("a.txt", "one\n\ntwo\n\n"), write("b.txt", "three")]
    prepared = prepare(Text(sources=names, split=(1.0, 0.0, 0.0), separator="\n\n"))
    assert prepared.train.documents.tolist() == [0, 5, 10]


def test_other_texts_get_the_ids_of_the_vocabulary_there_is():
    settings = Text(sources=(write("a.txt", "aabb"),), split=(1.0, 0.0, 0.0))
    ids = tokenise([write("b.txt", "bza"), write("c.txt", "a")], prepare(settings).tokenizer, settings).ids
    assert ids.read(0, 4).tolist() == [2, 0, 1, 1]
    assert ids.documents.tolist() == [0, 3]
    with pytest.raises(ThroughtimeError, match=r"^there is no text in empty: it gives 0 bytes$"):
        tokenise([write("empty", "")], prepare(settings).tokenizer, settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"split": (0.5, 0.3, 0.2)}, ("test", "ij")),
        ({"split": (0.7, 0.3, 0.0)}, ("valid", "hij")),
        ({"test": ("c.txt",), "split": (0.5, 0.5, 0.0)}, ("test", "other")),
        ({"valid": ("c.txt",)}, ("valid", "other")),
    ],
)
def test_what_was_held_out_is_found_again(settings, expected):
    write("c.txt", "other")
    wanted = Text(sources=(write("a.txt", "abcdefghij"),), tokens="byte", **settings)
    prepared = prepare(wanted)
    tokenizer = prepared.tokenizer
    name, ids = held_out(wanted, tokenizer, digests_of(prepared))
    assert (name, text_of(ids, tokenizer)) == expected


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["a.txt"], "the run's recipe leaves no text to test or validate on; name a text"),
        (["a.txt", "-"], "the run was trained from standard input, which is gone; name a text"),
        (["/dev/stdin"], "the run was trained from standard input, which is gone; name a text"),
    ],
)
def test_nothing_held_out_is_an_error(sources, message):
    prepared = prepare(Text(sources=(write("a.txt", "abc"),), split=(1.0, 0.0, 0.0)))
    with pytest.raises(ThroughtimeError) as caught:
        held_out(Text(sources=sources, split=(1.0, 0.0, 0.0)), prepared.tokenizer, digests_of(prepared))
    assert str(caught.value) == message


def test_oddities_of_every_split_are_noted():
    settings = Text(
        sources=(write("a.txt", "a\0b\n"),), valid=(write("b.txt", "\ufeffv"),), test=(write("c.txt", "c\rd\r"),)
    )
    assert prepare(settings).notes == (
        "a.txt holds 1 NUL bytes, kept as text; is it a text file?",
        "b.txt begins with a byte-order mark, kept as text; text.encoding = 'utf-8-sig' leaves it out",
        "c.txt has 2 line ends that are a CR alone, kept as text; `tr '\\r' '\\n'` makes them LF",
    )


def test_an_oddity_of_a_file_is_noted_once():
    prepared = prepare(Text(sources=(write("a.txt", "some line\r\n" * 100),)))
    assert prepared.notes == ("a.txt has 100 CR LF line ends, kept as text; text.newlines = 'lf' makes them LF",)


def test_a_line_describes_a_split():
    settings = Text(sources=(write("a.txt", "aabb"),), valid=(write("v.txt", "\u00e9aab"),))
    prepared = prepare(settings)
    assert describe("train", prepared.tokenizer, prepared.train) == (
        "train 4 tokens, 4 bytes, 1.0000 tokens per byte, 0 % unknown, decoding gives the text back: exactly"
    )
    assert describe("valid", prepared.tokenizer, prepared.valid) == (
        "valid 4 tokens, 5 bytes, 0.8000 tokens per byte, 25 % unknown, decoding gives the text back: no"
    )


@pytest.mark.parametrize("option", ["valid", "test"])
@pytest.mark.parametrize("name", ["empty.txt", "folder"])
def test_a_text_named_to_be_held_out_must_not_be_empty(option, name):
    write("a.txt", "abc\n" * 9), write("empty.txt", "")
    Path("folder").mkdir()
    write("folder/empty.txt", "")
    with pytest.raises(ThroughtimeError) as caught:
        prepare(Text(sources=("a.txt",), **{option: (name,)}))
    assert str(caught.value) == f"there is no text in {name}, named by --{option}: it gives 0 bytes"


@pytest.mark.parametrize("names", [{"valid": ["-"]}, {"test": ["/dev/stdin"]}])
def test_standard_input_is_one_split_only(names):
    with pytest.raises(SettingError, match="standard input can be read only once, for one of the splits"):
        prepare(Text(sources=("-",), **names))


def test_a_test_text_alone_leaves_a_share_to_validate_on():
    prepared = prepare(Text(sources=(write("a.txt", "0123456789\n" * 100),), test=(write("t.txt", "xyz\n"),)))
    sizes = {name: ids.facts.bytes for name, ids in prepared.splits().items()}
    assert sizes == {"train": 1045, "valid": 55, "test": 4}


def test_without_a_text_to_validate_on_it_is_said():
    prepared = prepare(Text(sources=(write("a.txt", "abc\n" * 9),), split=(1.0, 0.0, 0.0)))
    assert prepared.notes == ("no text is left to validate on: best/ will be the last model, however good it is",)


@pytest.mark.parametrize("option", ["valid", "test"])
@pytest.mark.parametrize("twin", [False, True])
def test_a_text_that_is_held_out_is_not_trained_on(option, twin):
    Path("f").mkdir()
    write("f/a.txt", "aaa\n" * 9), write("f/b.txt", "bbb\n" * 9)
    name = write("copy.txt", "bbb\n" * 9) if twin else "f/b.txt"
    prepared = prepare(Text(sources=("f",), split=(1.0, 0.0, 0.0), **{option: (name,)}))
    assert text_of(prepared.train, prepared.tokenizer) == "aaa\n" * 9
    assert f"f/b.txt is not trained on: --{option} names it, or a copy of it" in prepared.notes
    assert text_of(getattr(prepared, option), prepared.tokenizer) == "<unk><unk><unk>\n" * 9


def test_a_text_that_is_all_held_out_leaves_nothing_to_train_on():
    with pytest.raises(ThroughtimeError, match=r"there is too little text to train on: a\.txt gives 0 bytes"):
        prepare(Text(sources=(write("a.txt", "abc\n" * 9),), test=("a.txt",)))


def test_one_text_to_validate_and_to_test_on_is_said():
    write("a.txt", "abc\n" * 9)
    prepared = prepare(Text(sources=("a.txt",), valid=(write("v.txt", "ab\n" * 5),), test=("v.txt",)))
    assert prepared.notes == ("v.txt is validated on and tested on: its figures are of one text",)


def test_a_separator_that_separates_nothing_is_said():
    name = write("a.txt", "one\n\ntwo\n\n" * 20)
    assert prepare(Text(sources=(name,), separator="\n\n")).notes == ()
    [note] = prepare(Text(sources=(name,), separator="\\n\\n")).notes
    assert note == (
        "text.separator '\\\\n\\\\n' is nowhere in the text: every file is one document; in TOML, \\n is a line end in "
        "double quotes only"
    )
    tokenizer = prepare(Text(sources=(name,))).tokenizer
    assert tokenise([name], tokenizer, Text(separator="|")).notes == (
        "text.separator '|' is nowhere in the text: every file is one document",
    )


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 22])
def test_separators_are_counted_over_block_boundaries(monkeypatch, block):
    monkeypatch.setattr(plain, "BLOCK", block)
    corpus = open_corpus([write("a.txt", "ab<|>cd<|>\r\n<unk>\r\n")], Text())
    found = scan(corpus, "word", b"<|>")
    assert (found.separators, found.line_ends) == (2, 2)
    assert {kind: count for _, kind, count in found.oddities} == {"crlf": 2, "unknown": 1}


def test_a_literal_unk_is_said_where_words_are_tokens():
    name = write("a.txt", "the <unk> sat on the <unk>\n" * 20)
    [note] = prepare(Text(sources=(name,), tokens="word")).notes
    assert note == "a.txt holds 40 times a literal <unk>, which is read as a word that the vocabulary lacks"
    assert prepare(Text(sources=(name,), tokens="char")).notes == ()


@pytest.mark.parametrize(
    "text",
    [
        "\u6211\u4eec\u7684\u56fd\u5bb6\u3002\n" * 20,
        "\u3053\u308c\u306f\u732b\u3067\u3059\n" * 20,
        "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\n" * 20,
    ],
)
def test_scripts_without_spaces_are_said_where_words_are_tokens(text):
    name = write("a.txt", text)
    [note] = prepare(Text(sources=(name,), tokens="word")).notes
    assert note.startswith("a.txt is in a script that does not separate words")
    assert note.endswith("--tokens char or bpe suits it better")
    assert prepare(Text(sources=(name,), tokens="char")).notes == ()


def test_a_vocabulary_that_lacks_most_of_the_text_is_said():
    rare = " ".join(f"word{n}" for n in range(100)) + "\nend\nend\n"
    [note] = prepare(Text(sources=(write("a.txt", rare + "\n" * 80),), tokens="word", split=(0.9, 0.1, 0.0))).notes
    assert note.startswith("93% of the training tokens are not in the vocabulary")


@pytest.mark.parametrize("kind", ["byte", "char", "word", "bpe"])
def test_a_text_without_a_line_end_is_said(kind):
    prepared = prepare(Text(sources=(write("a.txt", "ACGT ACGT " * 40),), tokens=kind, vocabulary_size=300))
    assert prepared.notes == (
        "the training text has no line end, which is what a text without a prompt begins after: give a prompt",
    )


def test_an_encoding_for_bytes_is_said_to_do_nothing():
    [note] = prepare(Text(sources=(write("a.txt", "abc\n" * 20),), tokens="byte", encoding="latin-1")).notes
    assert note.startswith("text.encoding = 'latin-1' does nothing")


OTHER = {
    "edited": lambda: write("a.txt", "abcdefgxyz"),
    "shorter": lambda: write("a.txt", "ab"),
    "empty": lambda: write("a.txt", ""),
    "another beside it": lambda: write("f.txt", "more"),
}


@pytest.mark.parametrize("how", OTHER)
def test_a_text_that_has_changed_is_not_taken_for_the_one_held_out(how):
    write("a.txt", "abcdefghij")
    wanted = Text(sources=("*.txt",), tokens="byte", split=(0.5, 0.3, 0.2))
    prepared = prepare(wanted)
    OTHER[how]()
    with pytest.raises(ThroughtimeError) as caught:
        held_out(wanted, prepared.tokenizer, digests_of(prepared))
    message = "the test text is not the one that the run held out: *.txt has changed since; name a text"
    assert str(caught.value) == message


def test_texts_without_digests_are_not_read():
    """As a run of somebody else might name private files."""
    with pytest.raises(ThroughtimeError, match="keeps no digests that would tell its texts from others"):
        held_out(Text(sources=("/etc/passwd",)), prepare(Text(sources=(write("a", "abc\n" * 9),))).tokenizer, {})


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "/dev/stdin", "-", "/dev/fd/0"])
def test_what_a_run_names_is_read_from_regular_files_only(name, cached):
    os.mkfifo("pipe")
    tokenizer = prepare(Text(sources=(write("a", "abc\n" * 9),))).tokenizer
    before = sorted(cached.rglob("*"))
    with pytest.raises(ThroughtimeError):
        held_out(Text(sources=(name,)), tokenizer, {"test": "0" * 32})
    assert sorted(cached.rglob("*")) == before
