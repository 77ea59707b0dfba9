"""A call that PyTorch records or transforms gives what an ordinary call gives, whatever the engine.

Each transformed function is compared with the cell's own step on other numbers than those it was recorded with.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from throughtime import cells
from throughtime.cells import transforms
from throughtime.cells.base import Embedded
from throughtime.models import output
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model

NAMES = ["gru", "lstm", "mingru"]
ENGINES = ["auto", "torch", "reference"]
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")


def pair(name, engine):
    """A cell, and its twin that runs step by step."""
    if engine == "torch" and cells.family(name).fused is None:
        pytest.skip("PyTorch has no such form")
    torch.manual_seed(1)
    cell, twin = cells.create(name, 3, 4, engine=engine), cells.create(name, 3, 4, engine="reference")
    twin.load_state_dict(cell.state_dict())
    return cell, twin


every_engine = pytest.mark.parametrize("engine", ENGINES)
every_name = pytest.mark.parametrize("name", NAMES)
X_TBD, OTHER_TBD = (torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))


def marks(*places):
    reset_TB, gradient_scale_TB = torch.zeros(5, 2, dtype=torch.bool), torch.ones(5, 2)
    for step, lane in places:
        reset_TB[step, lane], gradient_scale_TB[step, 1 - lane] = True, 0.5
    return reset_TB, gradient_scale_TB


MARKS, OTHER_MARKS = marks((2, 0), (3, 1)), marks((0, 1), (1, 0))


class Outputs(nn.Module):
    """A cell as a function of arrays."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x_TBD, reset_TB=None, gradient_scale_TB=None, lengths_B=None):
        return self.cell(x_TBD, None, reset_TB, gradient_scale_TB, lengths_B)[0]


def exported(module, arguments, strict):
    return torch.export.export(module, arguments, strict=strict).module()


def compiled(module, arguments, backend="eager"):  # noqa: ARG001
    torch._dynamo.reset()
    return torch.compile(module, fullgraph=True, backend=backend)


RECORDERS = {
    "trace": torch.jit.trace,
    "make_fx": lambda module, arguments: make_fx(lambda *given: module(*given))(*arguments),
    "export": lambda module, arguments: exported(module, arguments, False),
    "strict export": lambda module, arguments: exported(module, arguments, True),
    "compile": compiled,
    "compiled gradient": lambda module, arguments: compiled(module, arguments, "aot_eager"),
}
QUICK = ["trace", "make_fx"]
CASES = [
    *((name, engine, recorder) for name in NAMES for engine in ENGINES for recorder in QUICK),
    *(("gru", engine, recorder) for engine in ENGINES for recorder in ("export", "compile")),
    ("lstm", "torch", "strict export"),
    ("lstm", "torch", "compiled gradient"),
]


@pytest.mark.parametrize(("name", "engine", "recorder"), CASES)
def test_a_recorded_call_is_computed_anew_for_other_inputs(name, engine, recorder):
    cell, twin = pair(name, engine)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            recorded = RECORDERS[recorder](Outputs(cell), (X_TBD,))
            torch.testing.assert_close(recorded(OTHER_TBD), Outputs(twin)(OTHER_TBD))


@pytest.mark.parametrize(("name", "engine", "recorder"), CASES)
def test_a_recorded_call_reads_other_marks(name, engine, recorder):
    cell, twin = pair(name, engine)
    recorded = RECORDERS[recorder](Outputs(cell), (X_TBD, *MARKS))
    torch.testing.assert_close(recorded(OTHER_TBD, *OTHER_MARKS), Outputs(twin)(OTHER_TBD, *OTHER_MARKS))


@pytest.mark.parametrize(("name", "engine", "recorder"), [case for case in CASES if "lstm" not in case])
def test_a_recorded_call_reads_other_lengths(name, engine, recorder):
    cell, twin = pair(name, engine)
    recorded = RECORDERS[recorder](Outputs(cell), (X_TBD, *MARKS, torch.tensor([2, 5])))
    found = recorded(OTHER_TBD, *OTHER_MARKS, torch.tensor([4, 0]))
    torch.testing.assert_close(found, Outputs(twin)(OTHER_TBD, *OTHER_MARKS, torch.tensor([4, 0])))


