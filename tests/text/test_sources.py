"""What a name of a text leads to: files as they are, or plain copies in the cache."""

import gzip
import io
import os
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from throughtime.errors import ThroughtimeError
from throughtime.text import plain as plain_module
from throughtime.text import sources as sources_module
from throughtime.text.findings import Finding, lines
from throughtime.text.plain import read_blocks
from throughtime.text.settings import Text
from throughtime.text.sources import open_sources

TEXT = b"one line\r\nanother\rand \xc3\xa9\r\n"


@pytest.fixture(autouse=True)
def plain(tmp_path, monkeypatch):
    """The folder of plain copies in a cache of this test alone; the test runs in an empty folder."""
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "cache" / "plain"


def write(name: str, content: bytes = TEXT) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content)
    return name


def opened(*names: str, **settings) -> list[tuple[str, bytes]]:
    return [(source.name, source.path.read_bytes()) for source in open_sources(names, Text(**settings))]


def error_of(*names: str, **settings) -> str:
    with pytest.raises(ThroughtimeError) as caught:
        open_sources(names, Text(**settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def finished(folder: Path) -> list[Path]:
    return list(folder.glob("*.txt"))


def test_a_plain_file_is_read_where_it_lies(plain):
    name = write("a.txt")
    assert open_sources([name], Text()) == [("a.txt", Path("a.txt"))]
    assert not plain.exists()


def test_byte_tokens_ask_for_no_encoding():
    name = write("a.txt", b"\xff\x00\xfe")
    assert open_sources([name], Text(tokens="byte", encoding="latin-1")) == [("a.txt", Path("a.txt"))]


def test_sources_keep_their_order():
    write("b.txt", b"B"), write("a.txt", b"A")
    assert opened("b.txt", "a.txt") == [("b.txt", b"B"), ("a.txt", b"A")]


def test_a_missing_file_names_its_neighbour():
    write("texts/shakespeare.txt")
    near = Path("texts/shakespeare.txt")
    assert error_of("texts/shakespere.txt") == f"there is no file texts/shakespere.txt; did you mean {near}?"


def test_a_missing_file_without_a_neighbour_says_where_it_was_looked_for():
    assert error_of("nothing.txt") == f"there is no file nothing.txt (looked from {Path.cwd()})"
    assert error_of("no/where.txt") == f"there is no file no/where.txt (looked from {Path.cwd()})"


def test_a_folder_gives_its_files_in_the_order_of_their_paths():
    for name in ("f/b.txt", "f/a/z.txt", "f/a/y", "f/.hidden.txt", "f/.git/config", "f/c/.d/e.txt", "f/empty"):
        write(name, b"" if name == "f/empty" else name.encode())
    expected = [Path("f/a/y"), Path("f/a/z.txt"), Path("f/b.txt"), Path("f/empty")]
    assert [source.path for source in open_sources(["f"], Text())] == expected


def test_a_hidden_folder_that_is_named_is_read():
    write(".notes/a.txt", b"A")
    assert opened(".notes") == [(str(Path(".notes/a.txt")), b"A")]


def test_a_folder_without_files_is_an_error():
    write("f/.hidden.txt")
    assert error_of("f") == "the folder f holds no file; name a text file, a folder of them or a glob"


def test_a_glob_gives_files_in_order():
    for name in ("f/b.txt", "f/a.txt", "f/c.md", "f/d.txt/inside.txt"):
        write(name, name.encode())
    assert [name for name, _ in opened("f/*.txt")] == [str(Path("f/a.txt")), str(Path("f/b.txt"))]
    assert str(Path("f/d.txt/inside.txt")) in [name for name, _ in opened("f/**/*.txt")]


def test_a_name_with_brackets_that_is_a_file_is_that_file():
    write("a[1].txt", b"bracketed")
    assert opened("a[1].txt") == [("a[1].txt", b"bracketed")]


def test_a_glob_that_matches_nothing_is_an_error():
    assert error_of("*.txt") == f"no file matches *.txt; is it quoted as meant, and relative to {Path.cwd()}?"


def test_standard_input_is_kept_in_a_file(monkeypatch, plain):
    monkeypatch.setattr(plain_module, "BLOCK", 5)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(TEXT)))
    assert opened("-") == [("standard input", TEXT)]
    assert [path.read_bytes() for path in plain.iterdir()] == [TEXT]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_kept_in_a_file():
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_bytes, args=(TEXT,))
    writer.start()
    assert opened("pipe") == [("pipe", TEXT)]
    writer.join()


