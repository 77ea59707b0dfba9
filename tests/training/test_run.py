"""A model folder: what was saved comes back, and what is damaged is named."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import throughtime
from throughtime.cli.run_argument import open_run
from throughtime.errors import ThroughtimeError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text("abc abd abe\n" * 80)
    tree = {
        "text": {"sources": [str(folder / "text.txt")]},
        "streams": {"lanes": 2, "window": 8},
        "model": {"hidden_size": 6, "layers": 2},
        "training": {"steps": 4, "validations": 1, "sample_tokens": 5, "threads": 1},
    }
    return throughtime.train(tree, folder / "run").folder


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_a_run_comes_back_whole(trained):
    loaded = throughtime.load(trained)
    weights = load_file(trained / "best" / "model.safetensors")
    assert loaded.model.state_dict().keys() == weights.keys()
    assert all(torch.equal(array, weights[name]) for name, array in loaded.model.state_dict().items())
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("abc\n").tolist()) == "abc\n"
    assert loaded.recipe.model.layers == 2
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_a_model_folder_is_two_files_and_a_tokeniser(run, tmp_path):
    product = shutil.copytree(run / "best", tmp_path / "product")
    with pytest.raises(ThroughtimeError, match=r"has no tokenizer\.json, nor has"):
        throughtime.load(product)
    shutil.copy(run / "tokenizer.json", product)
    loaded = throughtime.load(product)
    assert loaded.recipe is None
    logits_TBV, _ = loaded.model(torch.zeros(3, 1, dtype=torch.long))
    assert torch.equal(logits_TBV, throughtime.load(run).model(torch.zeros(3, 1, dtype=torch.long))[0])


def test_best_and_last_can_be_named(run):
    assert throughtime.load(run / "last").folder == run / "last"
    assert throughtime.load(run / "last").recipe == throughtime.load(run).recipe


def rewrite(path, change):
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


def reshape(run, change):
    path = run / "best" / "model.safetensors"
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run), "there is no run folder"),
        (lambda run: (shutil.rmtree(run / "best"), shutil.rmtree(run / "last")), "neither a run nor a model folder"),
        (lambda run: (run / "tokenizer.json").unlink(), r"has no tokenizer\.json"),
        (lambda run: (run / "tokenizer.json").write_text("{}"), "is not a tokeniser of this project"),
        (lambda run: (run / "best/model.json").write_text("{"), "is not JSON"),
        (lambda run: (run / "best/model.json").write_text("[]"), "is not a language model of format 1"),
        (lambda run: rewrite(run / "best/model.json", lambda d: d.update(format=2)), "written by a newer version"),
        (lambda run: rewrite(run / "best/model.json", lambda d: d.pop("model")), "does not describe a model"),
        (lambda run: rewrite(run / "best/model.json", lambda d: d["model"].update(layers=0)), "does not describe"),
        (lambda run: rewrite(run / "best/model.json", lambda d: d["model"].update(cell="os.system")), "cell 'os"),
        (lambda run: rewrite(run / "best/model.json", lambda d: d.update(vocabulary_size=99)), "wrong pair"),
        (lambda run: (run / "best/model.safetensors").unlink(), r"cannot read .*model\.safetensors"),
        (lambda run: (run / "best/model.safetensors").write_bytes(b"\0" * 40), r"cannot read .*model\.safetensors"),
        (lambda run: reshape(run, lambda a: a.pop("b_o")), "lacks array b_o"),
        (lambda run: reshape(run, lambda a: a.update(x=torch.ones(1))), "has an unknown array x"),
        (lambda run: reshape(run, lambda a: a.update(b_o=torch.ones(2))), r"b_o .* of shape \[\d\], got .*\[2\]"),
        (lambda run: reshape(run, lambda a: a.update(b_o=a["b_o"].double())), r"F32 .* got F64"),
        (lambda run: reshape(run, lambda a: a["b_o"].fill_(torch.nan)), "b_o .* not finite"),
        (lambda run: (run / "recipe.toml").write_text("x = 3"), "there is no setting x"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("load", [throughtime.load, open_run], ids=["to train", "to run"])
def test_what_is_damaged_is_named_in_a_line(run, damage, message, load):
    damage(run)
    with pytest.raises(ThroughtimeError, match=message) as caught:
        load(run)
    assert "\n" not in str(caught.value)


def test_a_save_that_fails_leaves_the_old_model(run, monkeypatch):
    from throughtime import folder
    from throughtime.models import saved as module

    before = (run / "best/model.safetensors").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "write_weights", fail)
    with pytest.raises(OSError, match="No space left"):
        module.save_model(run / "best", throughtime.load(run).model, {})
    assert (run / "best/model.safetensors").read_bytes() == before
    assert throughtime.load(run).folder == run / "best"
