"""What a cell, a stack and a model are given: taken where it is plainly meant, else one line that names it."""

from __future__ import annotations

import copy
import io
import pickle
import pydoc

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import matrix_memory
from throughtime import cells
from throughtime.cells import Masks, Stack
from throughtime.cells.base import Embedded
from throughtime.cells.lstm import LSTMState
from throughtime.cells.state import HiddenState, leaves, put_rows, reset_rows, select_rows
from throughtime.engine import choice
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.models import output
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model
from throughtime.streams.batch import NO_TARGET

ENGINES = ["auto", "torch", "reference"]
every_engine = pytest.mark.parametrize("engine", ENGINES)
X_TBD = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1))
H_BH, C_BH = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(2))
FRESH_TB = torch.zeros(5, 2, dtype=torch.bool)
IDS_TB = torch.zeros(5, 2, dtype=torch.long)


def one_line(error):
    return "\n" not in str(error.value)


@every_engine
@pytest.mark.parametrize("given", [(H_BH,), [H_BH], H_BH, H_BH[None], (H_BH[None],), (HiddenState(H_BH),)])
def test_a_state_of_one_array_is_taken_in_every_plain_form(engine, given):
    cell = cells.create("gru", 3, 4, engine=engine)
    expected, _ = cell(X_TBD, HiddenState(H_BH))
    y_TBH, after = cell(X_TBD, given)
    assert torch.equal(y_TBH, expected)
    assert type(after) is HiddenState
    assert torch.equal(cell.step(X_TBD[0], given)[0], cell.step(X_TBD[0], HiddenState(H_BH))[0])
    assert torch.equal(Stack([cell])(X_TBD, given)[0], expected)


@every_engine
@pytest.mark.parametrize("given", [(H_BH, C_BH), [H_BH, C_BH], (H_BH[None], C_BH[None])])
def test_a_state_of_two_arrays_is_taken_in_every_plain_form(engine, given):
    cell = cells.create("lstm", 3, 4, engine=engine)
    expected, _ = cell(X_TBD, LSTMState(H_BH, C_BH))
    assert torch.equal(cell(X_TBD, given)[0], expected)
    assert torch.equal(cell.step(X_TBD[0], given)[0], cell.step(X_TBD[0], LSTMState(H_BH, C_BH))[0])


@pytest.mark.parametrize("layers", [1, 3])
def test_a_state_of_more_axes_is_not_taken_for_an_array_of_all_layers(layers):
    """[B, H, K] has three axes, as [L, B, H] has; there are as many lanes as layers here."""
    generator = torch.Generator().manual_seed(0)
    made = [cells.create(matrix_memory.NAME, 4, 4, generator=generator) for _ in range(layers)]
    stack, x_TBD = Stack(made), torch.randn(5, layers, 4, generator=generator)
    _, state = stack(x_TBD)
    y_TBH, after = stack(x_TBD, state)
    stacked = tuple(torch.stack(arrays) for arrays in zip(*state, strict=True))
    again_TBH, again = stack(x_TBD, stacked)
    assert torch.equal(y_TBH, again_TBH)
    assert all(torch.equal(one, other) for one, other in zip(leaves(after), leaves(again), strict=True))
    if layers == 1:
        assert torch.equal(stack(x_TBD, state[0])[0], y_TBH)


