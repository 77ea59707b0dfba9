"""The kernels, each on every level this processor has, held against the step of the cell they belong to.

What a kernel need not read, and what it must write, holds NaN beforehand: see calls.py. What it should give: twin.py.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch

from engine.calls import GIVEN, HALVES, KERNELS, LEVELS, LONG, LONG_RAGGED, ODD, RAGGED, WANTED, Case, call, draw
from engine.twin import cell_of, everything
from throughtime import cells
from throughtime.engine.choice import _native

pytestmark = pytest.mark.skipif(not LEVELS, reason="no engine")
every_level = pytest.mark.parametrize("level", LEVELS)
every_kernel = pytest.mark.parametrize("name", KERNELS)

FLOAT32 = 1e-5
"""Of the largest entry: some hundred roundings, as in a long sum."""
NEUTRAL = "portable"
"""The level that is everywhere: what does not depend on the level is asked of it."""


def kernel_of(name, level=NEUTRAL, bf16=False):
    return _native.recurrence(level, name, bf16)


def in_halves(name, level):
    return level in HALVES and name != "elman-relu"


@cache
def twin(name, case):
    return everything(name, case, inputs_of(name, case))


@cache
def inputs_of(name, case):
    return draw(kernel_of(name), case)


def assert_close(found, expected, tolerance, where):
    assert found.keys() == expected.keys()
    for key, array in found.items():
        error = np.abs(array.ravel() - expected[key].ravel()).max()
        scale = max(np.abs(expected[key]).max(), 0.1)
        assert error <= tolerance * scale, f"{key}: {error / scale:.1e} of the largest entry {scale:.3g}, {where}"


def assert_same_bits(found, expected, where):
    for key, array in found.items():
        unequal = (array.view(np.int32) != expected[key].view(np.int32)).sum()
        assert not unequal, f"{key}: {unequal} of {array.size} entries differ, {where}"


def test_every_cell_that_has_a_kernel_is_here():
    with_kernels = {name for name in cells.names() if cells.family(name).native}
    assert {type(cell_of(name, 1, 1)[0]) for name in KERNELS} == {cells.family(name).cell for name in with_kernels}


@every_kernel
@every_level
def test_float32_is_the_step_of_the_cell(name, level):
    for case in (*ODD, LONG, *RAGGED, LONG_RAGGED):
        for threads in (1, 2, 3):
            found = call(kernel_of(name, level), case, inputs_of(name, case), threads)
            assert_close(found, twin(name, case), FLOAT32, f"{case}, {threads} threads")


@every_kernel
@every_level
def test_bf16_rounds_the_products_and_nothing_else(name, level):
    """Outputs are those of the twin to rounding in float32, for it multiplies the states that the kernel put out.

    Gradients cannot be handed over so. One that lies in the middle of two bf16 numbers can be rounded to either, and
    then everything that it reaches is off by up to 2^-9 of its share: rare, and little in a norm. The kinks of relu and
    of the positive candidate are the same: a sum that is all but 0 can lie on either side. So gradients are compared by
    their norms; half the cases must agree closely, and none may be as far off as products without rounding are.
    """
    if in_halves(name, level):
        pytest.skip("half floats are finer")
    distances: dict[str, list[float]] = {}
    unrounded: dict[str, list[float]] = {}
    for number, case in enumerate((*ODD, LONG, *RAGGED, LONG_RAGGED)):
        inputs, threads = inputs_of(name, case), 1 + number % 3
        found = call(kernel_of(name, level, bf16=True), case, inputs, threads)
        expected = everything(name, case, inputs, bf16=True, y=found["y"])
        outputs = {key: found.pop(key) for key in list(found) if not key.startswith("d")}
        assert_close(outputs, {key: expected[key] for key in outputs}, FLOAT32, f"{case}, {threads} threads")
        for key, array in found.items():
            distances.setdefault(key, []).append(distance(array, expected[key]))
            unrounded.setdefault(key, []).append(distance(array, twin(name, case)[key]))
    for key, each in distances.items():
        assert np.median(each) < 2e-5, f"{key}: {each}"
        assert max(each) < 1e-3, f"{key}: {each}"
        assert max(unrounded[key]) > 5e-4, f"{key} does not tell rounded products from others: {unrounded[key]}"


@every_kernel
@pytest.mark.parametrize("level", [level for level in LEVELS if level in HALVES])
def test_half_floats_are_no_coarser_than_bf16(name, level):
    """Though their sums round too, what comes out is no further from that of float32."""
    rounded: dict[str, list[float]] = {}
    summed: dict[str, list[float]] = {}
    for number, case in enumerate((*ODD, LONG, *RAGGED, Case(9, 16, 300, 512))):
        inputs, threads = inputs_of(name, case), 1 + number % 3
        exact = call(kernel_of(name), case, inputs, threads)
        wide = call(kernel_of(name, NEUTRAL, bf16=True), case, inputs, threads)
        found = call(kernel_of(name, level, bf16=True), case, inputs, threads)
        for key, array in exact.items():
            rounded.setdefault(key, []).append(distance(wide[key], array))
            summed.setdefault(key, []).append(distance(found[key], array))
    for key, each in summed.items():
        assert np.median(each) <= np.median(rounded[key]), f"{key}: {each} beside {rounded[key]}"
        assert max(each) < 1.5 * max(rounded[key]), f"{key}: {each} beside {rounded[key]}"


@every_kernel
@every_level
@pytest.mark.parametrize("V", [0, 9], ids=["vectors", "tokens"])
def test_bf16_reaches_as_far_as_float32(name, level, V):
    """Lanes whose gradients are a billion times larger than others', inputs beyond what a half float holds, and a
    gradient that only the last step has: no lane loses more than its rounding."""
    case, noise = Case(6, 7, 33, 40, V), np.random.default_rng(3)
    inputs = dict(inputs_of(name, case))
    sizes = (10.0 ** np.arange(-12, 9, 3)).astype(np.float32)
    for key in ("dy", "dhidden", "dcarried"):
        if key in inputs:
            inputs[key] = inputs[key] * sizes[:, None]
    sizes = (10.0 ** noise.uniform(-4, 4, len(inputs["x"]))).astype(np.float32)
    inputs["x"] = inputs["x"] * sizes[:, None]
    inputs["W"] = inputs["W"] / 100
    last = inputs | {"dy": np.concatenate([np.zeros_like(inputs["dy"][:-1]), inputs["dy"][-1:]])}
    for number, given in enumerate((inputs, last)):
        exact = call(kernel_of(name), case, given)
        wide = call(kernel_of(name, NEUTRAL, bf16=True), case, given)
        found = call(kernel_of(name, level, bf16=True), case, given, 1 + number)
        for key, array in exact.items():
            if key in ("dhidden0", "dcarried0") or (key == "dx" and not V):
                lanes = [np.s_[..., lane, :] for lane in range(case.B)]
                shape = (case.T, case.B, case.D) if key == "dx" else (case.B, case.H)
            else:
                lanes, shape = [...], array.shape
            for lane, part in enumerate(lanes):
                expected, rounded, summed = (each[key].reshape(shape)[part] for each in (exact, wide, found))
                norm = max(np.linalg.norm(expected), 1e-30)
                own, other = np.linalg.norm(summed - expected) / norm, np.linalg.norm(rounded - expected) / norm
                assert own < max(3 * other, 0.05), f"{key}, lane {lane}: {own:.1e} beside {other:.1e}"


@every_kernel
@every_level
def test_bf16_makes_no_nan_of_what_is_tiny(name, level):
    """Products of scales, and what they are divided by, stay numbers."""
    case = Case(3, 4, 17, 20)
    for size in (1e-38, 1e-30, 1e-18):
        inputs = inputs_of(name, case)
        tiny = {key: inputs[key] * np.float32(size) for key in inputs.keys() & {"x", *GIVEN}}
        found = call(kernel_of(name, level, bf16=True), case, inputs | tiny)
        for key, array in found.items():
            assert np.isfinite(array).all(), f"{key}, {size}"


def distance(found, expected):
    """Of two arrays, as part of the second's norm."""
    return np.linalg.norm(found.ravel() - expected.ravel()) / max(np.linalg.norm(expected), 1e-3)


