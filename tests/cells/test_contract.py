"""The contract of a cell, over every registered cell, each of its engines, and stacks of it.

A new cell enters this suite by being registered; one of another package by its name, MODULE:CLASS, in the environment
variable CELLS. Comparisons are in float64; what kernels give, in float32, is held against the same numbers in float64.
"""

from __future__ import annotations

import copy
import os
import re
from importlib import import_module
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import matrix_memory
from throughtime import cells, engine
from throughtime.cells import native
from throughtime.cells.base import Embedded
from throughtime.cells.masks import Masks, draw_mask, drop
from throughtime.cells.sequence import segments
from throughtime.cells.stack import Stack
from throughtime.cells.state import detach, from_arrays, leaves, map_state, select_rows, to_arrays
from throughtime.errors import SettingError

T = 7
OPTIONS = {
    "elman": [{}, {"activation": "relu"}],
    "lstm": [{}, {"forget_bias": 0.0}],
    "mingru": [{}, {"candidate": "positive"}],
    "minlstm": [{}, {"candidate": "positive", "forget_bias": 1.0}],
}
SIZES = [(1, 1), (7, 63), (63, 7)]
OUTSIDE = [matrix_memory.NAME, *os.environ.get("CELLS", "").split()]
for outside in OUTSIDE:
    import_module(outside.partition(":")[0])
NAMES = [*cells.names(), *OUTSIDE]


needs_kernels = pytest.mark.skipif(not engine.levels(), reason="no engine")


def engines(name):
    family = cells.family(name)
    return ["reference", *["torch"] * bool(family.fused), *["native"] * bool(family.native)]


VARIANTS = [
    pytest.param(
        name,
        options,
        engine,
        id="-".join([name, *map(str, options.values()), engine]),
        marks=needs_kernels if engine == "native" else (),
    )
    for name in NAMES
    for options in OPTIONS.get(name, [{}])
    for engine in engines(name)
]
RECURRENT = [name for name in NAMES if cells.family(name).cell.recurrent]
every_variant = pytest.mark.parametrize(("name", "options", "engine"), VARIANTS)
every_masked_variant = pytest.mark.parametrize(
    ("name", "options", "engine"), [variant for variant in VARIANTS if variant.values[0] in RECURRENT]
)
every_native_variant = pytest.mark.parametrize(
    ("name", "options", "engine"), [variant for variant in VARIANTS if variant.values[2] == "native"]
)
every_size = pytest.mark.parametrize(("input_size", "hidden_size"), SIZES)


@pytest.fixture(autouse=True)
def kernel_calls(request, monkeypatch):
    """What kernels were called with. They run in every test of theirs, and in no test of the other engines."""
    calls = []
    run = native.run
    monkeypatch.setattr(native, "run", lambda *arguments: calls.append(arguments) or run(*arguments))
    yield calls
    engine = getattr(request.node, "callspec", None) and request.node.callspec.params.get("engine")
    if engine in ("native", "torch", "reference"):
        assert bool(calls) == (engine == "native")