def test_a_stack_takes_the_state_of_pytorchs_layers():
    lstm = Stack([cells.create("lstm", size, 4) for size in (3, 4)])
    own = (LSTMState(H_BH, H_BH + 1), LSTMState(C_BH, C_BH + 1))
    theirs = (torch.stack([H_BH, C_BH]), torch.stack([H_BH, C_BH]) + 1)
    assert torch.equal(lstm(X_TBD, theirs)[0], lstm(X_TBD, own)[0])
    assert torch.equal(lstm.step(X_TBD[0], theirs)[0], lstm.step(X_TBD[0], own)[0])
    gru = Stack([cells.create("gru", size, 4) for size in (3, 4)])
    expected, _ = gru(X_TBD, (HiddenState(H_BH), HiddenState(C_BH)))
    assert torch.equal(gru(X_TBD, torch.stack([H_BH, C_BH]))[0], expected)
    assert torch.equal(gru(X_TBD, (H_BH, C_BH))[0], expected)
    for wrong in ((HiddenState(H_BH),), HiddenState(H_BH), "ab", H_BH):
        with pytest.raises(
            ThroughtimeError, match="the state of a stack should be a tuple of its 2 layers' states, got"
        ):
            gru(X_TBD, wrong)


WRONG_STATES = [
    LSTMState(H_BH, C_BH),
    (H_BH, C_BH),
    "abc",
    {"hidden_BH": H_BH},
    H_BH.numpy(),
    3,
    (),
    HiddenState(None),
]


@every_engine
@pytest.mark.parametrize("given", WRONG_STATES, ids=lambda given: type(given).__name__)
def test_a_state_that_is_another_is_named(engine, given):
    cell = cells.create("gru", 3, 4, engine=engine)
    cell.step(X_TBD[0], HiddenState(H_BH))
    for call in (lambda: cell(X_TBD, given), lambda: cell.step(X_TBD[0], given)):
        with pytest.raises(
            ThroughtimeError, match=r"the state of GRU should be HiddenState of hidden_BH \[2, 4\]"
        ) as e:
            call()
        assert one_line(e)
    for given in ((HiddenState(H_BH), HiddenState(C_BH)), HiddenState(H_BH), H_BH):
        with pytest.raises(ThroughtimeError, match="the state of LSTM should be LSTMState of"):
            cells.create("lstm", 3, 4, engine=engine)(X_TBD, given)


@every_engine
def test_a_state_of_another_kind_size_or_device_is_named(engine):
    cell = cells.create("gru", 3, 4, engine=engine)
    cell.step(X_TBD[0], HiddenState(H_BH))
    for given, message in [
        (H_BH.double(), "hidden_BH of the state should be float32 like the parameters, got float64"),
        (H_BH.to("meta"), "hidden_BH of the state is on meta and the parameters are on cpu"),
        (H_BH[:1], r"a state should have shape \[2, 4\], got \[1, 4\]"),
        (torch.cat([H_BH, H_BH]), r"a state should have shape \[2, 4\], got \[4, 4\]"),
    ]:
        for call in (cell, lambda x_TBD, state: cell.step(x_TBD[0], state)):
            with pytest.raises(ThroughtimeError, match=message):
                call(X_TBD, HiddenState(given))
    with pytest.raises(ThroughtimeError, match=r"a state should have shape \[1, 4\], got \[2, 4\]"):
        cell.step(X_TBD[0, :1], HiddenState(H_BH))


META = "is on meta and the parameters are on cpu"
KIND = "like the parameters"