@every_kernel
def test_levels_agree(name):
    """Levels multiply bf16 in pairs, or unpacked to float32 (of half floats see above). They differ by the order of
    sums, but a state in the middle of two bf16 numbers can be rounded to either: they agree closely in most cases."""
    for bf16, tolerance in ((False, FLOAT32), (True, 1e-3)):
        alike = [level for level in LEVELS if not (bf16 and in_halves(name, level))]
        found = [
            [call(kernel_of(name, level, bf16), case, inputs_of(name, case)) for case in (*ODD, LONG)]
            for level in alike
        ]
        for (one, first), (other, second) in combinations(zip(alike, found, strict=True), 2):
            for key in first[-1]:
                each = [distance(a[key], b[key]) for a, b in zip(first, second, strict=True) if key in a]
                assert max(each) < tolerance, f"{key}, bf16 {bf16}, {one} and {other}: {each}"
                assert np.median(each) < 2e-5, f"{key}, bf16 {bf16}, {one} and {other}: {each}"


@every_kernel
@every_level
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_bits_are_repeated(name, level, bf16):
    """The same call gives the same bits. Outputs and states have them whatever the number of threads, for a row's sums
    run in one order. So do gradients where no sum runs over what threads share: those of the vectors run over lanes,
    and those in a normalised row over units, which threads share where lanes are few; and where lanes end, the rows of
    a tile are so few in the end that a sum is made in several parts."""
    kernel = kernel_of(name, level, bf16)
    for case in (*ODD, *RAGGED):
        inputs = inputs_of(name, case)
        one = call(kernel, case, inputs)
        assert_same_bits(call(kernel, case, inputs), one, f"{case}, the same call")
        for threads in (2, 3, 4):
            found = call(kernel, case, inputs, threads)
            kept = {"y", "hidden", "carried"} & found.keys()
            if not name.startswith("layernorm") and not case.ragged:
                kept |= {"dW", "dU", "dhidden0", "dcarried0"} & found.keys()
            assert_same_bits({key: found[key] for key in kept}, one, f"{case}, {threads} threads")
    for many_lanes in (Case(5, 48, 9, 65, marked=True), Case(7, 48, 9, 65, marked=True, ragged=True)):
        inputs = inputs_of(name, many_lanes)
        one = call(kernel, many_lanes, inputs)
        for threads in (2, 3, 4):
            found = call(kernel, many_lanes, inputs, threads)
            # Sums in another order can be rounded to another bf16 number, 2^-8 of one that many are added to.
            tolerance = 2**-8 if many_lanes.ragged and bf16 else FLOAT32
            assert_close(found, one, tolerance, f"{many_lanes}, {threads} threads")
            kept = {"y", "hidden", "carried"} if many_lanes.ragged else found.keys() - {"dvectors"}
            assert_same_bits({key: found[key] for key in kept & found.keys()}, one, f"{many_lanes}, {threads} threads")


