"""The C library refuses wrong arguments and damaged files, in bounded memory, and never in silence."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import throughtime
from engine.fuzz.models import MODELS
from engine.fuzz.models import embedded as embedded_model
from helpers import damaged
from throughtime import runtime
from throughtime.runtime.embedded import MAGIC

PACKAGE = Path(throughtime.__file__).parent
LIBRARY = PACKAGE / "lib" / "libthroughtime.a"
SOURCES = Path(__file__).parent / "c"
HEADER = len(MAGIC) + 8
"""Bytes up to the end of the check sum."""
MEMORY = 512 << 20
"""Bytes of addresses that a program may have: the library, its threads' stacks and a small model take a part of it."""
STRANGE = [-(2**63), -1, 0, 1, 2**16, 2**31, 2**32, 2**40, 2**40 + 1, 2**61, 2**63 - 1]

pytestmark = [
    pytest.mark.skipif(not LIBRARY.exists() or not shutil.which("cc"), reason="there is no C library, or no compiler"),
    pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does"),
]


def program(name: str, folder: Path) -> Path:
    path = folder / name
    command = [
        "cc",
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{PACKAGE / 'include'}",
        SOURCES / f"{name}.c",
        LIBRARY,
    ]
    subprocess.run([*command, "-lstdc++", "-lm", "-lpthread", "-ldl", "-o", path], check=True)
    return path


class Loader:
    """The program `loads`, which is asked about one file after another."""

    def __init__(self, folder: Path):
        self.file = folder / "model.bin"
        self._process = subprocess.Popen(
            [program("loads", folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
        )

    def ask(self, path: Path) -> str:
        """What the library says of a file; nothing where the program has died."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def load(self, content: bytes) -> str:
        self.file.write_bytes(content)
        return self.ask(self.file)

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def loader(tmp_path_factory):
    loader = Loader(tmp_path_factory.mktemp("loader"))
    yield loader
    loader.end()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    return [embedded_model(place / str(number), *model) for number, model in enumerate(MODELS)]


def signed(content: bytes) -> bytes:
    """With the check sum of what it holds, so that damage is not found by that."""
    body = content[HEADER:]
    return content[: len(MAGIC)] + struct.pack("<q", zlib.crc32(body)) + body


def test_wrong_arguments_are_refused_and_change_nothing(tmp_path, models):
    (tmp_path / "model.bin").write_bytes(models[1])
    command = [program("arguments", tmp_path), tmp_path / "model.bin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_model_is_loaded(loader, models):
    assert all(loader.load(content).startswith("loaded 20 ") for content in models)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damage_is_loaded(loader, models, data):
    content = data.draw(st.sampled_from(models))
    found = damaged(data, content, data.draw(st.integers(0, len(content) - 1)))
    if found != content:
        answer = loader.load(found)
        assert answer.startswith(f"{loader.file}: ")
        assert answer.endswith("\n")


def test_a_name_in_a_file_is_shown_without_control_characters(loader, models):
    content = models[0].replace(text(b"gru"), text(b"\x1b[2J\n"))
    assert content != models[0]
    answer = loader.load(signed(content))
    assert answer == f"{loader.file}: the library has no kernel for ?[2J? with weights in float32\n"


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_forged_file_is_refused_or_is_a_model(loader, models, data):
    """The check sum is right: sizes, kinds and numbers have to be checked themselves, before memory is taken."""
    content = data.draw(st.sampled_from(models))
    near = data.draw(st.booleans())
    at = data.draw(st.integers(HEADER, min(HEADER + 300, len(content) - 9) if near else len(content) - 9))
    if data.draw(st.booleans()):
        number = struct.pack("<q", data.draw(st.sampled_from(STRANGE)))
        found = content[:at] + number + content[at + len(number) :]
    else:
        found = damaged(data, content, at)
    answer = loader.load(signed(found))
    assert answer.startswith((f"{loader.file}: ", "loaded "))
    assert answer.endswith("\n")


def test_a_document_ends_after_the_separator_as_in_training(tmp_path):
    """Here three tokens make it up; a state says how much of it was read."""
    place = tmp_path / "model"
    content = embedded_model(place, "char", "float32", {"cell": "lstm", "hidden_size": 9}, separator="at\n")
    (tmp_path / "model.bin").write_bytes(content)
    model = runtime.load(place)
    ids = [int(index) for index in model.tokenizer.encode("the cat\nsat\nat\nthe mat")]
    reset_TB = np.zeros((len(ids), 1), bool)
    reset_TB[[8, 12, 15]] = True
    command = [program("steps", tmp_path), tmp_path / "model.bin", *map(str, ids)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    logits_TV = np.array([line.split() for line in done.stdout.splitlines()], np.float32)
    wanted, _ = model.network.feed(np.array(ids)[:, None], model.network.initial_state(1), None, reset_TB)
    np.testing.assert_array_equal(logits_TV, wanted[:, 0])


def number(value: int) -> bytes:
    return struct.pack("<q", value)


def text(value: bytes) -> bytes:
    return number(len(value)) + value


@pytest.mark.parametrize(
    "embedding",
    [
        number(1) + number(2**31) + number(0),
        number(1) + number(1) + number(2**40),
        number(1) + number(2**40) + number(2**40),
        number(0) + number(1) + number(2**62 // 4),
        number(7) + number(1) + number(1) + b"\0" * 8,
        number(0) + number(1) + number(1) + struct.pack("<f", float("nan")),
        number(1) + number(1) + number(1) + struct.pack("<f", float("inf")) + b"\1",
    ],
    ids=["no columns", "long rows", "overflow", "2^62 bytes", "unknown kind", "NaN", "infinite scale"],
)
def test_an_array_that_asks_for_more_than_there_is_takes_no_memory(loader, embedding):
    start = text(b"float32") + text(b"word") + number(-1) + number(1) + text(b"a") + text(b"")
    answer = loader.load(signed(MAGIC + number(0) + start + embedding))
    assert answer.startswith(f"{loader.file}: the file is damaged: ")


def test_other_kinds_of_files_are_refused_at_once(loader, tmp_path, models):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path in ("/dev/zero", "/dev/null", tmp_path / "pipe", tmp_path / "socket", tmp_path):
            assert loader.ask(path) == f"{path}: it is not a regular file\n"
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    assert "it is not a regular file" in loader.ask(tmp_path / "link")
    with (tmp_path / "large").open("wb") as file:
        file.write(models[0])
        file.truncate(1 << 40)
    assert "it may have at most 4294967296" in loader.ask(tmp_path / "large")
    assert "is of another version" in loader.load(MAGIC[:-2] + b"1\n" + models[0][len(MAGIC) :])
    assert "something follows its end" in loader.load(signed(models[0] + b"\0"))
