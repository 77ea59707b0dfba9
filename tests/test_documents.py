"""The commands and the code that the documents show, run as they stand there, with small budgets."""

from __future__ import annotations

import re
import shlex
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from throughtime import cells, recipe
from throughtime.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
SMALL = """--hidden 8 --steps 3 --set streams.lanes=4 --set streams.window=8
           --set training.sample_tokens=5 --set training.threads=1"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = (line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines())
    return [line for line in lines if line]


def test_the_two_commands_stand_at_the_top():
    assert commands()[2:4] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for line in commands():
        if line.startswith("make "):
            assert f"\n{line.split()[1]}:" in makefile


def test_the_commands_of_the_readme(tmp_path, monkeypatch, capfd):
    """In order, in one folder, as a reader would type them; a budget in minutes becomes three steps, and then four."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text("In the beginning was the word, and the word was long.\n" * 80)
    typed = [line for line in commands() if line.startswith("throughtime ")]
    assert {shlex.split(line)[1] for line in typed} == set(COMMANDS), "the readme shows every command"
    for line in typed:
        words = shlex.split(re.sub(r"--minutes \S+", "", line))[1:]
        if words[0] == "train":
            words += shlex.split(SMALL.replace("--steps 3", "--steps 4") if "--resume" in words else SMALL)
        with pytest.raises(SystemExit) as left:
            main(words)
        out, err = capfd.readouterr()
        assert left.value.code == 0, f"{line}: {err}"
        assert out, line


def test_the_code_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text("In the beginning was the word, and the word was long.\n" * 80)
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(code.replace('"minutes": 2.0', '"steps": 3'), names)
    assert names["y_TBH"].shape == (7, 3, 20)
    assert names["result"].steps == 3


def test_every_link_in_the_documents_leads_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_whatever_the_documents_import_is_there():
    found = 0
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        lines = re.findall(r"^from (throughtime[\w.]*) import ([\w, ]+)", page.read_text("utf-8"), re.MULTILINE)
        for module, names in lines:
            for name in names.split(","):
                found += 1
                assert getattr(import_module(module), name.split(" as ")[0].strip(), None) is not None, page.name
    assert found


def test_the_table_of_cells_is_whole():
    table = (ROOT / "docs" / "cells.md").read_text("utf-8")
    assert re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE) == cells.names()


def planned(target: str, environment: Path) -> str:
    """The commands that make would run for this target, with its virtual environment in this folder."""
    command = ["make", "--dry-run", "--no-print-directory", f"VENV={environment}", target]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_make_demo_installs_and_compiles_no_more_than_a_demo_needs(tmp_path):
    """The rest is left to `make test`, as the readme says."""
    demo, test = planned("demo", tmp_path), planned("test", tmp_path)
    assert "packages (train compress):" in demo
    assert "THROUGHTIME_LEVELS=native" in demo
    assert "packages (train compress dev):" in test
    assert "THROUGHTIME_LEVELS=all" in test
    assert demo.endswith(f"{tmp_path}/bin/throughtime train --recipe demo\n")


def test_what_make_installed_is_not_installed_again(tmp_path):
    training = f"{tmp_path}/bin/throughtime train --recipe demo\n"
    (tmp_path / "demo-ready").touch()
    assert planned("demo", tmp_path) == training
    assert "THROUGHTIME_LEVELS=all" in planned("test", tmp_path)
    (tmp_path / "demo-ready").unlink()
    (tmp_path / "ready").touch()
    assert planned("test", tmp_path) == f"{tmp_path}/bin/python -m pytest\n"
    assert planned("demo", tmp_path) == training


def test_make_demo_trains_for_as_long_as_the_readme_says():
    assert recipe.build(recipe.read("demo")).training.minutes == 2.0
    assert "trains a character model on real text for two minutes" in README


def test_the_data_folder_is_never_inside():
    assert not (ROOT / "shared").exists()
