"""Commands that read a text: whose text it is, in which encoding, and what is said of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from throughtime.cli import doctor
from throughtime.recipe import build
from throughtime.training.train import train

TEXT = "le caf\u00e9 na\u00eff, d\u00e9j\u00e0 l\u00e0\n" * 100
COMMANDS = ["evaluate", "score", "inspect", "quantize"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a text in Latin-1 and a run of it."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "a.txt").write_bytes(TEXT.encode("latin-1"))
    tree = {
        "text": {"sources": [str(folder / "a.txt")], "encoding": "latin-1"},
        "streams": {"lanes": 2, "window": 8},
        "model": {"hidden_size": 4},
        "training": {"steps": 2, "validations": 1, "sample_tokens": 0, "threads": 1, "checkpoint_every": 1},
    }
    train(build(tree), folder / "run")
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of it for this test alone, whose run reads the copy's text."""
    shutil.copytree(trained, tmp_path / "copy")
    recipe = tmp_path / "copy" / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(trained), str(tmp_path / "copy")))
    return tmp_path / "copy"


def test_a_run_keeps_the_digests_of_its_texts_beside_each_model(folder):
    for model in ("best", "last"):
        texts = json.loads((folder / "run" / model / "model.json").read_text())["trained"]["texts"]
        assert sorted(texts) == ["test", "train", "valid"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_figure_is_called_test_only_of_the_text_that_was_held_out(call, folder, command):
    (folder / "a.txt").write_bytes(TEXT.replace("caf", "fac").encode("latin-1"))
    code, out, err = call(command, folder / "run")
    assert (code, out) == (1, "")
    message = f"the test text is not the one that the run held out: {folder / 'a.txt'} has changed since; name a text"
    assert err == f"throughtime: {message}\n"


def test_a_run_inside_its_text_folder_measures_its_text(call, tmp_path):
    (tmp_path / "a.txt").write_text("abc abd\n" * 200)
    tree = {
        "text": {"sources": [str(tmp_path)]},
        "streams": {"lanes": 2, "window": 8},
        "model": {"hidden_size": 4},
        "training": {"steps": 1, "validations": 1, "sample_tokens": 0, "threads": 1},
    }
    result = train(build(tree), tmp_path / "run")
    code, out, _ = call("evaluate", tmp_path / "run", "--json")
    assert code == 0
    assert json.loads(out)["text"] == "test"
    assert json.loads(out)["nats_per_token"] == pytest.approx(result.measure.nats_per_token, abs=1e-4)


@pytest.mark.parametrize("named", ["/etc/passwd", "/dev/zero", "/dev/stdin", "pipe"])
@pytest.mark.parametrize("keeps", [True, False])
def test_a_run_of_somebody_else_reads_no_file_that_its_digests_do_not_confirm(call, folder, named, keeps):

    os.mkfifo(folder / "pipe")
    recipe = folder / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(folder / "a.txt"), named.replace("pipe", str(folder / "pipe"))))
    if not keeps:
        forget(folder)
        shutil.rmtree(folder / "run" / "checkpoints")
    code, out, err = call("inspect", folder / "run")
    assert (code, out) == (1, "")
    assert err.endswith("name a text\n")
    assert not (folder / "run" / "report.html").exists()


def forget(folder: Path) -> None:
    """As a run of an earlier version is, which kept no digests beside its models."""
    for path in (folder / "run").glob("*/model.json"):
        content = json.loads(path.read_text())
        del content["trained"]["texts"]
        path.write_text(json.dumps(content))


def test_a_run_of_an_earlier_version_is_confirmed_by_its_checkpoints(call, folder):
    forget(folder)
    assert call("evaluate", folder / "run")[0] == 0
    (folder / "a.txt").write_bytes(b"other text\n" * 200)
    assert "is not the one that the run held out" in call("evaluate", folder / "run")[2]
    shutil.rmtree(folder / "run" / "checkpoints")
    assert "keeps no digests" in call("evaluate", folder / "run")[2]


@pytest.mark.parametrize("command", ["evaluate", "score", "quantize"])
def test_a_text_in_another_encoding_than_the_runs_is_said_and_can_be_named(call, folder, command):
    (folder / "u.txt").write_text(TEXT, "utf-8")
    out = ["--out", folder / "out"] if command == "quantize" else []
    said = "u.txt is UTF-8 by its bytes, but read as latin-1; --encoding utf-8 (text.encoding) reads it as that"
    code, _, err = call(command, folder / "run", folder / "u.txt", *out)
    assert (code, said in err) == (0, True)
    out = ["--out", folder / "out2"] if out else []
    code, _, err = call(command, folder / "run", folder / "u.txt", "--encoding", "utf-8", *out)
    assert (code, said in err) == (0, False)


def test_the_figure_of_a_text_does_not_depend_on_its_encoding(call, folder):
    (folder / "u.txt").write_text(TEXT, "utf-8")
    figures = [
        json.loads(call("evaluate", folder / "run", folder / name, "--json", *more)[1])["bits_per_byte"]
        for name, more in (("a.txt", []), ("u.txt", ["--encoding", "utf-8"]))
    ]
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--encoding", "nix"], 2, "Python knows no encoding 'nix'"),
        (["--encoding", "utf-8"], 2, "--encoding utf-8 has nothing to do: it is that of TEXT, and none is named"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_encoding_that_does_nothing_is_wrong_usage(call, folder, command, arguments, code, message):
    found, _, err = call(command, folder / "run", *arguments)
    assert (found, message in err) == (code, True)


def test_doctor_works_where_the_cache_cannot_be_made(call, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path / "file"))
    assert doctor.examine()["cache"].startswith(f"none: cannot make the cache folder {tmp_path / 'file'}: File exists")
    code, out, _ = call("doctor")
    assert (code, "none: cannot make the cache folder" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["~nouser/x"], "there is no user nouser, in whose home ~nouser/x would be"),
        (["/dev/zero"], "cannot read /dev/zero: it is a device"),
        (["once.txt", "--tokens", "word"], "no word stands 2 times in the training text"),
        (["a.txt", "--valid", "empty.txt"], "there is no text in empty.txt, named by --valid: it gives 0 bytes"),
        (["a.zip"], "a.zip is a zip archive, not a text: unzip it"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(call, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    contents = {"once.txt": b"every word once", "a.txt": b"abc\n" * 99, "empty.txt": b"", "a.zip": b"PK\x03\x04..."}
    for name, content in contents.items():
        Path(name).write_bytes(content)
    code, out, err = call("train", *arguments, "--steps", "1")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"throughtime: {message}")
    assert not Path("runs").exists()
