"""From settings to ids of each split: made once, found again, and made anew when the text changes."""

from pathlib import Path

import pytest

from throughtime.errors import SettingError, ThroughtimeError
from throughtime.recipe import Text
from throughtime.text import dataset
from throughtime.text.dataset import describe, held_out, prepare, tokenise


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
    ids = tokenise([write("b.txt", "bza"), write("c.txt", "a")], prepare(settings).tokenizer, settings)
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
    tokenizer = prepare(wanted).tokenizer
    name, ids = held_out(wanted, tokenizer)
    assert (name, text_of(ids, tokenizer)) == expected


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["a.txt"], "the run's recipe leaves no text to test or validate on; name a text"),
        (["a.txt", "-"], "the run was trained from standard input, which is gone; name a text"),
    ],
)
def test_nothing_held_out_is_an_error(sources, message):
    tokenizer = prepare(Text(sources=(write("a.txt", "abc"),), split=(1.0, 0.0, 0.0))).tokenizer
    with pytest.raises(ThroughtimeError) as caught:
        held_out(Text(sources=sources, split=(1.0, 0.0, 0.0)), tokenizer)
    assert str(caught.value) == message


def test_oddities_of_every_split_are_noted():
    settings = Text(sources=(write("a.txt", "a\0b"),), valid=(write("b.txt", "\ufeffv"),), test=(write("c.txt", ""),))
    assert prepare(settings).notes == (
        "a.txt holds 1 NUL bytes, kept as text; is it a text file?",
        "b.txt begins with a byte-order mark, kept as text; text.encoding = 'utf-8-sig' leaves it out",
        "c.txt is empty and adds nothing",
    )


def test_an_oddity_of_a_file_is_noted_once():
    prepared = prepare(Text(sources=(write("a.txt", "some line\r\n" * 100),)))
    assert prepared.notes == ("a.txt has 100 CR LF line ends, kept as text; text.newlines = 'lf' makes them LF",)


def test_ids_of_another_text_are_not_taken(cached):
    settings = Text(sources=(write("a.txt", "ab"),), split=(1.0, 0.0, 0.0), tokens="byte")
    prepare(settings)
    [place] = (cached / "ids").glob("*.json")
    content = place.read_bytes()
    place.unlink()
    prepare(Text(sources=(write("b.txt", "cd"),), split=(1.0, 0.0, 0.0), tokens="byte"))
    [other] = (cached / "ids").glob("*.json")
    other.write_bytes(content)
    with pytest.raises(ThroughtimeError) as caught:
        prepare(Text(sources=("b.txt",), split=(1.0, 0.0, 0.0), tokens="byte"))
    message = f"the ids {other} belong to another text or tokeniser; delete the file to make it anew"
    assert str(caught.value) == message


def test_a_line_describes_a_split():
    settings = Text(sources=(write("a.txt", "aabb"),), valid=(write("v.txt", "\u00e9aab"),))
    prepared = prepare(settings)
    assert describe("train", prepared.tokenizer, prepared.train) == (
        "train 4 tokens, 4 bytes, 1.0000 tokens per byte, 0 % unknown, decoding gives the text back: exactly"
    )
    assert describe("valid", prepared.tokenizer, prepared.valid) == (
        "valid 4 tokens, 5 bytes, 0.8000 tokens per byte, 25 % unknown, decoding gives the text back: no"
    )
