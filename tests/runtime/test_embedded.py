"""The C library writes what the runtime writes, and refuses what is damaged."""

from __future__ import annotations

import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

import throughtime
from helpers import model_folder
from throughtime import runtime
from throughtime.runtime import embedded

PACKAGE = Path(throughtime.__file__).parent
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "write.c"
LIBRARY = PACKAGE / "lib" / "libthroughtime.a"

pytestmark = pytest.mark.skipif(
    not LIBRARY.exists() or not shutil.which("cc"), reason="there is no C library here, or no compiler"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "write"
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{PACKAGE / 'include'}", EXAMPLE, LIBRARY]
    subprocess.run([*command, "-lstdc++", "-lm", "-lpthread", "-ldl", "-o", path], check=True)
    return path


def folder_of(path, tokens="char", **values):
    return model_folder(path, "the cat sat on thé mat\n", tokens, **values)[0]


def run(program, *arguments):
    return subprocess.run([program, *map(str, arguments)], capture_output=True, check=False)


@pytest.mark.parametrize("weights", ["float32", "bf16", "int8"])
@pytest.mark.parametrize(
    "values",
    [
        {"cell": "gru", "hidden_size": 20},
        {"cell": "lstm", "hidden_size": 33, "layers": 2, "tied": True},
        {"cell": "mingru", "hidden_size": 16, "embedding_size": 5},
        {"cell": "elman", "hidden_size": 16, "cell_options": {"activation": "relu"}},
        {"cell": "lstm", "hidden_size": [16, 33, 9], "tied": True},
        {"cell": "gru", "hidden_size": [9, 20], "embedding_size": 5},
    ],
    ids=str,
)
def test_it_writes_what_the_runtime_writes(program, tmp_path, values, weights):
    place = folder_of(tmp_path / "model", **values)
    (tmp_path / "model.bin").write_bytes(embedded.embed(place, weights))
    done = run(program, tmp_path / "model.bin", "thé ", 120, 7)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == "".join(runtime.load(place, weights).generate("thé ", 120, seed=7))
    assert done.stderr.startswith(b"120 tokens written")


def test_only_layers_of_different_sizes_need_a_newer_library(tmp_path):
    for place, sizes, magic in (("one", [8, 8], b"embedded 2\n"), ("two", [8, 9], b"embedded 3\n")):
        content = embedded.embed(folder_of(tmp_path / place, hidden_size=sizes))
        assert content.startswith(b"throughtime " + magic)


def test_bytes(program, tmp_path):
    place = folder_of(tmp_path / "model", "byte", hidden_size=12)
    (tmp_path / "model.bin").write_bytes(embedded.embed(place))
    done = run(program, tmp_path / "model.bin", "the", 40, 1)
    assert done.stdout.decode("utf-8", "replace") == "".join(runtime.load(place).generate("the", 40, seed=1))


def test_what_is_wrong_is_said(program, tmp_path):
    content = embedded.embed(folder_of(tmp_path / "model", hidden_size=8))
    file = tmp_path / "model.bin"
    after = len(embedded.MAGIC) + 8
    for damaged, message in [
        (b"", b"was not written by"),
        (b"x" * 100, b"was not written by"),
        (content[:-1], b"its check sum is another"),
        (content[:90] + b"?" + content[91:], b"its check sum is another"),
    ]:
        file.write_bytes(damaged)
        done = run(program, file, "the", 4, 1)
        assert done.returncode == 1
        assert message in done.stderr
    # Damage that the check sum was made for after: sizes are checked too.
    for place in range(after, min(len(content), after + 900), 7):
        damaged = bytearray(content)
        damaged[place] ^= 0x41
        damaged[len(embedded.MAGIC) : after] = zlib.crc32(damaged[after:]).to_bytes(8, "little")
        file.write_bytes(damaged)
        assert run(program, file, "the", 4, 1).returncode in (0, 1)
    assert b"cannot be opened" in run(program, tmp_path / "none", "the", 4, 1).stderr
    file.write_bytes(content)
    assert b"the prompt cannot be read" in run(program, file, "Z", 4, 1).stderr
