"""Lanes of unequal length, over every registered cell and each of its engines.

Each lane gives what it gives alone, cut to its length; the padding is never read. The helpers come from the contract
suite.
"""

from __future__ import annotations

import pytest
import torch

from cells.test_contract import (
    T,
    assert_same,
    build,
    draw,
    dtype_of,
    every_masked_variant,
    every_native_variant,
    every_variant,
    in_float64,
    kernel_calls,  # noqa: F401  # a fixture of every test
    loop,
    marks,
    masked_loop,
    masks_for,
)
from throughtime import cells
from throughtime.cells.base import Cell, Embedded
from throughtime.cells.lengths import Lengths
from throughtime.cells.masks import Masks
from throughtime.cells.stack import Stack
from throughtime.cells.state import HiddenState, leaves, map_state, select_rows, to_arrays
from throughtime.errors import ThroughtimeError

LENGTHS_B = torch.tensor([3, T, 0, 5, 1])
LANES = len(LENGTHS_B)
PADDING_TB = torch.arange(T)[:, None] >= LENGTHS_B


def alone(run, x_TBD, state, lengths_B, *by_step):
    """Each lane by a run of its own, over its own steps."""
    outputs, after = [], []
    for lane, length in enumerate(lengths_B.tolist()):
        before, given = select_rows(state, torch.tensor([lane])), [array[:length, [lane]] for array in by_step]
        y_TBH, last = run(lane, x_TBD[:length, [lane]], before, *given) if length else (None, before)
        padding = torch.zeros(len(x_TBD) - length, 1, y_TBH.shape[2] if length else 0).to(x_TBD)
        outputs.append(torch.cat([y_TBH, padding]) if length else None)
        after.append(last)
    zeros = torch.zeros_like(next(y_TBH for y_TBH in outputs if y_TBH is not None))
    outputs = [zeros if y_TBH is None else y_TBH for y_TBH in outputs]
    return torch.cat(outputs, dim=1), map_state(lambda *rows: torch.cat(rows), *after)


def alone_by_steps(cell, x_TBD, state, lengths_B, *by_step):
    return alone(lambda _, *given: loop(cell, *given), x_TBD, state, lengths_B, *by_step)


def poisoned(array, value=torch.nan):
    """The padding filled with a value; gradients reach what was there before."""
    mask = PADDING_TB.view(*PADDING_TB.shape, *[1] * (array.dim() - 2))
    return torch.where(mask, value, array)


def outcome(cell, inputs, results, poison=False):
    """Outputs, states and the gradients of both; those of the outputs are NaN in the padding, if it is poisoned."""
    y_TBH, after = results
    generator = torch.Generator().manual_seed(11)
    arrays = [y_TBH, *leaves(after)]
    upstream = [torch.randn(array.shape, generator=generator).to(array.dtype) for array in arrays]
    if poison:
        upstream[0] = poisoned(upstream[0])
    names = [f"d {index}" for index in range(len(inputs))] + [f"d {name}" for name, _ in cell.named_parameters()]
    gradients = torch.autograd.grad(
        arrays, [*inputs, *cell.parameters()], upstream, allow_unused=True, materialize_grads=True
    )
    return {"y": y_TBH, **to_arrays(after)} | dict(zip(names, gradients, strict=True))


@every_variant
@pytest.mark.parametrize(("input_size", "hidden_size"), [(7, 63), (63, 7)])
def test_each_lane_is_what_it_is_alone(name, options, engine, input_size, hidden_size):
    cell = build(name, options, engine, input_size, hidden_size)
    x_TBD, state = draw(cell, LANES)
    exact, exact_x, exact_state = in_float64(cell, x_TBD, state)
    found = cell(poisoned(x_TBD), state, lengths_B=LENGTHS_B)
    assert cell.engine == engine
    assert not found[0][PADDING_TB].any()
    assert_same(
        outcome(cell, [x_TBD, *state], found, poison=True),
        outcome(exact, [exact_x, *exact_state], alone_by_steps(exact, exact_x, exact_state, LENGTHS_B)),
    )