def build(name, options, engine, input_size, hidden_size, dtype=None):
    """The same numbers for every engine; biases too, which start at zero and would hide a missing one."""
    dtype = dtype or (torch.float32 if engine == "native" else torch.float64)
    generator = torch.Generator().manual_seed(3)
    cell = cells.create(name, input_size, hidden_size, engine=engine, generator=generator, **options).to(dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(dtype)
    return cell


def draw(cell, lanes=3, steps=T):
    dtype = dtype_of(cell)
    generator = torch.Generator().manual_seed(5)
    x_TBD = torch.randn(steps, lanes, cell.input_size, generator=generator).to(dtype).requires_grad_()
    state = map_state(
        lambda array: torch.randn(array.shape, generator=generator).to(dtype).requires_grad_(),
        cell.initial_state(lanes),
    )
    return x_TBD, state


def dtype_of(cell):
    return next(cell.parameters()).dtype


def in_float64(cell, x_TBD, state):
    """The same numbers, for the twin of a cell in float32; a cell in float64 is compared with itself."""
    if dtype_of(cell) == torch.float64:
        return cell, x_TBD, state
    exact_x, exact_state = map_state(lambda array: array.detach().double().requires_grad_(), (x_TBD, state))
    return copy.deepcopy(cell).double(), exact_x, exact_state


def loop(cell, x_TBD, state, reset_TB=None, gradient_scale_TB=None):
    """The naive twin: `step` after `step`, with resets and scaled gradients spelled out."""
    outputs = []
    for t, x_BD in enumerate(x_TBD):
        if gradient_scale_TB is not None:
            state = map_state(
                lambda array, c_B=gradient_scale_TB[t]: array.detach() + column(c_B, array) * (array - array.detach()),
                state,
            )
        if reset_TB is not None:
            state = map_state(
                lambda old, new, c_B=reset_TB[t]: torch.where(column(c_B, old), new, old),
                state,
                cell.initial_state(x_TBD.shape[1]),
            )
        y_BH, state = cell.step(x_BD, state)
        outputs.append(y_BH)
    return torch.stack(outputs), state


def column(mark_B, array):
    """A number a lane, to be multiplied with an array of any further shape."""
    return mark_B.reshape(-1, *[1] * (array.dim() - 1))


def everything(cell, x_TBD, state, outcome) -> dict[str, Tensor]:
    """Outputs, final state, and every gradient of a loss that depends on both."""
    y_TBH, after = outcome
    generator = torch.Generator().manual_seed(11)
    loss = sum((array * torch.randn(array.shape, generator=generator)).sum() for array in [y_TBH, *leaves(after)])
    inputs = {"x": x_TBD, **{f"before.{i}": leaf for i, leaf in enumerate(leaves(state))}}
    inputs |= dict(cell.named_parameters())
    gradients = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True, materialize_grads=True)
    return {"y": y_TBH, **to_arrays(after)} | {f"d {name}": g for name, g in zip(inputs, gradients, strict=True)}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float | None = None) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        float32 = torch.float32 in (array.dtype, other[name].dtype)
        allowed = (1e-5 if float32 else 1e-9) if tolerance is None else tolerance
        largest = max([1.0, *(side.abs().max().item() for side in (array, other[name]) if side.numel())])
        same = {"rtol": allowed, "atol": allowed * largest, "msg": lambda message, name=name: f"{name}: {message}"}
        torch.testing.assert_close(array.double(), other[name].double(), **same)


def marks(lanes=3, steps=T):
    reset_TB = torch.zeros(steps, lanes, dtype=torch.bool)
    reset_TB[0, 1] = reset_TB[3, 0] = reset_TB[3, 2] = reset_TB[6, 1] = True
    gradient_scale_TB = torch.ones(steps, lanes, dtype=torch.float64)
    gradient_scale_TB[0, 0], gradient_scale_TB[2], gradient_scale_TB[4, 1], gradient_scale_TB[5, 2] = (
        0.5,
        0.0,
        1.7,
        0.25,
    )
    return reset_TB, gradient_scale_TB


def masks_for(cell, which="both", lanes=3):
    noise = torch.Generator().manual_seed(7)
    weights, state_BH = (draw_mask(array, 0.4, noise) for array in (cell.recurrent_weights(), cell.zeros(lanes)))
    return Masks(None if which == "state" else weights, None if which == "weights" else state_BH)