@pytest.mark.parametrize("block", [1, 7, 1 << 22])
def test_a_gz_file_is_unpacked(monkeypatch, block):
    monkeypatch.setattr(plain_module, "BLOCK", block)
    name = write("a.txt.gz", gzip.compress(TEXT))
    assert opened(name) == [(name, TEXT)]
    assert opened(name, tokens="byte") == [(name, TEXT)]


PACKED = gzip.compress(bytes(range(256)) * 50)
DAMAGED = {
    "not gzip": b"plain text",
    "cut": PACKED[:-9],
    "checksum": PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:],
    "inside": PACKED[:20] + b"\xff\xff\xff\xff" + PACKED[24:],
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_gz_file_is_an_error_and_leaves_no_text(how, plain):
    message = error_of(write("a.gz", DAMAGED[how]))
    assert message.startswith("a.gz cannot be unpacked: ")
    assert message.endswith("; `gzip -t` tells more")
    assert finished(plain) == []


@pytest.mark.parametrize("block", [1, 2, 3, 1 << 22])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-8-sig"])
def test_an_encoding_is_turned_into_utf8(monkeypatch, encoding, block):
    monkeypatch.setattr(plain_module, "BLOCK", block)
    text = "a\u00e9\r\n\u00ff"
    assert opened(write("a.txt", text.encode(encoding)), encoding=encoding) == [("a.txt", text.encode())]


def test_a_byte_order_mark_is_kept_unless_left_out():
    name = write("a.txt", b"\xef\xbb\xbfab")
    assert opened(name) == [(name, b"\xef\xbb\xbfab")]
    assert opened(name, encoding="utf-8-sig") == [(name, b"ab")]


@pytest.mark.parametrize(
    ("encoding", "content", "place"),
    [
        ("ascii", b"caf\xc3\xa9", 3),
        ("utf-16-le", b"a\0b", 2),
        ("utf-8-sig", b"ab\xff", 2),
        ("utf-8-sig", b"ab\xe2\x82", 2),
    ],
)
@pytest.mark.parametrize("block", [2, 4, 1 << 22])
def test_what_is_not_in_the_encoding_is_an_error_and_leaves_no_text(
    encoding, content, place, block, plain, monkeypatch
):
    monkeypatch.setattr(plain_module, "BLOCK", block)
    message = error_of(write("a.txt", content), encoding=encoding)
    assert message.startswith(f"a.txt is not {encoding}: byte {place}: ")
    assert message.endswith("; set text.encoding, or use --tokens byte")
    assert finished(plain) == []


@pytest.mark.parametrize("block", [1, 2, 3, 9, 10, 11, 1 << 22])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (TEXT, b"one line\nanother\rand \xc3\xa9\n"),
        (b"\r\r\n\n\r", b"\r\n\n\r"),
        (b"\r", b"\r"),
        (b"", b""),
    ],
)
def test_newlines_lf_turns_every_cr_lf_into_lf_and_nothing_else(monkeypatch, content, expected, block):
    monkeypatch.setattr(plain_module, "BLOCK", block)
    assert opened(write("a.txt", content), newlines="lf") == [("a.txt", expected)]
    assert opened("a.txt", newlines="lf", encoding="utf-8-sig") == [("a.txt", expected)]
    assert opened("a.txt", newlines="keep") == [("a.txt", content)]


def test_a_changed_file_is_converted_anew():
    assert opened(write("a.txt", b"\xe9"), encoding="latin-1") == [("a.txt", b"\xc3\xa9")]
    assert opened(write("a.txt", b"\xe8"), encoding="latin-1") == [("a.txt", b"\xc3\xa8")]
    assert opened("a.txt", encoding="cp1251") == [("a.txt", "\u0438".encode())]


def test_builtin_is_the_language_reference():
    [(name, content)] = opened("builtin")
    assert name == "builtin"
    assert "Assignment statements" in content.decode()
    assert len(content) > 100_000
    assert opened("builtin") == [(name, content)]


def test_no_paragraph_of_builtin_is_there_twice():
    [(_, content)] = opened("builtin")
    paragraphs = [paragraph.strip("\n") for paragraph in content.decode().split("\n\n") if paragraph.strip("\n")]
    assert len(set(paragraphs)) == len(paragraphs)


