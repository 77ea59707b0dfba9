"""Joining the family is one registration; what a recipe asks wrongly is said in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from throughtime import cells
from throughtime.cells import base
from throughtime.errors import SettingError


@pytest.fixture
def leaky(monkeypatch):
    """The cell that CONTRIBUTING adds."""
    monkeypatch.setattr(base, "_FAMILIES", dict(base._FAMILIES))
    guide = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    names = {}
    exec(code, names)
    return names["Leaky"]


def test_a_new_cell_runs_sequences_stacks_and_models(leaky):
    from throughtime.models.language import LanguageModel
    from throughtime.models.settings import Model

    assert "leaky" in cells.names()
    model = LanguageModel(Model(cell="leaky", hidden_size=6, layers=2), 5)
    assert isinstance(model.stack.cells[1], leaky)
    assert model.engine == "reference"
    logits_TBV, _ = model(torch.zeros(3, 2, dtype=torch.long))
    assert logits_TBV.shape == (3, 2, 5)


@pytest.mark.usefixtures("leaky")
@pytest.mark.parametrize("setting", ["weight_drop", "recurrent_dropout"])
def test_a_cell_that_names_no_matrix_refuses_to_drop_there(setting):
    from throughtime.models.language import LanguageModel
    from throughtime.models.settings import Model

    with pytest.raises(SettingError, match=r"a Leaky has no product with its state .* must be 0 for it"):
        LanguageModel(Model(cell="leaky", **{setting: 0.1}), 5)


def test_a_name_is_taken_once(leaky):
    with pytest.raises(ValueError, match="there is a cell 'leaky' already"):
        cells.register("leaky")(leaky)


@pytest.mark.usefixtures("leaky")
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("ltsm", 3, 4), {}, "there is no cell 'ltsm'; there are elman, gru, .*leaky, lstm"),
        (("lstm", 0, 4), {}, "sizes of at least 1, got input 0 and hidden 4"),
        (("lstm", 3, 4), {"forget": 1}, "the cell lstm has no option 'forget'; it has forget_bias, generator"),
        (("elman", 3, 4), {"activation": "sine"}, "must be tanh or relu, got 'sine'"),
        (("lstm", 3, 4), {"engine": "cuda"}, "engine must be auto, native, torch or reference, got 'cuda'"),
        (("leaky", 3, 4), {"engine": "torch"}, "PyTorch has no fused form of the cell leaky"),
    ],
)
def test_what_is_asked_wrongly(arguments, options, message):
    with pytest.raises(SettingError, match=message):
        cells.create(*arguments, **options)


@pytest.mark.parametrize(
    ("name", "module", "options"),
    [
        ("elman", nn.RNN, {}),
        ("elman", lambda d, h: nn.RNN(d, h, nonlinearity="relu"), {"activation": "relu"}),
        ("gru", nn.GRU, {}),
        ("lstm", nn.LSTM, {}),
    ],
)
def test_the_equations_are_those_of_pytorch(name, module, options):
    """The reference step against PyTorch's module, which nobody here wrote."""
    theirs = module(5, 6).double()
    ours = cells.create(name, 5, 6, engine="reference", **options).double()
    with torch.no_grad():
        weights = [parameter for parameter in ours.parameters() if parameter.dim() == 2]
        weights[0].copy_(theirs.weight_ih_l0)
        weights[1].copy_(theirs.weight_hh_l0)
        if name == "gru":
            ours.b.copy_(theirs.bias_ih_l0)
            ours.b[:12] += theirs.bias_hh_l0[:12]
            ours.c_n.copy_(theirs.bias_hh_l0[12:])
        else:
            next(p for p in ours.parameters() if p.dim() == 1).copy_(theirs.bias_ih_l0 + theirs.bias_hh_l0)
    x_TBD = torch.randn(9, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(ours(x_TBD)[0], theirs(x_TBD)[0])