@every_variant
def test_marks_of_the_padding_are_not_read(name, options, engine):
    cell = build(name, options, engine, 7, 9)
    x_TBD, state = draw(cell, LANES)
    reset_TB, gradient_scale_TB = marks(LANES)
    exact, exact_x, exact_state = in_float64(cell, x_TBD, state)
    found = cell(poisoned(x_TBD), state, reset_TB | PADDING_TB, poisoned(gradient_scale_TB), LENGTHS_B)
    twin = alone_by_steps(exact, exact_x, exact_state, LENGTHS_B, reset_TB, gradient_scale_TB)
    assert_same(outcome(cell, [x_TBD, *state], found, poison=True), outcome(exact, [exact_x, *exact_state], twin))


@every_masked_variant
def test_masks_are_those_of_the_lanes(name, options, engine):
    cell = build(name, options, engine, 7, 9)
    x_TBD, state = draw(cell, LANES)
    masks = masks_for(cell, lanes=LANES)
    exact, exact_x, exact_state = in_float64(cell, x_TBD, state)

    def masked(lane, *given):
        own = Masks(masks.weights, masks.state_BH[[lane]])
        return masked_loop(exact, own, *given)

    found = cell(poisoned(x_TBD), state, *marks(LANES), LENGTHS_B, masks)
    assert_same(
        outcome(cell, [x_TBD, *state], found),
        outcome(exact, [exact_x, *exact_state], alone(masked, exact_x, exact_state, LENGTHS_B, *marks(LANES))),
    )


@every_variant
@pytest.mark.parametrize("cut", [0, 1, 3, 4, T])
def test_a_split_with_lengths_clipped_to_each_window_changes_nothing(name, options, engine, cut):
    cell = build(name, options, engine, 7, 9)
    x_TBD, state = draw(cell, LANES)
    reset_TB, gradient_scale_TB = marks(LANES)
    whole = cell(x_TBD, state, reset_TB, gradient_scale_TB, LENGTHS_B)
    first, between = cell(x_TBD[:cut], state, reset_TB[:cut], gradient_scale_TB[:cut], LENGTHS_B.clamp(max=cut))
    second, after = cell(x_TBD[cut:], between, reset_TB[cut:], gradient_scale_TB[cut:], (LENGTHS_B - cut).clamp(min=0))
    assert_same(
        outcome(cell, [x_TBD, *state], whole), outcome(cell, [x_TBD, *state], (torch.cat([first, second]), after))
    )


@every_variant
def test_ids_of_the_padding_may_name_no_row(name, options, engine):
    cell = build(name, options, engine, 7, 9)
    _, state = draw(cell, LANES)
    generator = torch.Generator().manual_seed(4)
    rows_VD = torch.randn(6, 7, generator=generator).to(dtype_of(cell)).requires_grad_()
    ids_TB = torch.randint(6, (T, LANES), generator=generator)
    exact, exact_rows, exact_state = in_float64(cell, rows_VD, state)
    found = cell(Embedded(rows_VD, poisoned(ids_TB, -(1 << 40))), state, lengths_B=LENGTHS_B)
    twin = alone_by_steps(exact, exact_rows[ids_TB], exact_state, LENGTHS_B)
    assert_same(outcome(cell, [rows_VD, *state], found, poison=True), outcome(exact, [exact_rows, *exact_state], twin))


@every_variant
def test_full_lengths_are_the_same_as_none(name, options, engine):
    cell = build(name, options, engine, 5, 6)
    x_TBD, state = draw(cell)
    plain = outcome(cell, [x_TBD, *state], cell(x_TBD, state))
    given = outcome(cell, [x_TBD, *state], cell(x_TBD, state, lengths_B=torch.full((3,), T)))
    assert all(torch.equal(array, given[key]) for key, array in plain.items())


@pytest.mark.parametrize("name", cells.names())
@pytest.mark.parametrize("kind", ["auto", "reference"])
def test_lanes_without_a_step_keep_their_state(name, kind):
    cell = build(name, {}, kind, 5, 6, torch.float32)
    x_TBD, state = draw(cell)
    for x, steps in ((x_TBD, T), (x_TBD[:0], 0)):
        y_TBH, after = cell(x, state, lengths_B=torch.zeros(3, dtype=torch.int64))
        assert y_TBH.shape == (steps, 3, 6)
        assert not y_TBH.any()
        assert all(torch.equal(one, other) for one, other in zip(after, state, strict=True))