def test_builtin_stdlib_is_the_library_without_its_tests():
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    found = {source.name: source.path for source in open_sources(["builtin:stdlib"], Text())}
    assert found["builtin:stdlib/argparse.py"] == stdlib / "argparse.py"
    assert len(found) > 500
    assert list(found.values()) == sorted(found.values())
    assert not [
        path for path in found.values() if {"test", "tests", "site-packages"} & set(path.relative_to(stdlib).parts)
    ]


def test_an_unknown_builtin_is_an_error():
    assert error_of("builtin:x") == "there is no built-in text builtin:x; there are builtin and builtin:stdlib"


def test_builtin_is_pythons_own_text_wherever_it_is_named():
    before = opened("builtin")
    write("builtin", b"mine")
    findings: list[Finding] = []
    assert [(s.name, s.path.read_bytes()) for s in open_sources(["builtin"], Text(), findings)] == before
    assert lines(findings) == ("builtin is Python's own text, not the file; ./builtin names the file",)
    assert opened("./builtin") == [("./builtin", b"mine")]


@pytest.mark.parametrize("block", [1, 3, 100])
def test_read_blocks_reads_a_span(monkeypatch, block):
    monkeypatch.setattr(plain_module, "BLOCK", block)
    path = Path(write("a.txt", b"0123456789"))
    assert b"".join(read_blocks(path, 2, 9)) == b"2345678"
    assert b"".join(read_blocks(path, 4)) == b"456789"
    assert all(len(piece) <= block for piece in read_blocks(path))


def test_a_file_that_is_gone_is_an_error():
    with pytest.raises(ThroughtimeError, match=r"^cannot read gone\.txt: No such file or directory$"):
        list(read_blocks(Path("gone.txt")))


def said(*names: str, **settings) -> tuple[list[str], tuple[str, ...]]:
    """The files that are read, and what is said of them."""
    findings: list[Finding] = []
    found = open_sources(names, Text(**settings), findings)
    return [source.name for source in found], lines(findings)


def test_a_file_named_twice_is_read_once_and_said():
    write("f/a.txt", b"A"), write("f/b.txt", b"B")
    os.link("f/a.txt", "hard.txt")
    names = ["f/a.txt", "f/b.txt"]
    assert said("f", "f/a.txt") == (names, ("f/a.txt is named twice, and read once",))
    assert said("f", "f/*", "./f/../f/b.txt")[0] == names
    assert said("f/a.txt", "hard.txt", "builtin", "builtin")[0] == ["f/a.txt", "builtin"]


def test_linked_folders_are_read_once_without_end():
    write("other/deep/c.txt", b"C"), write("f/a.txt", b"A")
    Path("f/linked").symlink_to("../other")
    Path("f/up").symlink_to("..")
    Path("other/deep/loop").symlink_to("../deep")
    names, notes = said("f")
    assert names == ["f/a.txt", "f/linked/deep/c.txt"]
    assert [note.split(" ")[0] for note in notes] == ["f/linked/deep/loop", "f/up/f", "f/up/other"]


def test_what_is_left_out_of_a_folder_is_said():
    write("f/a.txt", b"A")
    os.mkfifo("f/pipe")
    Path("f/gone").symlink_to("nowhere")
    Path("f/device").symlink_to("/dev/zero")
    names, notes = said("f")
    assert names == ["f/a.txt"]
    assert sorted(notes) == [
        "f/device is left out: it is a device",
        "f/gone is left out: it is a symbolic link to what is not there",
        "f/pipe is left out: it is a pipe",
    ]
    assert sorted(said("f/*")[1]) == sorted(notes)


RUN = {"recipe.toml": b"", "journal.jsonl": b"", "tokenizer.json": b"", "best/model.json": b""}


@pytest.mark.parametrize(
    "files",
    [
        RUN,
        {"recipe.toml": b"", "lock": b""},
        {"lock": b"", "recipe.toml.partial": b""},
        {"lock": b"", "recipe.toml.0123456789abcdef.partial": b""},
        {"model.json": b"{}", "model.safetensors": b""},
    ],
)
def test_run_and_model_folders_are_no_texts(files):
    write("f/a.txt", b"A")
    for name, content in files.items():
        write(f"f/runs/mine/{name}", content)
    notes = ("f/runs/mine is left out: it is the folder of a run or a model",)
    assert said("f") == (["f/a.txt"], notes)
    assert said("f/**/*") == (["f/a.txt"], notes)
    assert error_of("f/runs/mine") == "f/runs/mine is the folder of a run or a model, not of texts"


