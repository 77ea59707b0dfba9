"""The tokens that `score` shows are those of the text."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from helpers import model_folder
from throughtime.cli.main import group

TEXT = "thé 日本 cat\n\u0416\U0001f600 rat\n"


def score(*arguments):
    told = CliRunner().invoke(group, ["score", *map(str, arguments)])
    assert told.exit_code == 0, told.output
    return told.stdout


@pytest.mark.parametrize("kind", ["byte", "bpe", "char", "word"])
def test_the_tokens_joined_are_the_text(kind, tmp_path):
    place, _ = model_folder(tmp_path / "m", TEXT, kind, hidden_size=8)
    (tmp_path / "t.txt").write_text(TEXT, "utf-8")
    found = json.loads(score(place, tmp_path / "t.txt", "--json"))
    assert "".join(found["tokens"]) == TEXT
    assert len(found["tokens"]) == len(found["bits"])


def test_a_character_that_is_not_whole_is_shown_in_its_place(tmp_path):
    place, _ = model_folder(tmp_path / "m", TEXT, "byte", hidden_size=8)
    (tmp_path / "t.txt").write_bytes(b"a\xffb\xc3")
    found = json.loads(score(place, tmp_path / "t.txt", "--json"))
    assert "".join(found["tokens"]) == "a\ufffdb\ufffd"
    lines = score(place, tmp_path / "t.txt").splitlines()
    assert [line.split()[-1] for line in lines] == ["'a'", r"b'\xff'", "'b'", r"b'\xc3'"]