@every_kernel
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_what_is_not_asked_for_changes_nothing(name, bf16):
    """Each gradient alone, each gradient of an output alone, and no way back at all."""
    kernel = kernel_of(name, LEVELS[-1], bf16)
    for case in (*ODD, *RAGGED[-3:]):
        inputs = inputs_of(name, case)
        full = call(kernel, case, inputs)
        assert_same_bits(call(kernel, case, inputs, wanted=()), full, f"{case}, no way back")
        for wanted in full.keys() & set(WANTED):
            assert_same_bits(call(kernel, case, inputs, wanted=[wanted]), full, f"{case}, {wanted} alone")
        for given in inputs.keys() & set(GIVEN):
            alone = {key: array for key, array in inputs.items() if key == given or key not in GIVEN}
            zeros = {key: np.zeros_like(inputs[key]) for key in inputs.keys() & set(GIVEN) - {given}}
            assert_close(
                call(kernel, case, alone), call(kernel, case, alone | zeros), FLOAT32, f"{case}, {given} alone"
            )


@every_kernel
@every_level
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_a_pass_that_keeps_nothing_gives_the_same_bits(name, level, bf16):
    """It has room for a few steps, which later ones take the place of: here for two, with more threads for more."""
    for case in (LONG, LONG_RAGGED, LONG_RAGGED._replace(V=30)):
        kernel, inputs = kernel_of(name, level, bf16), inputs_of(name, case)
        full = call(kernel, case, inputs)
        for threads in (1, 2, 3):
            assert_same_bits(call(kernel, case, inputs, threads, wanted=()), full, f"{case}, {threads} threads")


