"""Joining the family is one registration; what a recipe asks wrongly is said in one line."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import matrix_memory
from helpers import leaky_file
from throughtime import cells
from throughtime.cells.base import GatedCell
from throughtime.cells.outside import import_cells, registered_by
from throughtime.errors import SettingError


@pytest.fixture
def leaky(tmp_path):
    """The cell that CONTRIBUTING adds, imported from a file as its reader would."""
    with leaky_file(tmp_path) as path:
        assert import_cells(str(path)) == ["leaky:Leaky"]
        yield cells.family("leaky").cell


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


def test_a_name_is_free_again_after_unregister_and_has_no_colon(leaky):
    cells.unregister("leaky")
    assert "leaky" not in cells.names()
    assert cells.register("leaky")(leaky) is leaky
    with pytest.raises(ValueError, match="the name of a cell has no colon, got 'a:b'"):
        cells.register("a:b")(leaky)


def test_the_class_of_an_imported_module_is_a_name_too(leaky):
    assert cells.family("leaky:Leaky") is cells.family("leaky")
    assert isinstance(cells.create("leaky:Leaky", 3, 4), leaky)
    assert cells.family("matrix_memory:MatrixMemory").cell is matrix_memory.MatrixMemory
    assert matrix_memory.NAME not in cells.names()


@pytest.mark.usefixtures("leaky")
def test_a_cell_knows_where_it_came_from(tmp_path):
    assert registered_by("leaky") == registered_by("leaky:Leaky") == str(tmp_path / "leaky.py")
    assert registered_by(matrix_memory.NAME) == "matrix_memory"
    assert registered_by("lstm") == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Leaky", "the cell 'nowhere:Leaky' is not registered: nowhere defines it; add --import nowhere"),
        ("os:path", "there is no cell 'os:path': the module os has no such class of cells"),
        ("os:system", "the module os has no such class"),
        ("__main__:Leaky", "is of the script itself; register it"),
        ("throughtime.cells.base:GatedCell", "has no such class of cells"),
        ("throughtime:train", "has no such class of cells"),
    ],
)
def test_a_name_with_a_module_finds_classes_of_cells_alone(name, message):
    assert issubclass(GatedCell, cells.Cell)
    with pytest.raises(SettingError, match=message):
        cells.family(name)


def test_what_registered_a_cell_is_named_where_it_is_not_there():
    with pytest.raises(
        SettingError, match=r"the cell 'mine' is not registered: a/b.py defines it; add --import a/b.py"
    ):
        cells.family("mine", "a/b.py")


@pytest.mark.parametrize(
    ("file", "content", "named", "message"),
    [
        (None, "", "no_such_module", "there is no module 'no_such_module' on Python's path"),
        (None, "", "no.such", "there is no module 'no.such' on Python's path"),
        (None, "", "gone.py", "there is no file gone.py to import"),
        ("here.py", "", "here", "a file is named as one: --import here.py"),
        ("random.py", "", "random.py", "there is another module 'random' already; rename the file"),
        ("bad.py", "1 / 0", "bad.py", "cannot import bad.py: ZeroDivisionError: division by zero"),
        ("worse.py", "def", "worse.py", "cannot import worse.py: SyntaxError"),
        ("needs.py", "import no_such_module", "needs.py", "cannot import needs.py: No module named 'no_such_module'"),
    ],
)
def test_what_cannot_be_imported_is_said_in_a_line(tmp_path, monkeypatch, file, content, named, message):
    monkeypatch.chdir(tmp_path)
    if file:
        (tmp_path / file).write_text(content)
    before = set(sys.modules)
    with pytest.raises(SettingError) as raised:
        import_cells(named)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert named.removesuffix(".py") not in set(sys.modules) - before


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