@every_engine
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reset_TB": FRESH_TB.to("meta")}, f"reset_TB {META}"),
        ({"gradient_scale_TB": FRESH_TB.float().to("meta")}, f"gradient_scale_TB {META}"),
        ({"masks": Masks(torch.ones(12, 4, device="meta"))}, f"masks.weights {META}"),
        ({"masks": Masks(None, torch.ones(2, 4, device="meta"))}, f"masks.state_BH {META}"),
        ({"x": X_TBD.to("meta")}, f"x_TBD {META}"),
        ({"x": Embedded(X_TBD[0], IDS_TB.to("meta"))}, f"ids_TB {META}"),
        ({"x": Embedded(X_TBD[0].to("meta"), IDS_TB)}, f"rows_VD {META}"),
        ({"reset_TB": FRESH_TB.float()}, r"reset_TB should be bool, got float32; use reset_TB.bool\(\)"),
        ({"reset_TB": FRESH_TB.long()}, "reset_TB should be bool, got int64"),
        ({"reset_TB": FRESH_TB.numpy()}, r"reset_TB should be a tensor of shape \[5, 2\], got a ndarray"),
        ({"reset_TB": FRESH_TB.T}, r"reset_TB should have shape \[5, 2\], got \[2, 5\]; time comes first"),
        (
            {"gradient_scale_TB": FRESH_TB.float().requires_grad_()},
            "gradient_scale_TB should be real numbers without a gradient",
        ),
        ({"masks": Masks(torch.ones(12, 4) > 0)}, f"masks.weights should be float32 {KIND}, .* got bool"),
        ({"masks": Masks(None, torch.ones(2, 4) > 0)}, f"masks.state_BH should be float32 {KIND}, .* got bool"),
        ({"masks": torch.ones(12, 4)}, "masks should be a cells.Masks, got float32"),
        (
            {"x": Embedded(X_TBD[0], IDS_TB + 1.9)},
            "ids_TB should be a tensor of whole numbers such as int64, got float32",
        ),
        ({"x": Embedded(X_TBD[0], IDS_TB > 0)}, "ids_TB should be a tensor of whole numbers such as int64, got bool"),
        ({"x": Embedded(X_TBD[0], IDS_TB[..., None])}, r"ids_TB should have shape \[T, B\], got \[5, 2, 1\]"),
        ({"x": X_TBD.double()}, f"x_TBD should be float32 {KIND}, got float64; use .to"),
        ({"x": X_TBD.half()}, f"x_TBD should be float32 {KIND}, got float16"),
        ({"x": X_TBD.long()}, f"x_TBD should be float32 {KIND}, got int64"),
        ({"x": X_TBD[0]}, r"x_TBD should have shape \[T, B, 3\], got \[2, 3\]; time comes first"),
        (
            {"x": pack_padded_sequence(X_TBD, [5, 3])},
            "got a PackedSequence; use torch.nn.utils.rnn.pad_packed_sequence",
        ),
        ({"x": X_TBD.to_sparse()}, "x_TBD should be a dense tensor .* got a sparse or nested tensor"),
        ({"x": X_TBD.numpy()}, "x_TBD should be a dense tensor .* got a ndarray"),
        (
            {"x": X_TBD.transpose(0, 1), "state": H_BH},
            r"got \[2, 4\]; time comes first: for \[B, T, D\] use x.transpose",
        ),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named(engine, arguments, message):
    cell = cells.create("gru", 3, 4, engine=engine)
    with pytest.raises(ThroughtimeError, match=message) as error:
        cell(**{"x": X_TBD, **arguments})
    assert one_line(error)


@every_engine
def test_whole_numbers_and_real_numbers_of_every_kind_are_taken(engine):
    cell = cells.create("gru", 3, 4, engine=engine)
    expected, _ = cell(Embedded(X_TBD[0], IDS_TB + 1))
    for kind in (torch.int32, torch.int16, torch.int8, torch.uint8):
        assert torch.equal(cell(Embedded(X_TBD[0], (IDS_TB + 1).to(kind)))[0], expected)
    x_TBD, gradients = X_TBD.clone().requires_grad_(), []
    gradient_scale_TB = FRESH_TB.double()
    gradient_scale_TB[3, 0] = 1
    for kind in (torch.float64, torch.float32, torch.float16, torch.int64, torch.bool):
        y_TBH, _ = cell(x_TBD, gradient_scale_TB=gradient_scale_TB.to(kind))
        gradients += torch.autograd.grad(y_TBH[-1].sum(), x_TBD)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