@every_kernel
def test_the_way_back_may_have_other_threads_than_the_way_there(name):
    """What is saved does not depend on them: a backward pass may run elsewhere."""
    case = ODD[2]
    kernel, inputs = kernel_of(name), inputs_of(name, case)
    found = [call(kernel, case, inputs, threads, backward_threads=other) for threads, other in ((1, 1), (1, 3), (3, 1))]
    for one in found[1:]:
        assert_close(one, found[0], FLOAT32, "other threads")


@every_kernel
def test_rows_that_no_step_reads_have_no_gradient(name):
    case = Case(3, 5, 63, 7, V=130)
    inputs = inputs_of(name, case)
    unread = np.setdiff1d(np.arange(case.V), inputs["ids"])
    for bf16 in (False, True):
        found = call(kernel_of(name, LEVELS[-1], bf16), case, inputs, 2)
        assert not found["dx"][unread].any()
        assert found["dx"].any(axis=1).sum() == case.V - len(unread)


# ---- Numbers that are none, too large, or too small.

SMALL = Case(5, 4, 9, 19)


@every_kernel
@every_level
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_a_nan_shows_in_its_row_and_nowhere_else(name, level, bf16):
    kernel, inputs = kernel_of(name, level, bf16), inputs_of(name, SMALL)
    clean = call(kernel, SMALL, inputs)
    for array, place, steps in (("x", (2 * SMALL.B + 1, 3), slice(2, None)), ("hidden0", (1, 3), slice(None))):
        spoilt = inputs | {array: inputs[array].copy()}
        spoilt[array][place] = np.nan
        found = call(kernel, SMALL, spoilt)
        expected = everything(name, SMALL, spoilt)
        reached = np.isnan(expected["y"]).reshape(found["y"].shape)
        assert reached[steps, 1].any()
        assert (np.isnan(found["y"]) == reached).all()
        assert_same_bits({"y": found["y"][:, [0, 2, 3]]}, {"y": clean["y"][:, [0, 2, 3]]}, "other rows")
        assert any(np.isnan(found[key]).any() for key in ("dW", "dU") if key in found)


@every_kernel
@every_level
def test_a_fresh_row_is_rid_of_a_nan_in_the_state(name, level):
    kernel, inputs = kernel_of(name, level), dict(inputs_of(name, SMALL))
    inputs["fresh"] = np.zeros((SMALL.T, SMALL.B), np.uint8)
    inputs["fresh"][2, 1] = 1
    clean = call(kernel, SMALL, inputs)
    for state in inputs.keys() & {"hidden0", "carried0"}:
        inputs[state] = inputs[state].copy()
        inputs[state][1] = np.nan
    found = call(kernel, SMALL, inputs)
    assert np.isnan(found["y"][:2, 1]).all()
    assert_same_bits({"y": found["y"][2:]}, {"y": clean["y"][2:]}, "after the row began anew")


