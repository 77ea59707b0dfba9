"""A model whose layers have different widths, tied, through every command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from throughtime import cells, recipe, runtime
from throughtime.cli.main import main
from throughtime.models import saved

from .conftest import SMALL

SETTINGS = """--hidden 6,11,5 --tokens byte --set model.tied=true --set model.dropout=0.2 --set model.weight_drop=0.3
              --set training.checkpoint_every=1 --set training.signs_every=1""".split()  # noqa: SIM905


def command(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code == 0


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    """Trained for three steps, and resumed for three more."""
    folder = tmp_path_factory.mktemp("widths") / "run"
    command("train", text, "--out", folder, *SMALL, *SETTINGS, "--steps", 3)
    command("train", "--resume", "--out", folder, "--steps", 6)
    return folder


def test_the_run_says_what_its_widths_are(run, call):
    settings = recipe.load(run / "recipe.toml").model
    assert (settings.hidden_size, settings.layers) == ((6, 11, 5), 3)
    assert json.loads((run / "best" / "model.json").read_text())["model"]["hidden_size"] == [6, 11, 5]
    assert "3 layer(s) of lstm, 6-11-5 units" in (run / "card.md").read_text()
    said = call("train", "--resume", "--out", run, "--hidden", "6,11,6")[2]
    assert "cannot go on with another model.hidden_size (was (6, 11, 5), now (6, 11, 6))" in said


def test_evaluate_score_and_pytorch_agree(run, call, text):
    measured = json.loads(call("evaluate", run, text, "--json", "--lanes", 3)[1])
    scored = json.loads(call("score", run, text, "--json")[1])
    assert scored["total_bits"] == pytest.approx(measured["bits_per_byte"] * measured["bytes"], rel=1e-5)
    trained = saved.load(run)
    ids = torch.from_numpy(trained.tokenizer.encode(text.read_text()).astype(np.int64))[:, None]
    with torch.no_grad():
        bits = -trained.model(ids[:-1])[0].log_softmax(2).gather(2, ids[1:, :, None]) / np.log(2)
    np.testing.assert_allclose(scored["bits"][1:], bits.flatten(), rtol=1e-3, atol=1e-4)


def test_generate_writes_and_inspect_reads(run, call, text, tmp_path):
    code, out, _ = call("generate", run, "--prompt", "Once", "--tokens", 20, "--seed", 1)
    assert (code, out[:4]) == (0, "Once")
    code, out, err = call("inspect", run, text, "--out", tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert "3 layers of lstm, 6-11-5 units, " in (tmp_path / "page.html").read_text("utf-8")


def test_compress_and_back(run, call, text, tmp_path):
    assert call("compress", text, "-m", run, "-o", tmp_path / "packed")[0] == 0
    assert call("decompress", tmp_path / "packed", "-m", run, "-o", tmp_path / "back")[0] == 0
    assert (tmp_path / "back").read_bytes() == text.read_bytes()


def test_quantize_and_embed(run, call, text, tmp_path):
    code, out, _ = call("quantize", run, text, "--out", tmp_path / "small")
    before, after = (line.split() for line in out.splitlines()[:2])
    assert code == 0
    assert float(after[4]) == pytest.approx(float(before[4]), rel=0.05)
    assert runtime.load(tmp_path / "small").settings.widths == (6, 11, 5)
    assert call("embed", tmp_path / "small", tmp_path / "model.bin")[0] == 0
    assert (tmp_path / "model.bin").read_bytes().startswith(b"throughtime embedded 3\n")


@pytest.mark.parametrize("cell", cells.names())
def test_every_cell_trains_with_different_widths(cell, text, call, tmp_path):
    settings = ["--set", "model.tied=true", "--set", "model.dropout=0.1", "--cell", cell, "--steps", 2]
    code, _, err = call("train", text, "--out", tmp_path / "run", *SMALL, "--hidden", "5,9,7", *settings)
    assert code == 0, err
    measured = json.loads(call("evaluate", tmp_path / "run", "--json")[1])
    ended = json.loads((tmp_path / "run" / "journal.jsonl").read_text().splitlines()[-1])
    assert measured["nats_per_token"] == pytest.approx(ended["nats_per_token"], rel=1e-5)
