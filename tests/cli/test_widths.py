"""A model of layers of different widths, tied, through every command."""

from __future__ import annotations

import json

import pytest

import throughtime
from throughtime import recipe

from .conftest import SMALL

WIDTHS = "6,11,5"
TIED = ["--set", "model.tied=true", "--set", "model.dropout=0.2", "--tokens", "byte"]


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    """Trained for three steps and resumed for three more, with dropout on the weights too."""
    folder = tmp_path_factory.mktemp("widths") / "run"
    small = [
        *SMALL,
        "--hidden",
        WIDTHS,
        *TIED,
        "--set",
        "model.weight_drop=0.3",
        "--set",
        "training.checkpoint_every=1",
    ]
    for more in (
        ["train", text, "--out", folder, *small, "--steps", "3"],
        ["train", "--resume", "--out", folder, "--steps", "6"],
    ):
        with pytest.raises(SystemExit) as left:
            throughtime.cli.main.main([str(argument) for argument in more])
        assert left.value.code == 0
    return folder


def test_the_run_says_what_its_widths_are(run, call):
    settings = recipe.load(run / "recipe.toml").model
    assert (settings.hidden_size, settings.layers) == ((6, 11, 5), 3)
    assert json.loads((run / "best" / "model.json").read_text())["model"]["hidden_size"] == [6, 11, 5]
    assert "3 layer(s) of lstm, 6-11-5 units" in (run / "card.md").read_text()
    said = call("train", "--resume", "--out", run, "--hidden", "6,11,6")[2]
    assert "cannot go on with another model.hidden_size" in said