def one_input_each(kernel, noise):
    """Weights that hand each sum of a gate one input as it is, so that it is as large as asked for."""
    rows = kernel.gates * SMALL.H
    weights = np.zeros((rows, SMALL.D), np.float32)
    weights[np.arange(rows), noise.integers(0, SMALL.D, rows)] = noise.choice(np.float32([-1, 1]), rows)
    return weights


@every_kernel
@every_level
def test_huge_sums_close_gates_and_stop_gradients(name, level):
    """Vectors are multiples of 2^-8, so that a sum of 10,000 and one of them is exact: two gates' difference counts."""
    kernel, inputs = kernel_of(name, level), dict(inputs_of(name, SMALL))
    noise = np.random.default_rng(2)
    inputs["x"] = noise.choice(np.float32([-1e4, 1e4]), inputs["x"].shape)
    inputs["W"] = one_input_each(kernel, noise)
    inputs["vectors"] = np.round(inputs["vectors"] * 256) / 256
    found = call(kernel, SMALL, inputs)
    assert_close(found, everything(name, SMALL, inputs), 2e-5, "inputs of 10,000")
    if name in ("elman-tanh", "lstm", "gru"):
        assert not found["dW"].any()


@every_kernel
@every_level
def test_infinities_are_as_in_the_step_or_show(name, level):
    """Where the step gives a number, one may come out that is none: inf - inf on the way, or inf times the zeros that
    fill up a vector. Never the other way round."""
    kernel, inputs = kernel_of(name, level), dict(inputs_of(name, SMALL))
    for infinite in (np.inf, -np.inf):
        inputs["x"] = inputs_of(name, SMALL)["x"].copy()
        inputs["x"][1 * SMALL.B + 2, 4] = infinite
        found = call(kernel, SMALL, inputs)["y"].ravel()
        expected = everything(name, SMALL, inputs)["y"]
        finite = np.isfinite(expected)
        assert not np.isfinite(found[~finite]).any()
        shown = np.isfinite(found)
        np.testing.assert_allclose(found[shown], expected[shown], rtol=FLOAT32, atol=FLOAT32)
        assert shown[: SMALL.B * SMALL.H].all()


@every_kernel
@every_level
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_denormals_are_small_numbers_and_the_callers_mode_stays(name, level, bf16):
    tiny = np.full(8, 1e-40, np.float32)
    kernel, inputs = kernel_of(name, level, bf16), dict(inputs_of(name, SMALL))
    zero = inputs | {key: np.zeros_like(inputs[key]) for key in ("x", "hidden0", "dy")}
    small = inputs | {key: inputs[key] * np.float32(1e-40) for key in ("x", "hidden0", "dy")}
    assert small["x"].any()
    for flush in (False, True):
        try:
            assert torch.set_flush_denormal(flush), "this processor cannot"
            found = call(kernel, SMALL, small, 2)
            assert (tiny * np.float32(1)).any() != flush, "the caller's mode has changed"
        finally:
            torch.set_flush_denormal(False)
        assert_close(found, call(kernel, SMALL, zero, 2), FLOAT32, "all but zero")


# ---- Functions.