@every_engine
@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("W", torch.randn(3, 9), r"W should have shape \[12, 3\], got \[3, 9\]"),
        ("U", torch.randn(4, 12), r"U should have shape \[12, 4\], got \[4, 12\]"),
        ("b", torch.randn(2, 8), r"b should have shape \[12\], got \[2, 8\]"),
        ("b", torch.randn(2, 12), r"b should have shape \[12\], got \[2, 12\]"),
        ("b", None, r"b should be a tensor of shape \[12\], got None"),
        ("W", torch.randn(12, 3).double(), "of one kind on one device: W is float64 on cpu, U float32 on cpu"),
        ("c_n", torch.randn(4, device="meta"), "of one kind on one device: W is float32 on cpu, c_n float32 on meta"),
    ],
)
def test_a_parameter_that_does_not_fit_is_named(engine, name, array, message):
    cell = cells.create("gru", 3, 4, engine=engine)
    cell(X_TBD), cell.step(X_TBD[0], HiddenState(H_BH))
    setattr(cell, name, None if array is None else nn.Parameter(array))
    for call in (lambda: cell(X_TBD), lambda: cell.step(X_TBD[0], HiddenState(H_BH))):
        with pytest.raises(ThroughtimeError, match=message):
            call()


@pytest.mark.parametrize("name", cells.names())
def test_the_output_of_a_step_is_not_the_state(name):
    cell = cells.create(name, 3, 4)
    y_BH, after = cell.step(X_TBD[0], cell.initial_state(2))
    before = [leaf.clone() for leaf in leaves(after)]
    with torch.no_grad():
        y_BH += 1
    assert all(torch.equal(old, new) for old, new in zip(before, leaves(after), strict=True))


def test_rows_of_a_state_are_named_by_indices():
    state = HiddenState(H_BH)
    assert torch.equal(select_rows(state, torch.tensor([1, 0], dtype=torch.int32)).hidden_BH, H_BH.flip(0))
    for rows, message in [
        (torch.tensor([True, False]), r"got bool; of a mask use mask.nonzero\(\)\[:, 0\]"),
        (torch.tensor([0.0, 1.9]), "rows should be a vector of whole numbers, the indices of lanes, got float32"),
        ([0, 1], "rows should be a vector of whole numbers, the indices of lanes, got list"),
        (torch.tensor([2]), "rows should be from 0 to 1, got 2"),
        (torch.tensor([-1]), "rows should be from 0 to 1, got -1"),
    ]:
        for call in (lambda rows: select_rows(state, rows), lambda rows: put_rows(state, rows, state)):
            with pytest.raises(ThroughtimeError, match=message):
                call(rows)


def test_rows_are_put_one_for_one():
    with pytest.raises(ThroughtimeError, match="new should have a lane for each of the 1 rows, got 2"):
        put_rows(HiddenState(H_BH), torch.tensor([1]), HiddenState(H_BH))


@pytest.mark.parametrize("reset_B", [torch.tensor([True]), torch.tensor([1.0, 0.0]), torch.ones(3, dtype=torch.bool)])
def test_each_lane_is_reset_by_a_mark_of_its_own(reset_B):
    state = HiddenState(H_BH)
    with pytest.raises(ThroughtimeError, match=r"reset_B should be bool \[2\], got "):
        reset_rows(state, reset_B, HiddenState(torch.zeros(2, 4)))


@pytest.mark.parametrize("share", [2.0, 1.0, -0.1, float("nan"), "0.1", True, None])
@pytest.mark.parametrize("name", ["dropout", "weight_drop", "recurrent_dropout"])
def test_a_probability_is_at_least_0_and_below_1(name, share):
    with pytest.raises(SettingError, match=f"{name} must be at least 0 and below 1, got "):
        Stack([cells.create("gru", 3, 4)], **{name: share})


def test_dropout_in_training_mode_without_noise_is_said():
    said = "is in training mode and drops nothing, for it got no noise; pass noise=torch.Generator"
    stack = Stack([cells.create("gru", size, 4) for size in (3, 4)], dropout=0.5)
    with pytest.warns(UserWarning, match=f"Stack {said}"):
        stack(X_TBD)
    model = LanguageModel(Model(hidden_size=4, dropout=0.5), 7)
    with pytest.warns(UserWarning, match=f"LanguageModel {said}"):
        model.nats(IDS_TB, IDS_TB)
    stack(X_TBD, noise=torch.Generator())
    stack.eval()(X_TBD)
    with torch.no_grad():
        stack.train()(X_TBD)