@every_name
@every_engine
def test_lengths_are_kept_under_transforms_of_functions(name, engine):
    cell, twin = pair(name, engine)
    lengths_B = torch.tensor([3, 0])
    poison_TBD = torch.where(torch.arange(5)[:, None, None] < lengths_B[:, None], OTHER_TBD, torch.nan)

    def loss(x_TBD, module, given):
        y_TBH, after = module(x_TBD, lengths_B=given)
        return y_TBH.square().sum() + sum(array.sum() for array in after)

    expected = torch.func.grad(loss)(OTHER_TBD, twin, lengths_B)
    torch.testing.assert_close(torch.func.grad(loss)(poison_TBD, cell, lengths_B), expected)
    batch = torch.func.vmap(lambda x_TBD, given: loss(x_TBD, cell, given))
    several = torch.stack([lengths_B, torch.tensor([5, 1])])
    each = torch.stack([loss(OTHER_TBD, twin, given) for given in several])
    torch.testing.assert_close(batch(torch.stack([poison_TBD, OTHER_TBD]), several), each)
    _, tangent = torch.func.jvp(lambda x_TBD: loss(x_TBD, cell, lengths_B), (poison_TBD,), (torch.ones_like(X_TBD),))
    torch.testing.assert_close(tangent, expected.sum())


@every_engine
def test_a_trace_of_another_length_is_right_or_refused(engine):
    cell, twin = pair("gru", engine)
    longer = torch.randn(7, 2, 3)
    plain = torch.jit.trace(Outputs(cell), (X_TBD,))
    if engine != "reference":
        torch.testing.assert_close(plain(longer), Outputs(twin)(longer))
    marked = torch.jit.trace(Outputs(cell), (X_TBD, *MARKS))
    with pytest.raises(RuntimeError):
        marked(longer, torch.zeros(7, 2, dtype=torch.bool), torch.ones(7, 2))


@every_name
@every_engine
def test_a_recorded_step_is_computed_anew(name, engine):
    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = cell

        def forward(self, x_BD, before_BH):
            return self.cell.step(x_BD, type(state)(*[before_BH] * len(state)))

    cell, twin = pair(name, engine)
    state = cell.initial_state(2)
    before_BH = torch.full((2, 4), 0.5)
    expected, _ = twin.step(OTHER_TBD[0], type(state)(*[before_BH] * len(state)))
    for recorder in ("trace", "make_fx", "compile") if name == "gru" else ("trace", "make_fx"):
        y_BH, after = RECORDERS[recorder](Step(), (X_TBD[0], state[0]))(OTHER_TBD[0], before_BH)
        torch.testing.assert_close(y_BH, expected)
        assert y_BH.data_ptr() != after[0].data_ptr()


@every_name
@every_engine
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("given", [(), MARKS], ids=["plain", "marks"])
def test_forward_mode_keeps_the_tangent(name, engine, frozen, given):
    cell, twin = pair(name, engine)
    cell.requires_grad_(not frozen)
    x_TBD = X_TBD.clone().requires_grad_()
    weights = torch.randn(5, 2, 4)
    (gradient,) = torch.autograd.grad((Outputs(twin)(x_TBD, *given) * weights).sum(), x_TBD)
    with forward_ad.dual_level():
        y_TBH = Outputs(cell)(forward_ad.make_dual(X_TBD, OTHER_TBD), *given)
        tangent = forward_ad.unpack_dual(y_TBH).tangent
    assert tangent is not None
    torch.testing.assert_close((tangent * weights).sum(), (gradient * OTHER_TBD).sum())
    _, tangent = torch.func.jvp(lambda x_TBD: Outputs(cell)(x_TBD, *given), (X_TBD,), (OTHER_TBD,))
    torch.testing.assert_close((tangent * weights).sum(), (gradient * OTHER_TBD).sum())