def through_a_gate(level, name, gate, values, hidden0=0.0, last=0.0, H=64):
    """What a step makes of sums of one gate. The matrix is the identity, so that each is an input as it is."""
    kernel = kernel_of(name, level)
    case = Case(1, len(values) // H, H, H)
    W = np.zeros((kernel.gates, H, H), np.float32)
    W[gate] = np.eye(H)
    vectors = np.zeros((kernel.vectors, H), np.float32)
    vectors[-1] = last
    inputs = {
        "x": values.reshape(-1, H),
        "W": W.reshape(-1, H),
        "vectors": vectors,
        "hidden0": np.full((case.B, H), hidden0, np.float32),
    }
    if kernel.product:
        inputs["U"] = np.zeros((kernel.gates * H, H), np.float32)
    return call(kernel, case, inputs, wanted=())["y"].ravel()


@cache
def sweep():
    """From -20 to 20 evenly, and towards 0 in powers."""
    powers = np.geomspace(1e-30, 1, 1 << 16)
    return np.concatenate([np.linspace(-20, 20, 1 << 20), powers, -powers]).astype(np.float32)


FUNCTIONS = {
    # name: kernel, gate, other arguments, what comes out of a sum a, units of the last place it may be off by
    "tanh": ("elman-tanh", 0, {}, np.tanh, 3.2),
    "sigmoid": ("gru", 1, {"hidden0": 1.0}, lambda a: 1 / (1 + np.exp(-a)), 2.7),
    "share": ("minlstm-linear", 1, {"last": 1.0}, lambda a: 2 / (3 + np.exp(-a)), 3.5),
}
"""The bounds are a little above what all floats of [2^-12, 20] and their negatives gave: 3.0, 2.5 and 3.3.

sigmoid: a GRU's update gate keeps a state of 1 beside a candidate of 0. share: a minLSTM's input gate takes
i / (f + i), f = 1/2, of a candidate of 1."""


@every_level
@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_are_right_in_the_last_places(function, level):
    kernel, gate, given, exact, bound = FUNCTIONS[function]
    expected = exact(sweep().astype(np.float64))
    found = through_a_gate(level, kernel, gate, sweep(), **given)
    error = np.abs(found - expected) / np.spacing(np.abs(expected).astype(np.float32))
    worst = error.argmax()
    assert error[worst] < bound, (
        f"{function}({sweep()[worst]:.9g}) is off by {error[worst]:.2f} units of its last place"
    )


@every_level
@pytest.mark.parametrize(
    ("function", "low", "high"), [("tanh", -1.0, 1.0), ("sigmoid", 0.0, 1.0), ("share", 0.0, 2 / 3)]
)
def test_functions_reach_their_ends(function, low, high, level):
    kernel, gate, given, _, _ = FUNCTIONS[function]
    ends = np.float32([-3e38, -1e4, -100, 100, 1e4, 3e38])
    found = through_a_gate(level, kernel, gate, ends, **given, H=1)
    expected = np.where(ends > 0, high, low)
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=1e-37)


# ---- What is refused.

