"""Which kernels run: the environment's word, and what is said where something cannot run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from throughtime import cells, engine
from throughtime.engine import choice
from throughtime.errors import SettingError
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model


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
    assert (
        f"engine       native kernels of level {level} (of " in run("-m", "throughtime", "doctor", wanted=level).stdout
    )


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
@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({}, "installed without kernels"),
        ({"engine": "native"}, "installed without kernels; native was asked for"),
        ({"precision": "bf16"}, "installed without kernels; bf16 was asked for"),
        ({"engine": "native", "precision": "bf16"}, "installed without kernels; native and bf16 were asked for"),
    ],
    ids=["auto", "native", "bf16", "both"],
)
def test_without_kernels_cells_run_on_pytorch_and_say_so(asked, reason):
    assert engine.levels() == []
    assert engine.kernel("gru") is None
    assert engine.describe().startswith("no native kernels: the package was installed without a C++ compiler")
    cell = cells.create("gru", 3, 4, **asked)
    assert (cell.engine, cell.reason) == ("torch", reason)
    x_TBD = torch.ones(5, 2, 3)
    twin = cells.create("gru", 3, 4, engine="torch")
    twin.load_state_dict(cell.state_dict())
    assert torch.equal(cell(x_TBD)[0], twin(x_TBD)[0])
    model = LanguageModel(Model(cell="minlstm", hidden_size=4, **asked), 7)
    assert (model.engine, model.engine_reason) == ("reference", reason)


@pytest.mark.skipif(not engine.levels(), reason="no engine")
def test_kernels_built_for_another_processor_are_not_used(monkeypatch):
    """As after `make demo` on one machine and a run on an older one."""
    monkeypatch.setattr(choice, "levels", list)
    engine.level.cache_clear()
    try:
        assert engine.describe().startswith("no native kernels: the package was built for another processor")
        assert engine.kernel("gru") is None
        assert engine.network(0) is None
        cell = cells.create("gru", 3, 4)
        assert (cell.engine, cell.reason) == ("torch", "the kernels were built for another processor")
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
