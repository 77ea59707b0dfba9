"""Which kernels run: the environment's word, and what is said where something cannot run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from throughtime import cells, engine
from throughtime.engine import choice
from throughtime.errors import SettingError


def run(*arguments, wanted):
    environment = {**os.environ, choice.VARIABLE: wanted}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def _no_kernels(monkeypatch):
    """As after an install without a compiler."""
    monkeypatch.setattr(choice, "_native", None)
    engine.level.cache_clear()
    yield
    engine.level.cache_clear()


@pytest.mark.parametrize("level", engine.levels())
def test_the_environment_chooses_a_level(level):
    done = run("-c", "from throughtime import engine; print(engine.level(), engine.kernel('gru').gates)", wanted=level)
    assert done.stdout == f"{level} 3\n", done.stderr
    assert f"engine    native kernels of level {level} (of " in run("-m", "throughtime", "doctor", wanted=level).stdout


def test_without_a_word_the_best_level_runs():
    best = engine.levels()[-1] if engine.levels() else None
    done = run("-c", "from throughtime import engine; print(engine.level())", wanted="")
    assert done.stdout == f"{best}\n", done.stderr


def test_a_script_ends_in_silence():
    """Its last graph is still alive then, and holds the kernel."""
    script = """
import torch
from throughtime import cells
loss = cells.create("gru", 5, 6)(torch.randn(4, 3, 5))[0].sum()
loss.backward()
"""
    done = run("-c", script, wanted="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("command", [["doctor"], ["train", "builtin", "--steps", "1"]], ids=["doctor", "train"])
def test_a_level_that_is_not_there_is_one_line(command, tmp_path):
    out = ["--out", str(tmp_path / "run")] if "train" in command else []
    done = run("-m", "throughtime", *command, *out, wanted="sse9")
    possible = ", ".join(engine.levels()) or "nothing (no kernels)"
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"throughtime: THROUGHTIME_ISA must be one of {possible}, got 'sse9'"
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("_no_kernels")
def test_without_kernels_native_is_refused_and_auto_is_not():
    assert engine.levels() == []
    assert engine.kernel("gru") is None
    assert engine.describe().startswith("no native kernels: the package was installed without a C++ compiler")
    with pytest.raises(SettingError, match="gru cannot run native: the package was installed without kernels"):
        cells.create("gru", 3, 4, engine="native")
    assert cells.create("gru", 3, 4).engine == "torch"
    with pytest.raises(SettingError, match="precision bf16 needs the native engine, and the cell gru runs on torch"):
        cells.create("gru", 3, 4, precision="bf16")


@pytest.mark.skipif(not engine.levels(), reason="no engine")
def test_kernels_built_for_another_processor_are_not_used(monkeypatch):
    """As after `make demo` on one machine and a run on an older one."""
    monkeypatch.setattr(choice, "levels", list)
    engine.level.cache_clear()
    try:
        assert engine.describe().startswith("no native kernels: the package was built for another processor")
        assert engine.kernel("gru") is None
        assert engine.network(0) is None
        assert cells.create("gru", 3, 4).engine == "torch"
    finally:
        engine.level.cache_clear()


@pytest.mark.usefixtures("_no_kernels")
def test_without_kernels_there_is_no_level_to_name(monkeypatch):
    monkeypatch.setenv(choice.VARIABLE, "avx2")
    for asks in (engine.level, engine.describe):
        with pytest.raises(SettingError, match=r"must be one of nothing \(no kernels\), got 'avx2'"):
            asks()


@pytest.mark.parametrize("other", ["torch", "reference"])
def test_bf16_is_native_alone(other):
    with pytest.raises(SettingError, match=f"precision bf16 needs the native engine, and the cell gru runs on {other}"):
        cells.create("gru", 3, 4, engine=other, precision="bf16")


def test_precisions_are_two():
    with pytest.raises(SettingError, match="precision must be float32 or bf16, got 'fp16'"):
        cells.create("gru", 3, 4, precision="fp16")