def test_a_stack_is_made_of_cells():
    cell = cells.create("gru", 3, 4)
    assert len(Stack(cell).cells) == len(Stack(each for each in [cell]).cells) == 1
    for wrong in ([], [nn.GRU(3, 4)]):
        with pytest.raises(
            ThroughtimeError, match=r"a stack needs a list of at least one cell of throughtime\.cells, got"
        ):
            Stack(wrong)


@pytest.mark.parametrize("name", cells.names())
@pytest.mark.parametrize("sizes", [(3, 10**12), (10**12, 4), (3, 10**30)])
def test_sizes_that_no_memory_holds_are_one_line(name, sizes):
    with pytest.raises(
        SettingError, match=r"a parameter of shape .* takes .* GB, more than .*; choose smaller sizes"
    ) as error:
        cells.create(name, *sizes)
    assert one_line(error)


@pytest.mark.parametrize(("hidden_size", "vocabulary_size"), [(1 << 24, 1), (4, 10**13)])
def test_a_model_that_no_memory_holds_is_one_line(hidden_size, vocabulary_size):
    with pytest.raises(SettingError, match="choose smaller sizes"):
        LanguageModel(Model(hidden_size=hidden_size), vocabulary_size)


@pytest.mark.parametrize("sizes", [(3.0, 4), (3, 2.5), ("3", 4), (True, 4), (None, 4)])
def test_sizes_are_whole_numbers(sizes):
    with pytest.raises(SettingError, match="_size must be a whole number, got "):
        cells.create("gru", *sizes)
    assert cells.create("gru", np.int64(3), 4).input_size == 3


def test_a_model_is_given_whole_numbers():
    model = LanguageModel(Model(hidden_size=4), 7).eval()
    for ids_TB, message in [
        (IDS_TB + 1.9, "should be a tensor of whole numbers such as int64, got float32"),
        (IDS_TB[..., None], r"should have shape .*, got \["),
        (IDS_TB.to("meta"), META),
    ]:
        for call in (
            model,
            lambda ids: model.step(ids[0], model.initial_state(2)),
            lambda ids: model.nats(IDS_TB, ids),
        ):
            with pytest.raises(ThroughtimeError, match=message):
                call(ids_TB)
    for targets_TB in (IDS_TB[:, :1], torch.cat([IDS_TB, IDS_TB])):
        with pytest.raises(ThroughtimeError, match=r"targets_TB should have shape \[at most 5, 2\]"):
            model.nats(IDS_TB, targets_TB)


@pytest.mark.parametrize("target", [-1, 7])
def test_a_target_outside_the_vocabulary_is_refused_in_chunks_too(target, monkeypatch):
    monkeypatch.setattr(output, "LOGITS_AT_ONCE", 20)
    hidden_NH, weight_VH, bias_V = torch.randn(10, 4), torch.randn(7, 4), torch.zeros(7)
    targets_N = torch.full((10,), NO_TARGET)
    assert not output.target_nats(hidden_NH, weight_VH, bias_V, targets_N).any()
    targets_N[3] = target
    with pytest.raises(IndexError, match=f"Target {target} is out of bounds"):
        output.target_nats(hidden_NH, weight_VH, bias_V, targets_N)


@pytest.fixture
def _other_defaults():
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(kind)