@every_name
@every_engine
def test_forward_mode_sees_parameters_and_state(name, engine):
    cell, twin = pair(name, engine)
    cell.requires_grad_(False)
    state = cell.initial_state(2)
    tangents = []
    for module in (cell, twin):
        values = {key: array.detach() for key, array in module.named_parameters()}
        with forward_ad.dual_level():
            dual = {key: forward_ad.make_dual(array, torch.ones_like(array)) for key, array in values.items()}
            y_TBH, _ = functional_call(module, dual, (X_TBD,))
            before = type(state)(*(forward_ad.make_dual(array, torch.ones_like(array)) for array in state))
            z_TBH, _ = module(X_TBD, before)
            tangents.append([forward_ad.unpack_dual(array).tangent for array in (y_TBH, z_TBH)])
    torch.testing.assert_close(tangents[0], tangents[1])


@every_name
@every_engine
def test_transforms_of_functions_give_what_loops_give(name, engine):
    cell, twin = pair(name, engine)
    both = torch.stack([X_TBD, OTHER_TBD])
    fresh, flow = (torch.stack(arrays) for arrays in zip(MARKS, OTHER_MARKS, strict=True))
    expected = torch.stack([Outputs(twin)(X_TBD, *MARKS), Outputs(twin)(OTHER_TBD, *OTHER_MARKS)])
    torch.testing.assert_close(torch.func.vmap(Outputs(cell))(both, fresh, flow), expected)
    torch.testing.assert_close(torch.func.functionalize(Outputs(cell))(X_TBD), Outputs(twin)(X_TBD))
    gradient = torch.func.grad(lambda x_TBD: Outputs(cell)(x_TBD).square().sum())(X_TBD)
    x_TBD = X_TBD.clone().requires_grad_()
    (exact,) = torch.autograd.grad(Outputs(twin)(x_TBD).square().sum(), x_TBD)
    torch.testing.assert_close(gradient, exact)


def test_a_batch_of_gradients_through_a_kernel_is_refused():
    cell = cells.create("gru", 3, 4)
    if cell.engine != "native":
        pytest.skip("no kernels")
    with pytest.raises(RuntimeError, match=r"gradient cannot be batched \(vmap, is_grads_batched\); use engine"):
        torch.autograd.functional.jacobian(lambda x_TBD: cell(x_TBD)[0], X_TBD, vectorize=True)


def test_the_engine_is_the_one_that_runs():
    cell = cells.create("gru", 3, 4)
    at_first = cell.engine
    with forward_ad.dual_level():
        assert cell.engine == "reference"
        assert "forward-mode differentiation" in cell.reason
    cell.double()
    assert cell.engine == "torch"
    if at_first == "native":
        assert cell.reason == "kernels take float32, the parameters are float64"
    assert cell.float().engine == at_first
    stack = cells.Stack([cell, cells.create("gru", 4, 4, engine="reference")])
    assert stack.engine == f"{at_first}, reference"
    assert transforms.active() is None


@pytest.mark.parametrize(
    ("settings", "recorders"), [({}, ["trace"]), ({"layers": 2, "cell": "gru"}, ["trace", "export", "compile"])]
)
@pytest.mark.parametrize("gradients", [True, False])
def test_a_recorded_model_is_computed_anew(settings, recorders, gradients):
    model = LanguageModel(Model(hidden_size=4, **settings), 7, torch.Generator().manual_seed(1)).eval()
    ids_TB, other_TB = torch.randint(7, (5, 2)), torch.randint(7, (5, 2))
    with torch.set_grad_enabled(gradients):
        expected, _ = model(other_TB)
        for recorder in recorders:
            logits_TBV, _ = RECORDERS[recorder](model, (ids_TB,))(other_TB)
            torch.testing.assert_close(logits_TBV, expected)


def test_nats_in_chunks_keep_the_tangent(monkeypatch):
    model = LanguageModel(Model(hidden_size=4), 7).requires_grad_(False)
    ids_TB = torch.randint(7, (5, 2))
    hidden_NH, targets_N = torch.randn(10, 4), ids_TB.flatten()

    def tangent():
        with forward_ad.dual_level(), torch.no_grad():
            dual = forward_ad.make_dual(hidden_NH, torch.ones_like(hidden_NH))
            nats_N = output.target_nats(dual, model.W_o, model.b_o, targets_N)
            return forward_ad.unpack_dual(nats_N).tangent

    whole = tangent()
    monkeypatch.setattr(output, "LOGITS_AT_ONCE", 20)
    torch.testing.assert_close(tangent(), whole)


