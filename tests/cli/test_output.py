"""Files that commands write: into pipes and devices, through no link, over no other file, with no more permissions."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest

from throughtime.cli.main import main
from throughtime.cli.output import new_file
from throughtime.errors import ThroughtimeError


@pytest.fixture(scope="module")
def embedded(run_of_bytes, tmp_path_factory):
    path = tmp_path_factory.mktemp("embedded") / "model"
    with pytest.raises(SystemExit):
        main(["embed", str(run_of_bytes), str(path)])
    return path.read_bytes()


def command(*arguments, **more):
    words = [sys.executable, "-m", "throughtime", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, check=False, timeout=120, **more)


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_a_pipe_is_written_into_and_stays_a_pipe(options, call, run_of_bytes, embedded, tmp_path):
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    code, _, err = call("embed", run_of_bytes, pipe, *options)
    reader.join(timeout=60)
    assert (code, err, found) == (0, "", [embedded])
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_whose_reader_goes_away_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)

    def write():
        with new_file(tmp_path / "pipe", force=False) as file:
            os.close(reader)
            file.write(b"content")

    with pytest.raises(ThroughtimeError, match=r"pipe: its reader has closed it$"):
        write()


def test_a_device_is_written_into_and_stays_a_device(call, run_of_bytes):
    before = os.stat("/dev/null")
    assert call("embed", run_of_bytes, "/dev/null", "--force")[0] == 0
    assert os.stat("/dev/null")[:2] == before[:2]
    code, _, err = call("embed", run_of_bytes, "/dev/full", "--force")
    assert (code, err) == (1, "throughtime: the system refused /dev/full: No space left on device\n")


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_standard_output_by_its_name_has_the_content_alone(options, run_of_bytes, embedded, tmp_path):
    piped = command("embed", run_of_bytes, "/dev/stdout", *options)
    assert (piped.returncode, piped.stdout) == (0, embedded)
    assert b"/dev/stdout: " in piped.stderr
    path = tmp_path / "file"
    path.write_bytes(b"before ")
    with path.open("ab") as file:
        subprocess.run(
            [sys.executable, "-m", "throughtime", "embed", str(run_of_bytes), "/dev/fd/1", *options],
            stdout=file, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    assert path.read_bytes() == b"before " + embedded


@pytest.mark.parametrize("options", [[], ["--force"]])
@pytest.mark.parametrize("target", ["victim", "nowhere"])
def test_a_link_is_neither_followed_nor_replaced(target, options, call, run_of_bytes, text, tmp_path):
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_bytes(b"precious")
    link.symlink_to(tmp_path / target)
    for arguments in (["embed", run_of_bytes, link], ["compress", text, "-m", run_of_bytes, "-o", link]):
        code, _, err = call(*arguments, *options)
        assert (code, err.count("\n")) == (1, 1)
        assert f"cannot write {link}: it is a symbolic link, not a regular file" in err
    assert victim.read_bytes() == b"precious"
    assert link.readlink() == tmp_path / target
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "victim"]


def test_a_folder_is_no_place_for_a_file(call, run_of_bytes, tmp_path):
    for out in (tmp_path, ".", "/"):
        code, _, err = call("embed", run_of_bytes, out, "--force")
        line = (
            f"throughtime: cannot write {out}: it is a folder, not a regular file; remove it, or name another place\n"
        )
        assert (code, err) == (1, line)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_of_a_private_file_is_private(call, run_of_bytes, text, tmp_path):
    private = tmp_path / "my.txt"
    private.write_bytes(text.read_bytes())
    private.chmod(0o600)
    packed = tmp_path / "my.txt.tt"
    assert call("compress", private, "-m", run_of_bytes)[0] == 0
    assert mode_of(packed) == 0o600
    packed.chmod(0o644)
    assert call("compress", private, "-m", run_of_bytes, "--force")[0] == 0
    assert mode_of(packed) == 0o600
    assert call("decompress", packed, "-m", run_of_bytes, "-o", tmp_path / "back")[0] == 0
    assert mode_of(tmp_path / "back") == 0o600
    weights = run_of_bytes / "best" / "model.safetensors"
    weights.chmod(0o600)
    try:
        assert call("embed", run_of_bytes, tmp_path / "model")[0] == 0
        assert call("quantize", run_of_bytes, text, "--out", tmp_path / "small")[0] == 0
    finally:
        weights.chmod(0o644)
    assert mode_of(tmp_path / "model") == mode_of(tmp_path / "small" / "model.safetensors") == 0o600
    assert mode_of(tmp_path / "small" / "model.json") == 0o644


def test_a_file_that_is_replaced_keeps_its_permissions(call, run_of_bytes, tmp_path):
    out = tmp_path / "model"
    out.touch()
    out.chmod(0o640)
    assert call("embed", run_of_bytes, out, "--force")[0] == 0
    assert mode_of(out) == 0o640


def test_a_file_that_appears_while_a_command_runs_is_not_overwritten(call, run_of_bytes, text, tmp_path, monkeypatch):
    from throughtime.runtime import compression

    out, compress = tmp_path / "out", compression.compress

    def slow(*arguments):
        out.write_bytes(b"another's")
        return compress(*arguments)

    monkeypatch.setattr(compression, "compress", slow)
    code, _, err = call("compress", text, "-m", run_of_bytes, "-o", out)
    assert (code, err) == (1, f"throughtime: {out} is there already; name another with --out, or give --force\n")
    assert out.read_bytes() == b"another's"
    assert list(tmp_path.iterdir()) == [out]


def test_of_two_that_quantize_at_once_one_succeeds(call, run_of_bytes, text, tmp_path, monkeypatch):
    from throughtime import folder as folders

    out, write = tmp_path / "small", folders.write_weights

    def slow(*arguments):
        monkeypatch.undo()
        assert call("quantize", run_of_bytes, text, "--out", out)[0] == 0
        return write(*arguments)

    monkeypatch.setattr(folders, "write_weights", slow)
    code, _, err = call("quantize", run_of_bytes, text, "--out", out)
    assert (code, err) == (1, f"throughtime: {out} is there already; name another folder with --out\n")
    assert call("generate", out, "--tokens", 3)[0] == 0
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("nowhere"), os.mkfifo])
def test_quantize_takes_the_place_of_nothing(make, call, run_of_bytes, text, tmp_path):
    make(tmp_path / "small")
    assert "is there already" in call("quantize", run_of_bytes, text, "--out", tmp_path / "small")[2]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder where nothing can be made")
def test_a_folder_that_cannot_be_written_is_named(call, run_of_bytes, text):
    for arguments in (
        ["embed", run_of_bytes, "/proc/self/x"],
        ["compress", text, "-m", run_of_bytes, "-o", "/proc/self/x"],
        ["quantize", run_of_bytes, text, "--out", "/proc/self/x"],
        ["train", text, "--steps", "1", "--out", "/proc/self/x"],
    ):
        code, _, err = call(*arguments)
        last = err.splitlines()[-1]
        assert code == 1
        assert "/proc/self/x" in last
        assert "No such file or directory" in last