class Loop(nn.Module):
    """The naive twin as a module, so that it can be called with another matrix."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, *arguments):
        return loop(self.cell, *arguments)


def masked_loop(cell, masks, x_TBD, state, reset_TB, gradient_scale_TB):
    """Masks by hand: each lane alone, under the matrix that it sees. A unit left out is a column of zeros."""
    weights = cell.recurrent_weights() if masks.weights is None else cell.recurrent_weights() * masks.weights
    outputs, after = [], []
    for lane in range(x_TBD.shape[1]):
        seen = weights if masks.state_BH is None else weights * masks.state_BH[lane]
        rows = [lane]
        arguments = (
            x_TBD[:, rows],
            select_rows(state, torch.tensor(rows)),
            reset_TB[:, rows],
            gradient_scale_TB[:, rows],
        )
        y_TBH, last = functional_call(Loop(cell), {f"cell.{cell.recurrent}": seen}, arguments)
        outputs.append(y_TBH)
        after.append(last)
    return torch.cat(outputs, dim=1), map_state(lambda *rows: torch.cat(rows), *after)


@every_variant
@every_size
def test_forward_is_a_loop_of_steps(name, options, engine, input_size, hidden_size):
    cell = build(name, options, engine, input_size, hidden_size)
    x_TBD, state = draw(cell)
    twin = in_float64(cell, x_TBD, state)
    assert cell.engine == engine
    assert_same(everything(cell, x_TBD, state, cell(x_TBD, state)), everything(*twin, loop(*twin)))


@every_variant
@pytest.mark.parametrize("which", ["fresh", "flow", "both"])
def test_resets_and_scaled_gradients_are_those_of_the_loop(name, options, engine, which):
    cell = build(name, options, engine, 7, 9)
    x_TBD, state = draw(cell)
    reset_TB, gradient_scale_TB = marks()
    given = {
        "reset_TB": None if which == "flow" else reset_TB,
        "gradient_scale_TB": None if which == "fresh" else gradient_scale_TB,
    }
    twin = in_float64(cell, x_TBD, state)
    assert_same(everything(cell, x_TBD, state, cell(x_TBD, state, **given)), everything(*twin, loop(*twin, **given)))


@every_variant
@pytest.mark.parametrize("cut", range(T + 1))
def test_a_split_changes_nothing(name, options, engine, cut):
    cell = build(name, options, engine, 7, 9)
    x_TBD, state = draw(cell)
    reset_TB, gradient_scale_TB = marks()
    whole = cell(x_TBD, state, reset_TB, gradient_scale_TB)
    first, between = cell(x_TBD[:cut], state, reset_TB[:cut], gradient_scale_TB[:cut])
    second, after = cell(x_TBD[cut:], between, reset_TB[cut:], gradient_scale_TB[cut:])
    assert_same(
        everything(cell, x_TBD, state, whole), everything(cell, x_TBD, state, (torch.cat([first, second]), after))
    )


@every_masked_variant
@pytest.mark.parametrize("which", ["weights", "state", "both"])
def test_masks_are_those_of_the_loop(name, options, engine, which):
    cell = build(name, options, engine, 7, 9)
    x_TBD, state = draw(cell)
    masks = masks_for(cell, which)
    exact, *given = in_float64(cell, x_TBD, state)
    assert_same(
        everything(cell, x_TBD, state, cell(x_TBD, state, *marks(), masks=masks)),
        everything(exact, *given, masked_loop(exact, masks, *given, *marks())),
    )


@every_masked_variant
@pytest.mark.parametrize("cut", range(T + 1))
def test_a_split_under_the_same_masks_changes_nothing(name, options, engine, cut):
    cell = build(name, options, engine, 7, 9)
    x_TBD, state = draw(cell)
    masks = masks_for(cell)
    whole = cell(x_TBD, state, masks=masks)
    first, between = cell(x_TBD[:cut], state, masks=masks)
    second, after = cell(x_TBD[cut:], between, masks=masks)
    assert_same(
        everything(cell, x_TBD, state, whole), everything(cell, x_TBD, state, (torch.cat([first, second]), after))
    )


@every_masked_variant
def test_a_mask_of_ones_leaves_out_nothing(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    plain = everything(cell, x_TBD, state, cell(x_TBD, state))
    for masks in (Masks(), Masks(*map(torch.ones_like, masks_for(cell)))):
        assert_same(plain, everything(cell, x_TBD, state, cell(x_TBD, state, masks=masks)))


@every_masked_variant
def test_a_weight_left_out_is_not_read_and_does_not_learn(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    masks = masks_for(cell, "weights")
    left_out = masks.weights == 0
    found = everything(cell, x_TBD, state, cell(x_TBD, state, masks=masks))
    learned = found[f"d {cell.recurrent}"]
    assert left_out.any()
    assert not learned[left_out].any()
    assert learned[~left_out].all()
    with torch.no_grad():
        cell.recurrent_weights()[left_out] = 100.0
    assert_same(found, everything(cell, x_TBD, state, cell(x_TBD, state, masks=masks)))


@every_masked_variant
def test_a_unit_left_out_reaches_no_other(name, options, engine):
    """It may reach itself, beside the product: the update gate of a GRU mixes h_(t-1) in."""
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    masks = Masks(state_BH=torch.ones(3, 6, dtype=dtype_of(cell)))
    masks.state_BH[:, 2] = 0
    others = [0, 1, 3, 4, 5]
    moved = state._replace(hidden_BH=state.hidden_BH + torch.eye(6, dtype=dtype_of(cell))[2])
    y_TBH, moved_TBH = (cell(x_TBD[:1], before, masks=masks)[0] for before in (state, moved))
    torch.testing.assert_close(y_TBH[..., others], moved_TBH[..., others], rtol=0, atol=0)
    y_TBH, _ = cell(x_TBD, state, masks=masks)
    (learned,) = torch.autograd.grad(y_TBH.sum(), [cell.recurrent_weights()])
    assert not learned[:, 2].any()
    assert learned[:, others].all()


def assert_float32_agrees(name, options, engine, masked):
    exact, fast = (build(name, options, engine, 63, 63, dtype) for dtype in (torch.float64, torch.float32))
    outcomes = []
    for cell, dtype in ((exact, torch.float64), (fast, torch.float32)):
        x_TBD, state = draw(cell)
        masks = Masks(masks_for(exact).weights.to(dtype)) if masked else None
        found = everything(cell, x_TBD, state, cell(x_TBD, state, masks=masks))
        outcomes.append({key: array.double() for key, array in found.items()})
    for key, array in outcomes[0].items():
        scale = array.abs().max().clamp(min=1)
        torch.testing.assert_close(outcomes[1][key] / scale, array / scale, rtol=0, atol=2e-5)


@every_variant
def test_float32_agrees_with_float64(name, options, engine):
    """The form that runs by default, oneDNN's for an LSTM, is a float32 one."""
    assert_float32_agrees(name, options, engine, masked=False)