@every_name
def test_memory_that_does_not_hold_the_numbers_is_not_read(name):
    """Lazily negated arrays, subclasses, functional tensors."""

    class Sub(torch.Tensor):
        pass

    cell, twin = pair(name, "auto")
    expected = Outputs(twin)(-X_TBD)
    torch.testing.assert_close(Outputs(cell)(torch._neg_view(X_TBD)), expected)
    torch.testing.assert_close(Outputs(cell)((-X_TBD).as_subclass(Sub)).as_subclass(torch.Tensor), expected)
    torch._enable_functionalization(reapply_views=True)
    try:
        y_TBH = Outputs(cell)(torch._to_functional_tensor(-X_TBD))
        torch._sync(y_TBH)
        torch.testing.assert_close(torch._from_functional_tensor(y_TBH), expected)
    finally:
        torch._disable_functionalization()


@every_name
def test_a_hook_may_give_saved_arrays_another_order(name):
    cell, _ = pair(name, "auto")
    if name == "lstm" and cell.engine == "torch":
        pytest.skip("PyTorch's own LSTM takes the order for granted, and gives a wrong gradient")
    x_TBD = X_TBD.clone().requires_grad_()

    def gradient():
        return torch.autograd.grad(cell(x_TBD)[0].square().sum(), x_TBD)

    def strewn(array):
        return array.t().contiguous().t() if array.dim() == 2 else array

    expected = gradient()
    with torch.autograd.graph.saved_tensors_hooks(lambda array: array, strewn):
        y_TBH, _ = cell(x_TBD)
    torch.testing.assert_close(torch.autograd.grad(y_TBH.square().sum(), x_TBD), expected)


@every_engine
def test_a_gradient_of_the_masks_is_given(engine):
    cell, twin = pair("gru", engine)
    weights = torch.ones(12, 4, requires_grad=True)
    found, exact = (
        torch.autograd.grad(module(X_TBD, masks=cells.Masks(weights))[0].sum(), weights) for module in (cell, twin)
    )
    torch.testing.assert_close(found, exact)


def test_a_replica_of_data_parallel_runs():
    """Its parameters are plain attributes."""
    cell, twin = pair("gru", "auto")
    replica = cell._replicate_for_data_parallel()
    for name, parameter in cell.named_parameters():
        setattr(replica, name, parameter.clone())
    torch.testing.assert_close(Outputs(replica)(X_TBD), Outputs(twin)(X_TBD))


def test_parametrized_weights_are_those_that_run():
    cell, twin = pair("lstm", "auto")
    for module in (cell, twin):
        nn.utils.parametrize.register_parametrization(module, "U", Doubled())
        nn.utils.parametrize.register_parametrization(module, "W", Doubled())
    torch.testing.assert_close(Outputs(cell)(X_TBD), Outputs(twin)(X_TBD))
    torch.testing.assert_close(cell(X_TBD[:1])[0][0], cell.step(X_TBD[0], cell.initial_state(2))[0])
    plain, _ = cells.create("lstm", 3, 4)(X_TBD)
    assert not torch.allclose(plain, Outputs(cell)(X_TBD))


class Doubled(nn.Module):
    def forward(self, array):
        return 2 * array


def test_rows_of_a_table_are_traced():
    cell, twin = pair("gru", "auto")
    rows_VD = torch.randn(7, 3)

    class Rows(nn.Module):
        def __init__(self, cell):
            super().__init__()
            self.cell = cell

        def forward(self, rows_VD, ids_TB):
            return self.cell(Embedded(rows_VD, ids_TB))[0]

    ids_TB, other_TB = torch.randint(7, (5, 2)), torch.randint(7, (5, 2))
    traced = torch.jit.trace(Rows(cell), (rows_VD, ids_TB))
    torch.testing.assert_close(traced(2 * rows_VD, other_TB), Rows(twin)(2 * rows_VD, other_TB))
