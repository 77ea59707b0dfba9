"""A network gives what the cells of training give, whatever it is cut into, and whoever shares the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.calls import HALVES
from throughtime import cells, engine
from throughtime.cells.stack import Stack
from throughtime.cells.state import leaves, map_state
from throughtime.engine.forms import EPSILON, FORMS
from throughtime.errors import SettingError
from throughtime.runtime import Layer, Network, reference
from throughtime.runtime import network as networks
from throughtime.states import select

SIZES = [(1, 1), (7, 63), (16, 16), (48, 130)]
OPTIONS = {
    "elman": [{}, {"activation": "relu"}],
    "mingru": [{}, {"candidate": "positive"}],
    "minlstm": [{}, {"candidate": "positive"}],
}
CASES = [(name, options) for name in cells.names() for options in OPTIONS.get(name, [{}])]
ids = [f"{name}-{'-'.join(options.values())}".rstrip("-") for name, options in CASES]

needs_kernels = pytest.mark.skipif(engine.level() is None, reason="there are no kernels here")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(name, D, H, options, seed=0):
    """A cell whose vectors are no zeros, and what the runtime takes."""
    cell = cells.create(name, D, H, engine="reference", generator=seeded(seed), **options)
    with torch.no_grad():
        for parameter in cell.parameters():
            if parameter.dim() == 1:
                parameter += torch.empty_like(parameter).normal_(0, 0.3, generator=seeded(seed + 1))
    return cell, Layer(name, {key: array.detach().numpy() for key, array in cell.named_parameters()}, options)


def assert_same(state, other):
    for one, wanted in zip(state, other, strict=True):
        np.testing.assert_array_equal(one, wanted)


def inputs(T, B, D, seed=2):
    return torch.empty(T, B, D).normal_(generator=seeded(seed)).numpy()


@pytest.fixture(params=["native", "reference"])
def either_twin(request, monkeypatch):
    """Both forms of a network."""
    if request.param == "reference":
        monkeypatch.setattr(networks.engine, "network", lambda _: None)
        monkeypatch.setattr(networks.engine, "sampler", lambda *_, **__: None)
    elif engine.level() is None:
        pytest.skip("there are no kernels here")


def test_every_cell_that_has_a_kernel_runs():
    assert {name for name in cells.names() if cells.family(name).native} == FORMS.keys()
    for name, options in CASES:
        cell, _ = made(name, 3, 5, options)
        wanted = {key: tuple(array.shape) for key, array in cell.named_parameters()}
        assert FORMS[name].shapes(3, 5) == wanted
        assert len(cell.initial_state(1)) == FORMS[name].state_arrays


@pytest.mark.usefixtures("either_twin")
@pytest.mark.parametrize(("D", "H"), SIZES)
@pytest.mark.parametrize(("name", "options"), CASES, ids=ids)
def test_outputs_and_states_are_those_of_training(name, options, D, H):
    cell, layer = made(name, D, H, options)
    network, x = Network([layer]), inputs(9, 3, D)
    fresh = np.zeros((9, 3), bool)
    fresh[4, 1] = True
    rng = np.random.default_rng(0)
    start = tuple(rng.normal(size=(3, *shape)).astype(np.float32) / 2 for shape in network.state_shapes)
    y, after = network.feed(x, start, reset_TB=fresh)
    with torch.no_grad():
        state = type(cell.initial_state(3))(*map(torch.from_numpy, start))
        wanted, wanted_after = cell(torch.from_numpy(x), state, torch.from_numpy(fresh))
    np.testing.assert_allclose(y, wanted, atol=1e-5)
    np.testing.assert_allclose(after, torch.stack(tuple(wanted_after)), atol=1e-5)


@pytest.mark.usefixtures("either_twin")
@pytest.mark.parametrize(("name", "options"), CASES, ids=ids)
def test_layers_of_different_widths_give_what_a_stack_gives(name, options):
    """Both twins, with documents that end and states that are no zeros."""
    sizes = [(7, 33), (33, 63), (63, 5)]
    stack, layers = zip(*(made(name, D, H, options, seed) for seed, (D, H) in enumerate(sizes)), strict=True)
    network, x, rng = Network(layers), inputs(9, 3, 7), np.random.default_rng(0)
    assert [shape for (shape,) in network.state_shapes] == [
        H for _, H in sizes for _ in range(FORMS[name].state_arrays)
    ]  # fmt: skip
    reset_TB = rng.random((9, 3)) < 0.2
    start = tuple(rng.normal(size=(3, *shape)).astype(np.float32) / 2 for shape in network.state_shapes)
    y, after = network.feed(x, start, reset_TB=reset_TB)
    arrays = iter(map(torch.from_numpy, start))
    with torch.no_grad():
        state = map_state(lambda _: next(arrays), Stack(stack).initial_state(3))
        wanted, wanted_after = Stack(stack)(torch.from_numpy(x), state, torch.from_numpy(reset_TB))
    np.testing.assert_allclose(y, wanted, atol=1e-5)
    for array, wanted_array in zip(after, leaves(wanted_after), strict=True):
        np.testing.assert_allclose(array, wanted_array, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize("name", ["layernorm-gru", "layernorm-lstm"])
def test_every_form_of_layer_normalisation_adds_the_same_to_the_variance(name, monkeypatch):
    """Rows so small that it decides what comes out: a tenth more of it would be a difference of 1e-3."""
    cell, layer = made(name, 16, 16, {})
    x = inputs(3, 2, 16) * np.float32(1e-2)
    y = Network([layer]).feed(x, Network([layer]).initial_state(2))[0]
    monkeypatch.setattr(networks.engine, "network", lambda _: None)
    twin = Network([layer]).feed(x, Network([layer]).initial_state(2))[0]
    with torch.no_grad():
        wanted = cell(torch.from_numpy(x))[0]
        cell.epsilon = 1.1 * EPSILON
        other = cell(torch.from_numpy(x))[0]
    assert (wanted - other).abs().max() > 1e-3
    np.testing.assert_allclose(y, wanted, atol=1e-5)
    np.testing.assert_allclose(twin, wanted, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize("weights", networks.WEIGHTS)
@pytest.mark.parametrize("H", [16, 48, 63, 200])
@pytest.mark.parametrize(("name", "options"), CASES, ids=ids)
def test_no_bit_depends_on_cuts_lanes_or_threads(name, options, H, weights):
    layers = [made(name, 24, H, options)[1], made(name, H, H + 9, options, 5)[1]]
    head = (np.random.default_rng(1).normal(size=(21, H + 9)).astype(np.float32), np.ones(21, np.float32))
    network, x = Network(layers, None, head, weights, threads=2), inputs(11, 7, 24)
    start = network.initial_state(7)
    y, after = network.feed(x, start)
    state, steps = start, []
    for x_BD in x:
        step, state = network.step(x_BD, state)
        steps.append(step)
    np.testing.assert_array_equal(np.stack(steps), y)
    assert_same(state, after)
    for lanes in ([3], [6, 0], [1, 2, 3, 4, 5]):
        some, some_after = network.feed(np.ascontiguousarray(x[:, lanes]), network.initial_state(len(lanes)))
        np.testing.assert_array_equal(some, y[:, lanes])
        assert_same(some_after, select(after, lanes))
    alone, alone_after = Network(layers, None, head, weights, threads=1).feed(x, start)
    np.testing.assert_array_equal(alone, y)
    assert_same(alone_after, after)
    last, _ = network.feed(x, start, wanted=2)
    np.testing.assert_array_equal(last, y[-2:])


@needs_kernels
@pytest.mark.parametrize("weights", networks.WEIGHTS)
@pytest.mark.parametrize(("name", "options"), CASES, ids=ids)
def test_looking_tokens_up_is_multiplying_them(name, options, weights, monkeypatch):
    layers = [made(name, 10, 33, options)[1]]
    rows = np.random.default_rng(0).normal(size=(19, 10)).astype(np.float32)
    ids = np.random.default_rng(1).integers(19, size=(6, 4))
    looked = Network(layers, rows, None, weights)
    monkeypatch.setattr(networks, "TABLE_BYTES", 0)
    multiplied = Network(layers, rows, None, weights)
    start = looked.initial_state(4)
    (y, after), (wanted, wanted_after) = looked.feed(ids, start), multiplied.feed(ids, start)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(after, wanted_after)


@needs_kernels
@pytest.mark.parametrize("weights", ["bf16", "int8"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=ids)
def test_what_weights_are_rounded_to(name, options, weights, monkeypatch):
    layers = [made(name, 21, 40, options)[1], made(name, 40, 52, options, 3)[1], made(name, 52, 40, options, 4)[1]]
    head = (np.random.default_rng(1).normal(size=(9, 40)).astype(np.float32) / 6, np.zeros(9, np.float32))
    native, x = Network(layers, None, head, weights), inputs(5, 2, 21)
    y, after = native.feed(x, native.initial_state(2))
    exact = Network(layers, None, head).feed(x, native.initial_state(2))
    monkeypatch.setattr(networks.engine, "network", lambda _: None)
    twin = Network(layers, None, head, weights)
    wanted, wanted_after = twin.feed(x, twin.initial_state(2))
    if weights == "bf16" and engine.level() in HALVES:
        wanted, wanted_after, bound = *exact, np.abs(wanted - exact[0]).mean()  # finer than the twin is
    else:
        bound = 1e-3
    # A value near the middle of two numbers may be rounded to either.
    np.testing.assert_allclose(y, wanted, atol=0.02)
    for array, wanted_array in zip(after, wanted_after, strict=True):
        np.testing.assert_allclose(array, wanted_array, atol=0.02)
    assert np.abs(y - wanted).mean() <= bound


@needs_kernels
def test_inputs_of_any_size_meet_int8(monkeypatch):
    _, layer = made("mingru", 32, 32, {})
    network, x = Network([layer], weights="int8"), inputs(1, 3, 32) * np.float32([[[1e-6], [1], [1e6]]])
    exact = Network([layer])
    monkeypatch.setattr(networks.engine, "network", lambda _: None)
    twin = Network([layer], weights="int8")
    found, wanted, rounded = (one.feed(x, one.initial_state(3))[0] for one in (network, exact, twin))
    scale = np.abs(wanted).max(2, keepdims=True)
    # Sums of millions have no digits left for a gate that lies between open and shut.
    for row, (of_twin, of_exact) in enumerate(((1e-5, 0.03), (1e-5, 0.03), (0.01, 2.0))):
        np.testing.assert_allclose((found / scale)[:, row], (rounded / scale)[:, row], atol=of_twin)
        np.testing.assert_allclose((found / scale)[:, row], (wanted / scale)[:, row], atol=of_exact)


@pytest.mark.usefixtures("either_twin")
def test_nats_are_those_of_a_log_softmax():
    _, layer = made("gru", 6, 12, {})
    rng = np.random.default_rng(0)
    rows, W = rng.normal(size=(37, 6)).astype(np.float32), rng.normal(size=(37, 12)).astype(np.float32)
    network = Network([layer], rows, (W, np.zeros(37, np.float32)))
    ids, targets = rng.integers(37, size=(2, 9, 3))
    targets[5, 1] = -100
    logits, _ = network.feed(ids, network.initial_state(3))
    wanted = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).flatten(0, 1), torch.from_numpy(targets).flatten(), reduction="none"
    ).view(9, 3)
    found, state = network.nats(ids, targets, None, network.initial_state(3))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state, network.feed(ids, network.initial_state(3))[1])


def test_nats_in_chunks_are_the_same(monkeypatch):
    _, layer = made("lstm", 6, 12, {})
    rng = np.random.default_rng(0)
    rows, W = rng.normal(size=(37, 6)).astype(np.float32), rng.normal(size=(37, 12)).astype(np.float32)
    network = Network([layer], rows, (W, np.zeros(37, np.float32)))
    ids, targets = rng.integers(37, size=(2, 9, 3))
    whole, state = network.nats(ids, targets, None, network.initial_state(3))
    monkeypatch.setattr(networks, "LOGITS_AT_ONCE", 300)
    pieces, same = network.nats(ids, targets, None, network.initial_state(3))
    np.testing.assert_allclose(pieces, whole, rtol=1e-6)
    np.testing.assert_allclose(same, state, atol=1e-6)


@pytest.mark.usefixtures("either_twin")
def test_a_state_in_another_order_of_memory_is_read_rightly():
    _, layer = made("lstm", 6, 12, {})
    network, x = Network([layer]), inputs(4, 3, 6)
    _, state = network.feed(x, network.initial_state(3))
    turned = tuple(map(np.asfortranarray, state))
    (y, after), (wanted, wanted_after) = network.feed(x, turned), network.feed(x, state)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(after, wanted_after)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "int3"}, "weights must be float32, bf16 or int8, got 'int3'"),
        ({"threads": -1}, "threads must not be negative, got -1"),
        ({"layers": [Layer("my-cell", {})]}, "the runtime has no kernel for the cell 'my-cell'; it has elman, gru"),
    ],
)
def test_settings_out_of_range(change, message):
    given = {"layers": [made("gru", 2, 3, {})[1]]} | change
    with pytest.raises(SettingError, match=message):
        Network(**given)


@pytest.mark.usefixtures("either_twin")
def test_an_option_that_no_kernel_has():
    _, layer = made("elman", 2, 3, {})
    with pytest.raises(SettingError, match="no kernel 'elman-sine'; are the options of the cell 'elman' right"):
        Network([layer._replace(options={"activation": "sine"})])


@pytest.mark.usefixtures("either_twin")
def test_arrays_of_another_form_are_read_as_what_they_are():
    """Other strides, other bytes of a number: the same results; a fraction is no id."""
    _, layer = made("lstm", 4, 6, {})
    x, state = inputs(3, 2, 4), (np.full((2, 6), 0.5, np.float32), np.full((2, 6), 0.25, np.float32))
    network = Network([layer])
    wanted = network.feed(x, state)
    spread = np.zeros((3, 4, 8), np.float32)
    spread[:, ::2, ::2] = x
    turned = [np.asfortranarray(array) for array in state]
    for given, before in ((spread[:, ::2, ::2], turned), (x.astype(np.float64), state), (x.astype(">f4"), state)):
        y, after = network.feed(given, before)
        np.testing.assert_allclose(y, wanted[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(after, wanted[1], rtol=1e-5, atol=1e-6)
    named = Network([layer], np.ones((5, 4), np.float32))
    whole = named.feed(np.zeros((1, 2), np.int64), state)[0]
    np.testing.assert_array_equal(named.feed(np.zeros((1, 2), np.int32), state)[0], whole)


@needs_kernels
def test_what_a_kernel_would_misread_is_refused():
    _, layer = made("gru", 4, 6, {})
    rows = np.zeros((5, 4), np.float32)
    network = Network([layer], rows)
    state = network.initial_state(2)
    with pytest.raises(IndexError, match="id 5 is not in a vocabulary of 5"):
        network.feed(np.full((1, 2), 5), state)
    with pytest.raises(ValueError, match=r"a state should have arrays of shape \[3, 6\]"):
        network.feed(np.zeros((1, 3), np.int64), state)
    with pytest.raises(TypeError, match=r"ids: numpy.ndarray\[int64\]"):
        network.feed(np.zeros((1, 2)), state)
    with pytest.raises(ValueError, match="a layer of input 5 cannot stand on 6 units"):
        Network([layer, made("gru", 5, 6, {})[1]])
    with pytest.raises(ValueError, match=r"the inputs should have shape \[T, B, 4\]"):
        Network([layer]).feed(inputs(2, 2, 5), state)


USUAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 0}


def choices(logits, draws=4000, **choice):
    """How often each token is drawn."""
    rng = np.random.default_rng(0)
    _, layer = made("gru", 2, 3, {})
    network = Network([layer], rng.normal(size=(len(logits), 2)).astype(np.float32), (
        np.zeros((len(logits), 3), np.float32), np.asarray(logits, np.float32)))  # fmt: skip
    sampler = network.sampler(**USUAL | {"allowed": None} | choice)
    first = np.asarray(logits, np.float32)[None, None].copy()
    drawn = network.generate(first, network.initial_state(1), [sampler], draws)
    return np.bincount(drawn[:, 0], minlength=len(logits)) / draws


@pytest.mark.usefixtures("either_twin")
def test_draws_follow_the_probabilities_that_the_limits_leave():
    logits = np.log([0.1, 0.4, 0.2, 0.3])
    close = {"abs": 0.03}
    assert choices(logits).tolist() == pytest.approx([0.1, 0.4, 0.2, 0.3], **close)
    assert choices(logits, top_k=2).tolist() == pytest.approx([0, 4 / 7, 0, 3 / 7], **close)
    assert choices(logits, top_p=0.6).tolist() == pytest.approx([0, 4 / 7, 0, 3 / 7], **close)
    assert choices(logits, top_p=0.75).tolist() == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9], **close)
    assert choices(logits, top_p=1e-9, draws=50).tolist() == [0, 1, 0, 0]
    assert choices(logits, min_p=0.6).tolist() == pytest.approx([0, 4 / 7, 0, 3 / 7], **close)
    assert choices(logits, temperature=0.5).tolist() == pytest.approx([1 / 30, 16 / 30, 4 / 30, 9 / 30], **close)
    assert choices(logits, temperature=0.0, draws=50).tolist() == [0, 1, 0, 0]
    allowed = np.array([1, 0, 1, 0], np.uint8)
    assert choices(logits, allowed=allowed).tolist() == pytest.approx([1 / 3, 0, 2 / 3, 0], **close)
    assert choices(logits, allowed=allowed, temperature=0.0, draws=50).tolist() == [0, 0, 1, 0]


@pytest.mark.usefixtures("either_twin")
def test_what_was_seen_is_less_likely_under_a_penalty():
    # 4 is drawn and counts 2 from then on, so 3 is, which counts 1.5: then 4 again.
    assert choices([4.0, 3.0, -1.0], 3, temperature=0.0, repetition_penalty=2.0).tolist() == [2 / 3, 1 / 3, 0]


@needs_kernels
@pytest.mark.parametrize(
    "choice",
    [
        {"temperature": 1.0},
        {"temperature": 0.0},
        {"temperature": 0.7, "top_k": 3},
        {"temperature": 1.3, "top_p": 0.8},
        {"temperature": 2.0, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
        {"temperature": 1.0, "repetition_penalty": 1.4},
    ],
)
def test_the_twins_draw_the_same(choice):
    given = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "allowed": None} | choice
    rng = np.random.default_rng(0)
    for seed in range(20):
        native = engine.sampler(50, seed=seed, **given)
        twin = reference.Sampler(50, seed=seed, **given)
        native.see(np.array([3, 4]))
        twin.see(np.array([3, 4]))
        _, layer = made("gru", 2, 3, {})
        logits = rng.normal(0, 3, size=50).astype(np.float32)
        network = Network([layer], np.zeros((50, 2), np.float32), (np.zeros((50, 3), np.float32), logits))
        drawn = network.generate(logits[None, None].copy(), network.initial_state(1), [native], 30)
        assert drawn[:, 0].tolist() == [twin.choose(logits.copy()) for _ in range(30)]


@pytest.mark.usefixtures("either_twin")
def test_where_nothing_is_allowed_nothing_is_drawn():
    _, layer = made("gru", 2, 3, {})
    network = Network([layer], np.zeros((2, 2), np.float32), (np.zeros((2, 3), np.float32), np.zeros(2, np.float32)))
    samplers = [network.sampler(**USUAL, allowed=mask) for mask in (np.zeros(2, np.uint8), None)]
    state, logits = (np.full((2, 3), 0.5, np.float32),), np.zeros((1, 2, 2), np.float32)
    drawn = network.generate(logits, state, samplers, 5)
    assert drawn[:, 0].tolist() == [-1] * 5
    assert (drawn[:, 1] >= 0).all()
    assert (state[0][0] == 0.5).all()
    assert (state[0][1] != 0.5).all()


@needs_kernels
@pytest.mark.parametrize("wanted", [0, 1, 9000, 20_000])
def test_a_long_call_gives_what_its_pieces_give(wanted):
    """The engine cuts it into stretches of bounded memory; 20,000 steps of 64 units are two of them."""
    _, layer = made("gru", 3, 64, {})
    _, upper = made("elman", 64, 64, {}, seed=5)
    rng = np.random.default_rng(0)
    head = rng.normal(size=(2, 64)).astype(np.float32), np.zeros(2, np.float32)
    ids_TB, reset_TB = rng.integers(0, 4, (20_000, 1)), rng.random((20_000, 1)) < 0.01
    network = Network([layer, upper], rng.normal(size=(4, 3)).astype(np.float32), head, threads=1)
    outputs, state = network.feed(ids_TB, network.initial_state(1), wanted, reset_TB)
    pieces, after = [], network.initial_state(1)
    for start in range(0, 20_000, 5000):
        here = slice(start, start + 5000)
        found, after = network.feed(ids_TB[here], after, None, reset_TB[here])
        pieces.append(found)
    np.testing.assert_array_equal(outputs, np.concatenate(pieces)[20_000 - wanted :])
    np.testing.assert_array_equal(state, after)


@needs_kernels
def test_a_network_without_a_layer_is_refused():
    network = engine.network(0)
    network.embed(np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="without a layer"):
        network.feed_ids(np.zeros((1, 1), np.int64), None, (), 1, 1)
