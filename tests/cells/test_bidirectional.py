"""Both directions: each is a cell over the lanes in its own order."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from throughtime import cells
from throughtime.cells import Bidirectional, Stack
from throughtime.cells.base import Embedded
from throughtime.cells.bidirectional import BidirectionalState
from throughtime.cells.lengths import Lengths
from throughtime.cells.state import leaves, map_state, select_rows
from throughtime.errors import SettingError, ThroughtimeError

T, LENGTHS_B = 6, torch.tensor([4, 6, 1, 0])
LANES = len(LENGTHS_B)
PADDING_TB = torch.arange(T)[:, None] >= LENGTHS_B
X_TBD = torch.randn(T, LANES, 3, generator=torch.Generator().manual_seed(1))
every_engine = pytest.mark.parametrize("engine", ["auto", "torch", "reference"])


def layer(name="gru", input_size=3, sizes=(4, 5), **options):
    generator = torch.Generator().manual_seed(2)
    return Bidirectional(*(cells.create(name, input_size, size, generator=generator, **options) for size in sizes))


def by_hand(both, x_TBD, state, lengths_B):
    """Each lane alone: cut to its length, turned by hand."""
    outputs, after = [], []
    for lane, length in enumerate(lengths_B.tolist()):
        x, begin = x_TBD[:length, [lane]], select_rows(state, torch.tensor([lane]))
        forward, last = both.forward_cell(x, begin.forward)
        reverse, first = both.reverse_cell(x.flip(0), begin.reverse)
        joined = torch.cat([forward, reverse.flip(0)], dim=2)
        outputs.append(torch.cat([joined, torch.zeros(len(x_TBD) - length, 1, both.hidden_size)]))
        after.append((last, first))
    return torch.cat(outputs, dim=1), map_state(lambda *rows: torch.cat(rows), *after)


def gradients(results, inputs, poison=False):
    arrays = [results[0], *leaves(results[1])]
    generator = torch.Generator().manual_seed(3)
    upstream = [torch.randn(array.shape, generator=generator) for array in arrays]
    if poison:
        upstream[0][PADDING_TB] = torch.nan
    return torch.autograd.grad(arrays, inputs, upstream)


@every_engine
@pytest.mark.parametrize("name", ["elman", "lstm"])
@pytest.mark.parametrize("lengths_B", [LENGTHS_B, None], ids=["unequal", "full"])
def test_each_direction_is_a_cell_over_the_lane_in_its_order(engine, name, lengths_B):
    both = layer(name, engine=engine)
    x_TBD = X_TBD.clone().requires_grad_()
    generator = torch.Generator().manual_seed(4)
    state = map_state(
        lambda array: torch.randn(array.shape, generator=generator).requires_grad_(), both.initial_state(LANES)
    )
    given = x_TBD if lengths_B is None else torch.where(PADDING_TB[..., None], torch.nan, x_TBD)
    found = both(given, state, lengths_B=lengths_B)
    expected = by_hand(both, x_TBD, state, torch.full((LANES,), T) if lengths_B is None else lengths_B)
    inputs = [x_TBD, *leaves(state), *both.parameters()]
    pairs = zip(
        [found[0], *leaves(found[1]), *gradients(found, inputs, poison=lengths_B is not None)],
        [expected[0], *leaves(expected[1]), *gradients(expected, inputs)],
        strict=True,
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_two_layers_are_pytorchs_over_a_packed_sequence():
    theirs = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    stack = Stack([layer("lstm", size, (4, 4)) for size in (3, 8)])
    with torch.no_grad():
        for level, both in enumerate(stack.cells):
            for suffix, cell in (("", both.forward_cell), ("_reverse", both.reverse_cell)):
                W, U, b, second = (
                    getattr(theirs, f"{name}_l{level}{suffix}")
                    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                )
                for ours, value in ((cell.W, W), (cell.U, U), (cell.b, b + second)):
                    ours.copy_(value)
    lengths_B = LENGTHS_B[:3]  # PyTorch packs no lane without a step
    packed, (hidden, carried) = theirs(pack_padded_sequence(X_TBD[:, :3], lengths_B, enforce_sorted=False))
    y_TBH, final = stack(X_TBD[:, :3], lengths_B=lengths_B)
    torch.testing.assert_close(y_TBH, pad_packed_sequence(packed)[0], rtol=1e-5, atol=1e-6)
    ends = [end for both in final for end in (both.forward, both.reverse)]
    torch.testing.assert_close(torch.stack([end.hidden_BH for end in ends]), hidden, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.stack([end.cell_BH for end in ends]), carried, rtol=1e-5, atol=1e-6)


@every_engine
def test_rows_of_a_table_are_read_in_both_orders(engine):
    both, rows_VD = layer(engine=engine), torch.randn(5, 3, generator=torch.Generator().manual_seed(5))
    ids_TB = torch.arange(T * LANES).view(T, LANES) % 5
    wild_TB = torch.where(PADDING_TB, 1 << 40, ids_TB)
    found, _ = both(Embedded(rows_VD, wild_TB), lengths_B=LENGTHS_B)
    torch.testing.assert_close(found, both(rows_VD[ids_TB], lengths_B=LENGTHS_B)[0])


def test_what_has_no_meaning_against_time_is_refused():
    both = layer()
    stack = Stack([both])
    for given in ({"reset_TB": torch.zeros(T, LANES, dtype=torch.bool)}, {"gradient_scale_TB": torch.ones(T, LANES)}):
        for module in (both, stack):
            with pytest.raises(
                ThroughtimeError, match=f"a Bidirectional layer takes no {next(iter(given))}, .*lengths_B"
            ):
                module(X_TBD, **given)
    for module in (both, stack):
        _, final = module(X_TBD)
        with pytest.raises(
            ThroughtimeError, match="final states of a Bidirectional layer cannot begin its next window"
        ):
            module(X_TBD, map_state(torch.Tensor.detach, final))
        with pytest.raises(ThroughtimeError, match="a Bidirectional layer has no step: it needs the whole sequence"):
            module.step(X_TBD[0], module.initial_state(LANES))
    with pytest.raises(
        ThroughtimeError, match="should be a BidirectionalState, one state for each direction, got a Tensor"
    ):
        both(X_TBD, torch.zeros(LANES, 4))
    assert torch.equal(both(X_TBD, BidirectionalState(None, None))[0], both(X_TBD, both.initial_state(LANES))[0])


def test_cells_that_are_no_pair_are_refused():
    gru = cells.create("gru", 3, 4)
    with pytest.raises(ThroughtimeError, match="their input_size must be equal, got 3 and 4"):
        Bidirectional(gru, cells.create("gru", 4, 4))
    with pytest.raises(ThroughtimeError, match=r"needs two cells of throughtime\.cells, got a Linear"):
        Bidirectional(gru, nn.Linear(3, 4))
    with pytest.raises(ThroughtimeError, match="a layer of input 4 cannot stand on 9 units"):
        Stack([layer(), cells.create("gru", 4, 4)])


def test_layers_of_both_directions_drop_like_any():
    stack = Stack([layer(), layer(input_size=9), cells.create("gru", 9, 4)], 0.3, 0.2, 0.4).eval()
    one, same, other = (
        stack(X_TBD, lengths_B=LENGTHS_B, noise=torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not one[PADDING_TB].any()
    with pytest.raises(SettingError, match="weight_drop and recurrent_dropout must be 0 for it"):
        Stack([layer("mingru")], recurrent_dropout=0.1)


def test_a_layer_of_both_directions_is_copied_and_pickled():
    both = layer()
    expected, _ = both(X_TBD, lengths_B=LENGTHS_B)
    for other in (copy.deepcopy(both), pickle.loads(pickle.dumps(both))):
        assert torch.equal(other(X_TBD, lengths_B=LENGTHS_B)[0], expected)
    assert str(both).startswith("Bidirectional(\n  input_size=3, hidden_size=9, engine=")


def test_the_gradient_of_turned_lanes_can_be_differentiated_again():
    both = layer(input_size=1, sizes=(1, 1), engine="reference").double()

    def outputs(x_TBD):
        return both(x_TBD, lengths_B=torch.tensor([2, 3]))[0]

    x_TBD = X_TBD[:3, :2, :1].double().requires_grad_()
    assert torch.autograd.gradgradcheck(outputs, (x_TBD,), nondet_tol=1e-12)


def test_lanes_are_turned_about_their_own_middle():
    turned = Lengths(LENGTHS_B, T).turned().view(T, LANES)
    assert (turned % LANES == torch.arange(LANES)).all()
    assert (turned // LANES).T.tolist() == [[3, 2, 1, 0, 4, 5], [5, 4, 3, 2, 1, 0], list(range(T)), list(range(T))]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("recorder", ["trace", "make_fx"])
def test_a_recorded_call_reads_other_lengths(recorder):
    stack = Stack([layer(), cells.create("lstm", 9, 4)])

    class Outputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.stack = stack

        def forward(self, x_TBD, lengths_B):
            return self.stack(x_TBD, lengths_B=lengths_B)[0]

    call, given = Outputs(), (X_TBD, LENGTHS_B)
    recorded = torch.jit.trace(call, given) if recorder == "trace" else make_fx(lambda *other: call(*other))(*given)
    other_TBD, other_B = X_TBD + 1, LENGTHS_B.flip(0)
    torch.testing.assert_close(recorded(other_TBD, other_B), call(other_TBD, other_B))