@every_masked_variant
def test_float32_agrees_with_float64_under_masks(name, options, engine):
    assert_float32_agrees(name, options, engine, masked=True)


@every_variant
def test_the_forward_pass_does_not_depend_on_the_flow(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    _, gradient_scale_TB = marks()
    with_flow, _ = cell(x_TBD, state, None, gradient_scale_TB)
    without, _ = cell(x_TBD, state, None, torch.ones_like(gradient_scale_TB))
    torch.testing.assert_close(with_flow, without, rtol=1e-12, atol=1e-12)


@every_variant
def test_no_state_means_the_initial_state(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, _ = draw(cell)
    assert_same(
        everything(cell, x_TBD, (), cell(x_TBD)), everything(cell, x_TBD, (), cell(x_TBD, cell.initial_state(3)))
    )


@every_variant
def test_a_fresh_row_forgets_and_the_others_do_not(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    reset_TB = torch.zeros(T, 3, dtype=torch.bool)
    reset_TB[0, 1] = True
    reset, _ = cell(x_TBD, state, reset_TB)
    carried, _ = cell(x_TBD, state)
    begun, _ = cell(x_TBD)
    torch.testing.assert_close(reset[:, 1], begun[:, 1])
    torch.testing.assert_close(reset[:, [0, 2]], carried[:, [0, 2]])
    assert not torch.allclose(reset[:, 1], carried[:, 1])


@every_variant
def test_rows_are_independent_and_can_be_selected(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    rows = torch.tensor([2, 0, 2])
    y_TBH, after = cell(x_TBD, state)
    chosen_y, chosen_after = cell(x_TBD[:, rows], select_rows(state, rows))
    torch.testing.assert_close(chosen_y, y_TBH[:, rows])
    assert_same(to_arrays(chosen_after), to_arrays(select_rows(after, rows)))


@every_variant
def test_a_state_is_saved_and_loaded(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    _, after = cell(x_TBD, state)
    back = from_arrays(to_arrays(after), cell.initial_state(3))
    assert type(back) is type(after)
    assert_same(to_arrays(back), to_arrays(after), 0)
    with pytest.raises(ValueError, match="shape"):
        from_arrays(to_arrays(after), cell.initial_state(2))
    with pytest.raises(ValueError, match="expected"):
        from_arrays({}, cell.initial_state(3))


@every_variant
def test_a_detached_state_passes_no_gradient(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    _, between = cell(x_TBD, state)
    y_TBH, _ = cell(x_TBD, detach(between))
    assert all(g is None for g in torch.autograd.grad(y_TBH.sum(), leaves(state), allow_unused=True))


@every_variant
def test_the_state_is_not_kept(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    before = [leaf.clone() for leaf in leaves(state)]
    first, _ = cell(x_TBD, state)
    second, _ = cell(x_TBD, state)
    assert torch.equal(first, second)
    assert all(torch.equal(old, new) for old, new in zip(before, leaves(state), strict=True))


@every_variant
def test_extremes_of_length_and_batch(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    dtype = dtype_of(cell)
    y_TBH, after = cell(torch.zeros(0, 3, 5, dtype=dtype))
    assert y_TBH.shape == (0, 3, 6)
    assert_same(to_arrays(after), to_arrays(cell.initial_state(3)), 0)
    y_TBH, after = cell(torch.zeros(T, 0, 5, dtype=dtype))
    assert y_TBH.shape == (T, 0, 6)
    assert_same(to_arrays(after), to_arrays(cell.initial_state(0)), 0)
    one, _ = cell(torch.ones(1, 1, 5, dtype=dtype))
    stepped, _ = cell.step(torch.ones(1, 5, dtype=dtype), cell.initial_state(1))
    torch.testing.assert_close(one[0], stepped)


@every_variant
def test_arrays_may_lie_anywhere(name, options, engine):
    """Batch before time, every other unit, rows of a wider array: numbers count, not where they are."""
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    reset_TB, gradient_scale_TB = marks()
    dense = everything(cell, x_TBD, state, cell(x_TBD, state, reset_TB, gradient_scale_TB))
    strewn_x = x_TBD.transpose(0, 1).contiguous().transpose(0, 1)
    strewn_state = map_state(lambda array: array.repeat_interleave(2, dim=-1)[..., ::2], state)
    strewn_marks = (array.T.contiguous().T for array in (reset_TB, gradient_scale_TB))
    found = everything(cell, x_TBD, state, cell(strewn_x, strewn_state, *strewn_marks))
    assert not strewn_x.is_contiguous()
    assert_same(found, dense)


@every_variant
def test_rows_of_a_table_are_inputs(name, options, engine):
    """Some are read by several steps, one by none."""
    cell = build(name, options, engine, 5, 6)
    _, state = draw(cell)
    generator = torch.Generator().manual_seed(13)
    rows_VD = torch.randn(5, 5, generator=generator).to(dtype_of(cell)).requires_grad_()
    exact, exact_rows, exact_state = in_float64(cell, rows_VD, state)
    for dtype in (torch.int64, torch.int32):
        ids_TB = torch.randint(0, 4, (T, 3), generator=generator, dtype=dtype)
        found = everything(cell, rows_VD, state, cell(Embedded(rows_VD, ids_TB), state, *marks()))
        outcome = loop(exact, exact_rows[ids_TB.long()], exact_state, *marks())
        assert_same(found, everything(exact, exact_rows, exact_state, outcome))
    with pytest.raises(IndexError):
        cell(Embedded(rows_VD, ids_TB + 2), state)


@every_variant
def test_each_gradient_can_be_asked_for_alone(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    leaves_of = [x_TBD, *leaves(state), *cell.parameters()]
    y_TBH, _ = cell(x_TBD, state)
    together = torch.autograd.grad(y_TBH.sum(), leaves_of)
    for asked in leaves_of:
        for leaf in leaves_of:
            leaf.requires_grad_(leaf is asked)
        y_TBH, _ = cell(x_TBD, state)
        (alone,) = torch.autograd.grad(y_TBH.sum(), [asked])
        expected = next(gradient for leaf, gradient in zip(leaves_of, together, strict=True) if leaf is asked)
        assert_same({"gradient": alone}, {"gradient": expected})
    asked.requires_grad_(False)
    y_TBH, after = cell(x_TBD, state)
    assert not any(array.requires_grad for array in (y_TBH, *leaves(after)))


@every_variant
def test_gradients_of_every_output_alone(name, options, engine):
    """A loss may see the outputs, or one array of the last state, and nothing else."""
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    exact, exact_x, exact_state = in_float64(cell, x_TBD, state)
    y_TBH, after = cell(x_TBD, state)
    exact_y, exact_after = loop(exact, exact_x, exact_state)
    for seen, exactly in zip([y_TBH, *leaves(after)], [exact_y, *leaves(exact_after)], strict=True):
        found, expected = (
            torch.autograd.grad(output.square().sum(), inputs, retain_graph=True, materialize_grads=True)
            for output, inputs in (
                (seen, [x_TBD, *leaves(state), *cell.parameters()]),
                (exactly, [exact_x, *leaves(exact_state), *exact.parameters()]),
            )
        )
        assert_same(*({str(i): array for i, array in enumerate(arrays)} for arrays in (found, expected)))


@every_variant
def test_without_gradients_outputs_are_the_same(name, options, engine):
    """A kernel saves less then. Its numbers are the same to the bit; PyTorch has other kernels for it."""
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    reset_TB, gradient_scale_TB = marks()
    y_TBH, after = cell(x_TBD, state, reset_TB, gradient_scale_TB)
    with torch.no_grad():
        quiet_TBH, quiet_after = cell(x_TBD, state, reset_TB, gradient_scale_TB)
    assert not any(array.requires_grad for array in (quiet_TBH, *leaves(quiet_after)))
    assert_same(
        {"y": y_TBH, **to_arrays(after)},
        {"y": quiet_TBH, **to_arrays(quiet_after)},
        0.0 if engine == "native" else None,
    )


@every_variant
def test_the_way_back_can_be_gone_twice(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    inputs = [x_TBD, *leaves(state), *cell.parameters()]
    y_TBH, _ = cell(x_TBD, state)
    once, twice = (torch.autograd.grad(y_TBH.square().sum(), inputs, retain_graph=True) for _ in range(2))
    assert all(torch.equal(first, second) for first, second in zip(once, twice, strict=True))


@every_variant
def test_what_the_way_back_reads_may_not_be_written_over(name, options, engine):
    """An optimiser's step between the two passes, say."""
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    for read in [x_TBD, *(parameter for parameter in cell.parameters() if parameter.dim() == 2)]:
        y_TBH, _ = cell(x_TBD, state)
        with torch.no_grad():
            read += 1
        with pytest.raises(RuntimeError, match=r"modified (by an )?inplace"):
            y_TBH.sum().backward()


@every_native_variant
def test_a_kernel_has_no_second_derivative_and_says_so(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    y_TBH, _ = cell(x_TBD, state)
    with pytest.raises(RuntimeError, match=r"no second derivative \(create_graph\); use engine torch or reference"):
        torch.autograd.grad(y_TBH.square().sum(), [x_TBD], create_graph=True)


@every_native_variant
def test_what_kernels_do_not_take_runs_without_them(name, options, engine, kernel_calls):
    """float64, and another device: on PyTorch's fused form where there is one, else on the step."""
    cell = build(name, options, engine, 5, 6)
    cell(draw(cell)[0])
    before = len(kernel_calls)
    cell = cell.double()
    other = copy.deepcopy(cell)
    other._form = None
    x_TBD, state = draw(cell)
    assert_same(
        everything(cell, x_TBD, state, cell(x_TBD, state, *marks())),
        everything(other, x_TBD, state, other(x_TBD, state, *marks())),
        0,
    )
    elsewhere = cell.float().to("meta")
    y_TBH, after = elsewhere(torch.empty(T, 3, 5, device="meta"))
    assert y_TBH.shape == (T, 3, 6)
    assert {array.device.type for array in (y_TBH, *leaves(after))} == {"meta"}
    assert len(kernel_calls) == before


@every_native_variant
def test_bf16_is_near_and_not_the_same(name, options, engine):
    """What exactly it rounds: tests/engine/test_kernels.py."""
    cell = build(name, options, engine, 63, 64)
    x_TBD, state = draw(cell)
    exactly = everything(cell, x_TBD, state, cell(x_TBD, state, *marks()))
    cell.precision = "bf16"
    found = everything(cell, x_TBD, state, cell(x_TBD, state, *marks()))
    for key, array in found.items():
        error = (array - exactly[key]).norm() / exactly[key].norm()
        assert 0 < error < 0.1, f"{key}: {error:.1e}"


@every_variant
def test_wrong_shapes_are_named(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    with pytest.raises(ValueError, match=r"x_TBD should have shape \[T, B, 5\], got \[7, 3, 4\]"):
        cell(x_TBD[..., :4], state)
    with pytest.raises(ValueError, match=r"reset_TB should have shape \[7, 3\], got \[7, 2\]"):
        cell(x_TBD, state, torch.zeros(7, 2, dtype=torch.bool))
    row = list(leaves(state)[0].shape[1:])
    with pytest.raises(ValueError, match=re.escape(f"a state should have shape {[2, *row]}, got {[3, *row]}")):
        cell(x_TBD[:, :2], state)
    with pytest.raises(ValueError, match=r"rows_VD should have shape \[V, 5\], got \[3, 4\]"):
        cell(Embedded(x_TBD[0, :, :4], torch.zeros(T, 3, dtype=torch.long)), state)
    cell(x_TBD, state)


@every_masked_variant
def test_masks_of_the_wrong_shape_are_named(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    weights, state_BH = masks_for(cell)
    with pytest.raises(ValueError, match=r"masks.weights should have shape \[\d+, 6\], got \[\d+, 5\]"):
        cell(x_TBD, state, masks=Masks(weights[:, 1:]))
    with pytest.raises(ValueError, match=r"masks.state_BH should have shape \[3, 6\], got \[2, 6\]"):
        cell(x_TBD, state, masks=Masks(None, state_BH[1:]))
    cell(x_TBD, state, masks=Masks(weights, state_BH))


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(RECURRENT)))
def test_a_cell_without_a_product_refuses_masks(name):
    cell = cells.create(name, 5, 6)
    with pytest.raises(SettingError, match="has no product with its state"):
        cell(torch.zeros(T, 3, 5), masks=Masks())
    for setting in ("weight_drop", "recurrent_dropout"):
        with pytest.raises(SettingError, match=f"{setting}.* must be 0 for it"):
            Stack([cell], **{setting: 0.1})


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_cell(name):
    first, second, third = (cells.create(name, 5, 6, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    pairs = zip(first.parameters(), second.parameters(), third.parameters(), strict=True)
    alike = [(torch.equal(a, b), torch.equal(a, c)) for a, b, c in pairs]
    assert all(same for same, _ in alike)
    assert not all(same for _, same in alike)


@pytest.mark.parametrize(
    ("name", "engine"),
    [(name, engine) for name in NAMES for engine in ("auto", "reference")]
    + [pytest.param(name, "native", marks=needs_kernels) for name in NAMES if cells.family(name).native],
)
def test_a_stack_is_its_layers_one_above_the_other(name, engine):
    stack = Stack([build(name, {}, engine, size, 6) for size in (5, 6, 6)])
    x_TBD, state = draw(stack)
    reset_TB, gradient_scale_TB = marks()
    exact, y_TBH, exact_state = twin = in_float64(stack, x_TBD, state)
    after = []
    for layer, layer_state in zip(exact.cells, exact_state, strict=True):
        y_TBH, layer_after = loop(layer, y_TBH, layer_state, reset_TB, gradient_scale_TB)
        after.append(layer_after)
    assert_same(
        everything(stack, x_TBD, state, stack(x_TBD, state, reset_TB, gradient_scale_TB)),
        everything(*twin, (y_TBH, tuple(after))),
    )
    outputs, stepped = [], state
    for x_BD in x_TBD:
        y_BH, stepped = stack.step(x_BD, stepped)
        outputs.append(y_BH)
    whole, whole_after = stack(x_TBD, state)
    torch.testing.assert_close(torch.stack(outputs), whole)
    assert_same(to_arrays(stepped), to_arrays(whole_after))


@pytest.mark.parametrize("name", NAMES)
def test_dropout_falls_between_layers_and_only_with_noise(name):
    generator = torch.Generator().manual_seed(3)
    stack = Stack([cells.create(name, size, 64, generator=generator) for size in (5, 64)], dropout=0.5).eval()
    x_TBD = torch.randn(T, 3, 5, generator=generator)
    still, still_again = (stack(x_TBD)[0] for _ in range(2))
    assert torch.equal(still, still_again)
    one, same, other = (stack(x_TBD, noise=torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    alone = Stack([stack.cells[0]], dropout=0.5)
    assert torch.equal(alone(x_TBD)[0], alone(x_TBD, noise=torch.Generator().manual_seed(1))[0])


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize(("weight_drop", "recurrent_dropout"), [(0.4, 0.0), (0.0, 0.4), (0.4, 0.2)])
def test_a_stack_draws_masks_once_a_window_layer_by_layer(name, weight_drop, recurrent_dropout):
    layers = [cells.create(name, size, 6).double() for size in (5, 6)]
    stack = Stack(layers, 0.3, weight_drop, recurrent_dropout).eval()
    x_TBD, state = draw(stack)
    noise = torch.Generator().manual_seed(1)
    y_TBH = x_TBD
    for level, (layer, layer_state) in enumerate(zip(layers, state, strict=True)):
        if level:
            y_TBH = drop(y_TBH, 0.3, noise)
        weights = draw_mask(layer.recurrent_weights(), weight_drop, noise)
        state_BH = draw_mask(layer.zeros(3), recurrent_dropout, noise)
        y_TBH, _ = layer(y_TBH, layer_state, masks=Masks(weights, state_BH))
    noise = torch.Generator().manual_seed(1)
    masked, again = (stack(x_TBD, state, noise=noise)[0] for _ in range(2))
    torch.testing.assert_close(masked, y_TBH, rtol=0, atol=0)
    assert not torch.equal(masked, again), "each window has masks of its own"
    torch.testing.assert_close(stack(x_TBD, state)[0], Stack(layers)(x_TBD, state)[0], rtol=0, atol=0)


def test_a_stack_says_what_runs_its_training():
    layers = [cells.create("lstm", 5, 6, engine="torch")]
    assert Stack(layers, weight_drop=0.1).engine == "torch"
    assert Stack(layers, recurrent_dropout=0.1).engine == "reference"


def test_layers_must_fit():
    with pytest.raises(ValueError, match="input 5 cannot stand on 6"):
        Stack([cells.create("gru", 5, 6), cells.create("gru", 5, 6)])


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_says_its_equations(name):
    cell = cells.family(name).cell
    assert "h_t" in cell.equations
    body = {line.split("phi =")[0].strip() for line in cell.equations.splitlines()}
    documented = " ".join((cell.__doc__ or "").split())
    assert all(" ".join(line.split()) in documented for line in body)


def test_the_lstm_begins_remembering():
    cell = cells.create("lstm", 5, 6)
    assert torch.equal(cell.b[6:12], torch.ones(6))
    assert not cell.b[:6].any()
    assert not cell.b[12:].any()


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_matrices_start_orthogonal(name):
    for block in cells.create(name, 5, 16).recurrent_weights().split(16):
        torch.testing.assert_close(block @ block.T, torch.eye(16), rtol=0, atol=1e-5)


def test_segments_cover_the_window_once():
    reset_TB, gradient_scale_TB = marks()
    pieces = list(segments(T, reset_TB, gradient_scale_TB))
    assert pieces == [(0, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]
    assert all(a[1] == b[0] for a, b in pairwise(pieces))
    assert list(segments(T, None, None)) == [(0, T)]