WRONG = {
    "missing": ({"x": None}, ValueError, "x is missing"),
    "missing on the way back": ({"saved": None}, ValueError, "what the forward pass saved is missing"),
    "too few": ({"hidden0": np.zeros((2, 5), np.float32)}, ValueError, "hidden0 should have 12 entries, got 10"),
    "too many": ({"dU": np.zeros((6, 7), np.float32)}, ValueError, "dU should have 36 entries, got 42"),
    "dtype": ({"W": np.zeros((6, 5))}, TypeError, "W should be a dense float32 array in main memory"),
    "dtype of a result": ({"dW": np.zeros((6, 5))}, TypeError, "dW should be a dense writable float32 array"),
    "ids": ({"ids": np.zeros((3, 2), np.int32)}, TypeError, "ids should be a dense int64 array"),
    "flags": ({"fresh": np.zeros((3, 2), bool)}, TypeError, "fresh should be a dense uint8 array"),
    "not dense": ({"U": np.zeros((6, 6), np.float32).T}, TypeError, "U should be a dense float32 array"),
    "a result not dense": ({"dU": np.zeros((6, 6), np.float32).T}, TypeError, "dU should be a dense writable"),
    "lent as another kind": ({"ids": (64, 6, "uint8")}, TypeError, "ids should be a dense int64 array"),
    "lent too few": ({"W": (64, 29, "float32")}, ValueError, "W should have 30 entries, got 29"),
    "no loan": ({"W": (64, 30)}, TypeError, "W should be a dense float32 array"),
    "no array": ({"x": [1.0] * 20}, TypeError, "x should be a dense float32 array"),
    "read only": ({"dx": np.frombuffer(bytes(80), np.float32)}, TypeError, "dx should be a dense writable float32"),
    "unknown": ({"flown": np.zeros(6, np.float32)}, TypeError, "this kernel knows no array flown"),
    "of other cells": ({"dcarried0": np.zeros(12, np.float32)}, TypeError, "this kernel knows no array dcarried0"),
    "an id below": ({"ids": np.array([[0, 1]] * 2 + [[0, -1]])}, IndexError, "id -1 is not in a vocabulary of 4"),
    "an id above": ({"ids": np.array([[4, 1]] + [[0, 1]] * 2)}, IndexError, "id 4 is not in a vocabulary of 4"),
    "starts that grow": ({"starts": np.array([0, 1, 3, 4])}, ValueError, "starts should begin with 0 and B"),
    "starts of more lanes": ({"starts": np.array([0, 3, 4, 5])}, ValueError, "starts should begin with 0 and B"),
    "steps without a lane": ({"starts": np.array([0, 2, 3, 3])}, ValueError, "starts should begin with 0 and B"),
    "rows beyond the ends": ({"starts": np.array([0, 2, 3, 4])}, ValueError, "ids should have 4 entries, got 6"),
    "no ids": ({"ids": None}, ValueError, "ids and the size of their vocabulary go together"),
}


@pytest.mark.parametrize(("changes", "error", "message"), WRONG.values(), ids=WRONG)
def test_what_is_refused(changes, error, message):
    kernel, case = kernel_of("elman-tanh"), Case(3, 2, 5, 6, V=4)
    inputs = draw(kernel, case)
    results = {f"d{key}": np.zeros_like(array) for key, array in inputs.items() if f"d{key}" in WANTED}
    arrays = inputs | results | {"saved": np.zeros(kernel.sizes(case[:5])[0] // 4, np.float32)}
    arrays |= {"read": np.zeros(kernel.sizes(case[:5])[1], np.uint8)}
    kernel.backward(case[:5], 1, **arrays)
    with pytest.raises(error) as raised:
        kernel.backward(case[:5], 1, **{key: array for key, array in (arrays | changes).items() if array is not None})
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "threads", "message"),
    [
        ((0, 2, 5, 6, 0), 1, "every size must be at least 1"),
        ((3, 2, 5, 6, -1), 1, "every size must be at least 1"),
        ((3, 2, 5, 6, 4), 1, "ids and the size of their vocabulary go together"),
        ((3, 2, 5, 6, 0), 0, "threads must be at least 1"),
        ((3, 2, 5, 6, 0), -1, "threads must be at least 1"),
    ],
)
def test_sizes_that_are_refused(shape, threads, message):
    kernel = kernel_of("elman-tanh")
    arrays = draw(kernel, Case(3, 2, 5, 6))
    arrays = {key: array for key, array in arrays.items() if key not in GIVEN}
    with pytest.raises(ValueError, match=message):
        kernel.forward(shape, threads, **arrays, y=np.zeros((3, 2, 6), np.float32), hidden=arrays["hidden0"].copy())


@pytest.mark.parametrize(("level", "name"), [("sse9", "gru"), (NEUTRAL, "grue")])
def test_kernels_that_are_not_there(level, name):
    with pytest.raises(KeyError, match=f"no kernel for {name} at level {level}"):
        kernel_of(name, level)


@every_kernel
def test_more_threads_than_there_is_work_for(name):
    case = ODD[0]
    kernel, inputs = kernel_of(name), inputs_of(name, case)
    assert_same_bits(call(kernel, case, inputs, 1000), call(kernel, case, inputs), "1000 threads")
