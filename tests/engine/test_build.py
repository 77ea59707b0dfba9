"""The build: what it makes where a compiler is, and that an install without one goes on."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from throughtime.engine import levels
from throughtime.machine import processor
from throughtime.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which(shlex.split(os.environ.get("CXX") or "c++")[0])
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
CMAKE = shutil.which("cmake", path=TOOLS)
OBJECTS = sorted((ROOT / "build" / "CMakeFiles").glob("level_avx*.dir/**/*.cpp.o"))
AVX512 = {"fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}
NEEDS: dict[str, set[str]] = {
    "portable": set(),
    "avx2": {"avx2", "fma"},
    "avx512": AVX512,
    "avx512bf16": {*AVX512, "avx512_bf16"},
    "avx512fp16": {*AVX512, "avx512_fp16"},
}
OTHER_COMPILER = [
    "-DCMAKE_CXX_COMPILER_ID_RUN=TRUE",
    "-DCMAKE_CXX_COMPILER_ID=Intel",
    "-DCMAKE_CXX_COMPILER_FORCED=TRUE",
]


def configure(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    assert CMAKE
    command = [CMAKE, "-S", str(ROOT), "-B", str(folder), f"-DPython_EXECUTABLE={sys.executable}", *arguments]
    # A sanitizer's library is for Python, and CMake hangs with it.
    environment = {**os.environ, "PATH": TOOLS, "LD_PRELOAD": "", **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_version_is_written_once():
    assert metadata.version("throughtime") == VERSION


def test_the_engine_is_there_exactly_where_a_compiler_is():
    """Everything runs without it, so that nothing else would tell of an install that lost it."""
    assert bool(levels()) == bool(COMPILER), "pip -v install says in a CMake warning why there is no engine"


@pytest.mark.skipif(not levels(), reason="no engine")
def test_the_levels_are_those_of_this_processor():
    _, flags = processor()
    if not flags:
        pytest.skip("this system does not tell what its processor can do")
    expected = [level for level, needed in NEEDS.items() if needed <= flags]
    young = {"avx512bf16", "avx512fp16"}  # an old compiler lacks them
    assert set(levels()) | young == {*expected, *young}


@pytest.mark.skipif(not CMAKE or not levels(), reason="needs cmake and a compiler")
def test_the_native_level_is_the_one_that_the_engine_chooses(tmp_path):
    done = configure(tmp_path, "-DTHROUGHTIME_LEVELS=native")
    assert done.returncode == 0, done.stderr
    (line,) = re.findall(r"^levels to compile: (.*)$", done.stderr + done.stdout, re.MULTILINE)
    best, int8 = line.split(", ")
    assert best == levels()[-1]
    has_vnni = "avx512_vnni" in processor()[1]
    assert int8 == {"portable": "portable_int8", "avx2": "avx2_int8"}.get(best, f"avx{512 if has_vnni else 2}_int8")


@pytest.mark.skipif(not CMAKE or not COMPILER, reason="needs cmake and a compiler")
def test_a_package_has_all_levels(tmp_path):
    done = configure(tmp_path)
    (line,) = re.findall(r"^levels to compile: (.*)$", done.stderr + done.stdout, re.MULTILINE)
    assert set(levels()) <= set(line.split(", "))
    assert line.startswith("portable, portable_int8")


@pytest.mark.skipif(not CMAKE or not COMPILER, reason="needs cmake and a compiler")
def test_a_level_that_does_not_exist_is_an_error(tmp_path):
    done = configure(tmp_path, "-DTHROUGHTIME_LEVELS=portable;avx1024")
    assert done.returncode != 0
    assert "must be all, native, or some of portable;avx2;avx512;avx512bf16;avx512fp16, got avx1024" in " ".join(
        done.stderr.split()
    )


@pytest.mark.skipif(not OBJECTS or not shutil.which("nm"), reason="needs the objects of `make`, and nm")
@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.relative_to(ROOT / "build" / "CMakeFiles").parts[0])
def test_no_level_lends_its_code_to_another(path):
    """The linker keeps one copy of an inline function: were it that of AVX-512, the portable level would die of it."""
    level = path.relative_to(ROOT / "build" / "CMakeFiles").parts[0].removeprefix("level_").removesuffix(".dir")
    listing = subprocess.run(["nm", "-C", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    lent = [line for line in listing.splitlines() if line.split()[1] in {"W", "u"} and f"::{level}::" not in line]
    assert not lent, "static functions and those in the namespace of LEVEL are a level's own; templates of std are not"


@pytest.mark.skipif(not CMAKE, reason="no cmake")
@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        ([], {"CXX": "/nonexistent"}, "there is no C++ compiler that works"),
        (OTHER_COMPILER, {}, "is neither GCC nor Clang"),
        (["-DPython_INCLUDE_DIR=/"], {}, "Python's headers (python3-dev or python3-devel) are not in /"),
        ([], {}, "has no nanobind"),
    ],
    ids=["no compiler", "another compiler", "no headers", "no nanobind"],
)
def test_what_is_missing_is_a_warning(tmp_path, monkeypatch, arguments, environment, reason):
    if not COMPILER and not environment:
        pytest.skip("no compiler")
    (tmp_path / "nanobind.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = configure(tmp_path / "build", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert "no native engine, training falls back to PyTorch: " in done.stderr
    assert reason in done.stderr