@every_native_variant
def test_bf16_is_near_and_not_the_same_in_unequal_lanes(name, options, engine):
    cell = build(name, options, engine, 63, 64)
    x_TBD, state = draw(cell, LANES)
    exactly = outcome(cell, [x_TBD, *state], cell(x_TBD, state, *marks(LANES), LENGTHS_B))
    cell.precision = "bf16"
    found = outcome(cell, [x_TBD, *state], cell(poisoned(x_TBD), state, *marks(LANES), LENGTHS_B), poison=True)
    for key, array in found.items():
        error = (array - exactly[key]).norm() / exactly[key].norm()
        assert 0 < error < 0.1, f"{key}: {error:.1e}"


@pytest.mark.parametrize("name", cells.names())
@pytest.mark.parametrize("kind", ["auto", "reference"])
def test_a_stack_hands_the_lengths_to_every_layer(name, kind, monkeypatch):
    stack = Stack([build(name, {}, kind, size, 6, torch.float32) for size in (5, 6, 6)])
    x_TBD, state = draw(stack, LANES)
    y_TBH, after = x_TBD, []
    for layer, layer_state in zip(stack.cells, state, strict=True):
        y_TBH, last = layer(y_TBH, layer_state, lengths_B=LENGTHS_B)
        after.append(last)
    inputs, made = [x_TBD, *leaves(state)], []
    begin = Lengths.__init__
    monkeypatch.setattr(Lengths, "__init__", lambda *given: made.append(given) or begin(*given))
    found = stack(poisoned(x_TBD), state, lengths_B=LENGTHS_B)
    assert len(made) == 1, "the lanes are sorted once for all layers"
    assert_same(outcome(stack, inputs, found, poison=True), outcome(stack, inputs, (y_TBH, tuple(after))))


class Counter(Cell):
    """Counts the rows that its steps read."""

    rows = 0

    def initial_state(self, batch_size):
        return HiddenState(torch.zeros(batch_size, self.hidden_size))

    def step(self, x_BD, state):
        self.rows += len(x_BD)
        return state.hidden_BH + x_BD, HiddenState(state.hidden_BH + x_BD)


def test_steps_read_the_rows_that_there_are():
    cell = Counter(2, 2)
    cell(torch.ones(T, LANES, 2), lengths_B=LENGTHS_B)
    assert cell.rows == LENGTHS_B.sum()


def test_rows_come_step_after_step_the_longest_lane_first():
    rows = Lengths(LENGTHS_B, T).rows
    assert rows.lanes.tolist() == [1, 3, 0, 4]
    assert rows.starts.tolist() == [0, 4, 7, 10, 12, 14, 15, 16]
    assert rows.places[:7].tolist() == [1, 3, 0, 4, LANES + 1, LANES + 3, LANES]
    assert sorted([*rows.places.tolist(), *rows.padding.tolist()]) == list(range(T * LANES))


ONES_B = torch.ones(2, dtype=torch.int64)


@pytest.mark.parametrize("kind", ["auto", "torch", "reference"])
@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 1], r"lengths_B should be an int64 tensor of shape \[2\], got a list of 2; use torch.tensor\(lengths\)"),
        (ONES_B.int(), r"lengths_B should be int64, got int32; use lengths_B.long\(\)"),
        (ONES_B > 0, "lengths_B should be int64, got bool"),
        (ONES_B[:1], r"lengths_B should have shape \[2\], a length for each lane, got \[1\]"),
        (ONES_B[:, None], r"lengths_B should have shape \[2\], a length for each lane, got \[2, 1\]"),
        (ONES_B.to("meta"), "lengths_B is on meta and the parameters are on cpu"),
        (ONES_B * 6, "lengths_B should be from 0 to 5, the steps of x, got 6 for lane 0"),
        (torch.tensor([2, -1]), "lengths_B should be from 0 to 5, the steps of x, got -1 for lane 1"),
        (Masks(), r"lengths_B should be an int64 tensor of shape \[2\], got a Masks"),
    ],
)
def test_wrong_lengths_are_named(kind, lengths, message):
    cell = cells.create("gru", 3, 4, engine=kind)
    for layer in (cell, Stack([cell]), cells.Bidirectional(cell, cells.create("gru", 3, 5, engine=kind))):
        with pytest.raises(ThroughtimeError, match=message) as raised:
            layer(torch.zeros(5, 2, 3), lengths_B=lengths)
        assert "\n" not in str(raised.value)
