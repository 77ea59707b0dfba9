"""Which encoding or packing a text is in is told by its content, and named precisely."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from throughtime.errors import ThroughtimeError
from throughtime.text import encodings
from throughtime.text.dataset import prepare, tokenise
from throughtime.text.findings import Finding, lines
from throughtime.text.settings import Text
from throughtime.text.sources import open_sources

ENGLISH = "He said “it’s fine” — and left… the café.\n" * 20
SAMPLES = {
    "cp1252": ENGLISH,
    "latin-1": "Les élèves ont été priés de répondre déjà: où ça?\n" * 20,
    "cp1250": "Příliš žluťoučký kůň úpěl ďábelské ódy, zażółć gęślą jaźń\n" * 20,
    "cp1251": "Все счастливые семьи похожи друг на друга\n" * 20,
    "koi8-r": "Все счастливые семьи похожи друг на друга\n" * 20,
    "cp1253": "Η ζωή είναι ωραία και ο ήλιος λάμπει\n" * 20,
    "shift_jis": "吾輩は猫である。名前はまだ無い。\n" * 20,
    "euc-jp": "吾輩は猫である。名前はまだ無い。\n" * 20,
    "euc-kr": "나는 학교에 갑니다. 오늘은 날씨가 좋습니다.\n" * 20,
    "gb18030": "我们的国家是一个很大的国家，有很多的人。\n" * 20,
    "big5": "我們的國家是一個很大的國家，有很多的人。\n" * 20,
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def write(name: str, content: bytes) -> str:
    Path(name).write_bytes(content)
    return name


def opened(name: str, **settings) -> tuple[bytes, tuple[str, ...]]:
    """What is read of a text, and what is said of it."""
    findings: list[Finding] = []
    [source] = open_sources([name], Text(**settings), findings)
    return source.path.read_bytes(), lines(findings)


def error_of(call, *arguments) -> str:
    with pytest.raises(ThroughtimeError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("encoding", SAMPLES)
def test_a_text_that_is_not_utf8_is_said_to_be_in_its_own_encoding(encoding):
    message = error_of(prepare, Text(sources=(write("a.txt", SAMPLES[encoding].encode(encoding)),)))
    named = "cp1252" if encoding == "latin-1" else encoding  # which has all that is printed in Latin-1
    assert message.startswith("a.txt is not UTF-8: byte ")
    assert f"it may be {named}: --encoding {named} (text.encoding) reads it as that" in message


def test_what_is_in_no_likely_encoding_is_not_guessed_at():
    message = error_of(prepare, Text(sources=(write("a.txt", bytes(range(128, 256)) * 4),)))
    assert message.endswith("name its encoding by --encoding (text.encoding), or use --tokens byte")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [ENGLISH, SAMPLES["cp1251"]])
def test_a_byte_order_mark_tells_utf16_and_utf32(encoding, text):
    marked = text if encoding in ("utf-16", "utf-32") else "\ufeff" + text
    content, notes = opened(write("a.txt", marked.encode(encoding)))
    assert content == text.encode()
    assert notes == (f"a.txt begins with a byte-order mark of {encoding[:6].upper()}, and is read as that",)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [ENGLISH, SAMPLES["cp1251"], "plain ASCII\n" * 9])
def test_utf16_and_utf32_without_a_mark_are_named(encoding, text):
    message = error_of(opened, write("a.txt", text.encode(encoding)))
    assert message.startswith(f"a.txt looks like {encoding.upper()} without a byte-order mark; --encoding {encoding} ")
    assert opened("a.txt", encoding=encoding) == (text.encode(), ())


@pytest.mark.parametrize("text", [*SAMPLES.values(), "a\nb\nc\n" * 9, "\n" * 40, "a\0b\0cd" * 9, "\0" * 40, "", "x"])
def test_a_text_in_utf8_is_taken_for_nothing_else(text):
    assert encodings.unmarked(text.encode()) is None
    assert opened(write("a.txt", text.encode())) == (text.encode(), ())


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "shift_jis"])
def test_utf8_read_in_another_encoding_is_said(encoding):
    """A run of that encoding, and a text that plainly is in another."""
    name = write("a.txt", "caf\u00e9\n".encode() * 40)
    prepared = prepare(Text(sources=(write("b.txt", "cafe\n".encode(encoding) * 40),), encoding=encoding))
    notes = tokenise([name], prepared.tokenizer, Text(encoding=encoding)).notes
    told = f"a.txt is UTF-8 by its bytes, but read as {encoding}; --encoding utf-8 (text.encoding) reads it as that"
    assert told in notes
    assert opened(write("c.txt", "caf\u00e9 na\u00efve".encode("latin-1")), encoding="latin-1")[1] == ()


def test_utf16_read_as_latin1_is_said():
    _, notes = opened(write("a.txt", ENGLISH.encode("utf-16")), encoding="latin-1")
    assert notes == (
        "a.txt is UTF-16 by its bytes, but read as latin-1; --encoding utf-16 (text.encoding) reads it as that",
    )


PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
NAMES = [
    ("gzip", ".gz"),
    ("gzip", ".GZ"),
    ("gzip", ".Gz"),
    ("bzip2", ".bz2"),
    ("bzip2", ".BZ2"),
    ("xz", ".xz"),
    ("xz", ".XZ"),
]


@pytest.mark.parametrize(("packed", "suffix"), NAMES)
@pytest.mark.parametrize("tokens", ["char", "byte"])
def test_packed_texts_are_unpacked(packed, suffix, tokens):
    assert opened(write(f"a{suffix}", PACK[packed](ENGLISH.encode())), tokens=tokens) == (ENGLISH.encode(), ())


@pytest.mark.parametrize("packed", PACK)
def test_packed_texts_are_known_without_their_name(packed, monkeypatch):
    content = PACK[packed](ENGLISH.encode("utf-16"))
    expected = (f"is packed by {packed}, and unpacked", "begins with a byte-order mark of UTF-16, and is read as that")
    assert opened(write("a.txt", content)) == (ENGLISH.encode(), tuple(f"a.txt {line}" for line in expected))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert opened("-") == (ENGLISH.encode(), tuple(f"standard input {line}" for line in expected))


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("how", ["cut", "damaged"])
def test_a_damaged_packing_is_one_line(packed, how, tmp_path):
    content = PACK[packed](bytes(range(256)) * 50)
    content = content[:-9] if how == "cut" else content[:60] + b"\x55" * 8 + content[68:]
    assert error_of(opened, write("a.txt", content)).startswith("a.txt cannot be unpacked: ")
    assert not list((tmp_path / "cache").rglob("*.txt"))


def archives() -> dict[str, bytes]:
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.txt", ENGLISH)
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        archive.add("inner.txt")
    return {
        "a zip archive": zipped.getvalue(),
        "a tar archive": tarred.getvalue(),
        "a PDF": b"%PDF-1.4\n",
        "packed by zstd": b"\x28\xb5\x2f\xfd" + b"0" * 20,
        "packed twice": gzip.compress(gzip.compress(b"a")),
    }


@pytest.mark.parametrize("kind", ["a zip archive", "a tar archive", "a PDF", "packed by zstd", "packed twice"])
def test_what_is_no_text_is_named(kind):
    write("inner.txt", ENGLISH.encode())
    content = archives()[kind]
    message = error_of(opened, write("a.txt", content))
    assert message.startswith(f"a.txt is {kind}, not a text: ")
    if kind == "a tar archive":
        assert f"is {kind}, not a text" in error_of(opened, write("a.tar.gz", gzip.compress(content)))
    if kind != "packed twice":
        content_read, notes = opened("a.txt", tokens="byte")
        assert (content_read, notes) == (content, (f"a.txt is {kind}, and read as the bytes that it is",))