def test_files_that_commands_wrote_are_no_texts():
    write("f/a.txt", b"A")
    outputs = {
        "a.tt": b"throughtime\x001...",
        "model.bin": b"throughtime embedded 1\n...",
        "report.html": b"<!doctype html>\n<!-- throughtime report -->\n",
        "a.partial": b"half",
    }
    for name, content in outputs.items():
        write(f"f/{name}", content)
    names, notes = said("f")
    assert names == ["f/a.txt"]
    assert notes[0] == "f/a.partial is left out: a command wrote it"
    assert notes[-1] == "the same holds for 1 more, such as f/report.html"
    assert said("f/a.tt", tokens="byte")[0] == ["f/a.tt"]  # it is named itself


def test_the_cache_is_no_text(monkeypatch):
    write("f/a.txt.gz", gzip.compress(b"A"))
    monkeypatch.setenv("THROUGHTIME_CACHE", "f/cache")
    assert said("f")[0] == ["f/a.txt.gz"]
    assert said("f") == (["f/a.txt.gz"], ("f/cache is left out: it is read elsewhere already, or is the cache",))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("~nouser/x", "there is no user nouser, in whose home ~nouser/x would be; ./~nouser/x names a file here"),
        ("~nouser/*.txt", "there is no user nouser"),
        ("a\0b", "cannot read a\\x00b: "),
        ("x" * 5000, "cannot read xxx"),
        ("a\x1b2J", "there is no file a\\x1b2J"),
        ("dangling", "dangling is a symbolic link to nowhere, which is not there"),
        ("loop", "cannot read loop: Too many levels of symbolic links"),
        ("/dev/zero", "cannot read /dev/zero: it is a device; a text is a file, a folder or a pipe"),
        ("/dev/tty", "cannot read /dev/tty: it is a device"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(name, message):
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    assert error_of(name).startswith(message)


def test_a_pipe_that_nobody_writes_into_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(sources_module, "WAITED_FOR", 0.05)
    os.mkfifo("pipe")
    assert error_of("pipe") == "pipe is a pipe that nobody writes into, for 0.05 s; start the writer"


def test_a_pipe_whose_writer_is_slow_is_waited_for(monkeypatch):
    monkeypatch.setattr(sources_module, "WAITED_FOR", 0.05)
    reading, writing = os.pipe()

    def write_late() -> None:
        time.sleep(0.3)
        os.write(writing, TEXT)
        os.close(writing)

    writer = threading.Thread(target=write_late)
    writer.start()
    assert opened(f"/dev/fd/{reading}") == [(f"/dev/fd/{reading}", TEXT)]
    writer.join()
    os.close(reading)


@pytest.mark.parametrize("name", ["/dev/stdin", "/dev/fd/0", "-"])
def test_standard_input_has_several_names(monkeypatch, name):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(TEXT)))
    assert opened(name) == [("standard input", TEXT)]
    monkeypatch.setattr(sys, "stdin", None)
    assert error_of(name) == "standard input is closed; name a file, or give a text through a pipe"


def test_names_that_a_run_recorded_lead_to_regular_files_only():
    os.mkfifo("pipe")
    for name in ("pipe", "/dev/zero", "/dev/stdin"):
        with pytest.raises(ThroughtimeError, match=r"^cannot read "):
            open_sources([name], Text(), recorded=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="root reads everything, and must become somebody else")
@pytest.mark.parametrize("locked", ["f/inner", "f/b.txt"])
def test_what_cannot_be_read_in_a_folder_is_an_error(tmp_path, locked):
    write("f/a.txt", b"A"), write("f/b.txt", b"B"), write("f/inner/c.txt", b"C")
    Path(locked).chmod(0)
    program = (
        "import os; from throughtime.text.settings import Text; from throughtime.text.sources import open_sources\n"
        "os.setuid(65534)\n"
        "try: open_sources(['f'], Text())\nexcept ValueError as error: print(error)"
    )
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"{locked}: Permission denied" in done.stdout
