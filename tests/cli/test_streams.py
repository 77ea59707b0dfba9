"""Standard streams that are closed, broken, full or not UTF-8, and names that are not: a line, the right exit code."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys

import pytest

from .conftest import SMALL

BAD = b"caf\xe9"


def shell(line, *arguments, **more):
    """A line of bash, where `tt` is the command line and $1, ... are the arguments."""
    words = ["bash", "-c", f'tt() {{ "{sys.executable}" -m throughtime "$@"; }}; {line}', "bash", *arguments]
    return subprocess.run(words, capture_output=True, check=False, timeout=120, **more)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("tt evaluate $1 $2 >&-", 0, ""),
        ("tt evaluate $1 $2 >/dev/full", 1, "cannot write to standard output: No space left on device"),
        ("tt evaluate $1 - <&-", 1, "there is no text in"),
        ("tt evaluate nowhere 2>&-", 1, ""),
        ("tt evaluate nowhere 2>/dev/full", 1, ""),
        ("tt evaluate nowhere <&- >&- 2>&-", 1, ""),
        ("tt generate $1 --tokens 20000 | head -c 9; exit ${PIPESTATUS[0]}", 0, ""),
        ("tt score $1 $2 | head -1; exit ${PIPESTATUS[0]}", 0, ""),
        ("tt train --help | head -1; exit ${PIPESTATUS[0]}", 0, ""),
        ("tt embed $1 $3/model >/dev/full", 0, "the work itself is done"),
    ],
)
def test_streams_that_are_closed_or_broken(line, code, said, run_of_bytes, text, tmp_path):
    done = shell(line, run_of_bytes, text, tmp_path)
    error = done.stderr.decode()
    assert done.returncode == code, error
    assert said in error
    assert "unforeseen" not in error
    assert "Exception ignored" not in error
    assert error.count("throughtime: ") <= 1


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full", "2>&1 | head -1"])
def test_a_training_comes_to_its_end_whatever_becomes_of_its_streams(streams, text, tmp_path):
    run = tmp_path / "run"
    small = " ".join(f"'{word}'" for word in SMALL)
    done = shell(f"tt train $1 --out $2 {small} {streams}; exit ${{PIPESTATUS[0]}}", text, run)
    assert done.returncode == 0, done.stderr
    assert (run / "card.md").exists()
    names = {path.name for path in run.iterdir()}
    assert names == {"best", "card.md", "checkpoints", "curve.svg", "journal.jsonl", "last", "lock", "recipe.toml",
                     "tokenizer.json"}  # fmt: skip


def test_a_descriptor_that_was_closed_is_not_the_next_file_that_is_opened(tmp_path):
    code = (
        "import os; from throughtime.cli.streams import open_standard_streams; open_standard_streams(); "
        "file = open('file', 'wb', buffering=0); os.write(1, b'x'); os.write(2, b'x'); "
        "file.write(str(file.fileno()).encode())"
    )
    done = shell(f'"{sys.executable}" -c "$1" <&- >&- 2>&-', code, cwd=tmp_path)
    assert done.returncode == 0
    assert int((tmp_path / "file").read_text()) > 2


def tt(*arguments, **more):
    words = [sys.executable, "-m", "throughtime", *(os.fsencode(argument) for argument in arguments)]
    return subprocess.run(words, capture_output=True, check=False, timeout=120, **more)


def test_folders_and_files_whose_names_are_not_utf8(text, tmp_path):
    place = os.path.join(os.fsencode(tmp_path), BAD)
    os.mkdir(place)
    shutil.copy(text, os.path.join(place, b"my.txt"))
    for arguments in (
        ["train", "my.txt", "--tokens", "byte", "--out", BAD + b"run", *SMALL],
        ["train", "--resume", "--out", BAD + b"run", "--steps", "9"],
        ["inspect", BAD + b"run", "--out", BAD + b".html"],
        ["quantize", BAD + b"run"],
        ["compress", "my.txt", "-m", BAD + b"run", "-o", BAD],
    ):
        done = tt(*arguments, cwd=place)
        assert done.returncode == 0, done.stderr
        assert rb"caf\udce9" in done.stdout
    shutil.copy(text, os.path.join(place, BAD + b".txt"))
    done = tt("evaluate", BAD + b"run", BAD + b".txt", "--json", cwd=place)
    assert os.fsencode(json.loads(done.stdout)["text"]) == BAD + b".txt"
    done = tt("train", BAD + b".txt", "--out", "other", *SMALL, cwd=place)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert rb"text.sources" in done.stderr
    assert rb"caf\udce9.txt" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["generate", "RUN", "--prompt", BAD], ["generate", "RUN", "--stop", BAD], ["generate", "RUN", "--characters", BAD],
     ["train", "TEXT", "--set", b"text.separator=" + BAD], ["train", "TEXT", "--cell", BAD],
     ["train", "TEXT", "--recipe", BAD], [BAD], ["evaluate", BAD], ["train", BAD, "--out", BAD]],
)  # fmt: skip
def test_arguments_that_are_not_utf8_are_one_line(arguments, call, run_of_bytes, text):
    named = {"RUN": str(run_of_bytes), "TEXT": str(text)}
    given = [named.get(word, os.fsdecode(word)) for word in arguments]
    code, _, err = call(*given)
    assert code in (1, 2)
    assert err.count("\n") == 1
    assert "unforeseen" not in err
    assert "caf" in err


def test_other_encodings(run_of_bytes, tmp_path):
    """Lines are spelled out, JSON is JSON, and what should be exact is an error where it cannot be."""
    foreign = tmp_path / "Жук.txt"
    foreign.write_text("Жук\n" * 20)
    latin = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = tt("evaluate", run_of_bytes, foreign, env=latin)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u0416\u0443\u043a.txt: " in done.stdout
    done = tt("score", run_of_bytes, foreign, "--json", env=latin)
    assert json.loads(done.stdout.decode("ascii"))["text"] == str(foreign)
    done = tt("train", foreign, "--out", tmp_path / "Жук", *SMALL, env=latin)
    assert done.returncode == 0, done.stderr
    done = tt("generate", tmp_path / "Жук", "--tokens", "50", env=latin)
    assert done.returncode == 1
    assert b"standard output is iso8859-1, which has no '\\u04" in done.stderr


def test_a_model_steers_no_terminal_and_a_pipe_gets_its_text_exactly(run_of_bytes):
    arguments = ["generate", str(run_of_bytes), "--tokens", "300", "--seed", "1", "--temperature", "3"]
    piped = tt(*arguments).stdout
    controls = bytes({*range(32)} - {9, 10})
    assert set(piped) & set(controls)
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "throughtime", *arguments], stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        shown = b""
        while block := _read(leader):
            shown += block
    os.close(leader)
    assert process.returncode == 0
    assert not set(shown.replace(b"\r\n", b"\n")) & set(controls)
    assert rb"\x" in shown


def _read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


def test_no_line_obeys_what_a_file_says(call, run_of_bytes, tmp_path):
    """Keys, names and headers of foreign files reach the terminal as escapes, in a line."""
    red = "\x1b[31m\x9b2J"
    copy = shutil.copytree(run_of_bytes, tmp_path / "run")
    (copy / "recipe.toml").write_text('[model]\n"\\u001b[31m\\u009b2J" = 1\n')
    (tmp_path / f"{red}.txt").write_text("Once upon a time\n" * 20)
    for arguments in (
        ["evaluate", copy],
        ["evaluate", run_of_bytes, tmp_path / f"{red}.txt"],
        ["evaluate", tmp_path / red],
        ["train", tmp_path / f"{red}.txt", "--out", tmp_path / red, *SMALL],
        ["--traceback", "evaluate", tmp_path / f"{red} nowhere"],
    ):
        _, out, err = call(*arguments)
        assert "\\x1b[31m" in out + err
        assert not {"\x1b", "\x9b"} & set(out + err)