@pytest.mark.usefixtures("_other_defaults")
@pytest.mark.parametrize("name", cells.names())
def test_pytorchs_defaults_change_nothing_in_a_call(name):
    cell = cells.create(name, 3, 4).to_empty(device="cpu").float()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.fill_(0.1)
    stack = Stack([cell], weight_drop=0.5 * bool(cell.recurrent))
    for lengths_B in (None, torch.tensor([5, 3], device="cpu")):
        noise = torch.Generator("cpu")
        y_TBH, after = stack(X_TBD, None, FRESH_TB, torch.ones(5, 2, device="cpu"), lengths_B, noise)
        assert {array.dtype for array in (y_TBH, *leaves(after))} == {torch.float32}
        assert {array.device.type for array in (y_TBH, *leaves(after))} == {"cpu"}
    cell.step(X_TBD[0], after[0])


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_a_cell_is_made_in_pytorchs_default_kind(kind):
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        assert {parameter.dtype for parameter in cells.create("lstm", 3, 4).parameters()} == {kind}
    finally:
        torch.set_default_dtype(before)


@every_engine
def test_autocast_takes_what_a_layer_before_gives(engine):
    cell = cells.create("gru", 3, 4, engine=engine)
    expected, _ = cell(X_TBD.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        y_TBH, after = cell(X_TBD.bfloat16())
        ran = cell.engine
        cell(X_TBD, after)
    torch.testing.assert_close(y_TBH.float(), expected, rtol=0, atol=0.05)
    assert ran == cell.engine


@pytest.mark.parametrize("name", cells.names())
@pytest.mark.parametrize("options", [{}, {"candidate": "positive"}])
def test_cells_stacks_models_and_states_are_copied_and_pickled(name, options):
    if options and "candidate" not in vars(cells.create(name, 3, 4)):
        pytest.skip("the cell has no such option")
    cell = cells.create(name, 3, 4, **options)
    y_TBH, after = cell(X_TBD)
    cell.step(X_TBD[0], after)
    file = io.BytesIO()
    torch.save(Stack([cell]), file)
    file.seek(0)
    for other in (
        pickle.loads(pickle.dumps(cell)),
        copy.deepcopy(cell),
        torch.load(file, weights_only=False),
        copy.deepcopy(Stack([cell])),
    ):
        assert torch.equal(other(X_TBD)[0], y_TBH)
        assert other.engine == cell.engine
    assert all(map(torch.equal, leaves(pickle.loads(pickle.dumps(after))), leaves(after)))
    model = LanguageModel(Model(cell=name, hidden_size=4, cell_options=options), 7)
    assert torch.equal(pickle.loads(pickle.dumps(model))(IDS_TB)[0], model(IDS_TB)[0])


@pytest.mark.parametrize("name", cells.names())
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_cell_saved_where_kernels_are_runs_where_none_are_and_back(name, precision, monkeypatch):
    cell = cells.create(name, 3, 4, precision=precision)
    at_home = cell.engine, cell.reason
    saved = pickle.dumps(cell)
    monkeypatch.setattr(choice, "_native", None)
    choice.level.cache_clear()
    try:
        elsewhere = pickle.loads(saved)
        assert elsewhere.engine in ("torch", "reference")
        assert elsewhere.reason.startswith("installed without kernels")
        twin = cells.create(name, 3, 4, engine="reference")
        twin.load_state_dict(elsewhere.state_dict())
        torch.testing.assert_close(elsewhere(X_TBD)[0], twin(X_TBD)[0])
        saved = pickle.dumps(elsewhere)
    finally:
        monkeypatch.undo()
        choice.level.cache_clear()
    back = pickle.loads(saved)
    assert (back.engine, back.reason) == at_home
    assert torch.equal(back(X_TBD)[0], cell(X_TBD)[0])


def test_help_and_print_say_what_a_reader_looks_for():
    cell = cells.create("gru", 3, 4)
    assert "time first" in pydoc.render_doc(cell)
    assert f"GRU(input_size=3, hidden_size=4, engine={cell.engine})" in str(cell)
    assert "input_size=3, hidden_size=4, layers=1, dropout=0.3" in str(Stack([cell], dropout=0.3))
    assert "vocabulary_size=7, embedding_size=4, hidden_size=4, layers=1, cell=lstm" in str(
        LanguageModel(Model(hidden_size=4), 7)
    )
