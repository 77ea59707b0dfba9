"""Four truncations: each is held against the gradient of the whole past."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helpers import ArrayTokens
from throughtime.cells.state import leaves
from throughtime.gradient import whole
from throughtime.gradient.settings import Gradient
from throughtime.gradient.truncation import Position, make_truncation
from throughtime.models.base import to_tensors
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model
from throughtime.recipe import build
from throughtime.streams.batches import BatchIndex, SequentialBatches

VOCABULARY, LANES, WINDOW, WINDOWS = 5, 2, 6, 8
DRAWS = 400


def network(seed=0, **settings):
    return LanguageModel(
        Model(**{"cell": "elman", "hidden_size": 8, **settings}), VOCABULARY, torch.Generator().manual_seed(seed)
    )


def text(lengths=None, documents=(), seed=3, own=None):
    """An epoch of WINDOWS windows, the same text at every seed of what is drawn."""
    count = LANES * WINDOWS * WINDOW + WINDOW
    tokens = ArrayTokens(np.random.default_rng(0).integers(VOCABULARY, size=count), documents)
    return SequentialBatches(tokens, LANES, WINDOW, seed, own, lengths)


def epoch(model, source, gradient, seed=0, noise=None):
    """The gradient of an epoch: what its updates add up to, each with its share of the rate, at the same weights."""
    way = make_truncation(gradient, WINDOW, seed)
    position = Position(BatchIndex(), model.initial_state(len(source.own)))
    total, positions = 0.0, []
    while position.at.epoch == 0:
        model.zero_grad()
        update = way.update(model, source, position, noise)
        share = update.targets / (LANES * WINDOW) if gradient.truncation == "none" else update.rate
        total = total + share * torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        position = update.position
        positions.append(position)
        assert not any(array.requires_grad for array in leaves(position.state))
    return total, positions


def exact(model, source, noise=None):
    """Plain autograd over the whole epoch, unrolled."""
    model.zero_grad()
    state, nats = model.initial_state(LANES), 0.0
    for index in range(source.batches_in(0)):
        batch = source[BatchIndex(0, index)]
        losses, state = model.losses(to_tensors(batch), state, None, noise)
        nats = nats + losses.terms.sum()
    (nats / (LANES * WINDOW)).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def close(found, wanted):
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


MODELS = [
    {},
    {"cell": "lstm", "layers": 2},
    {"cell": "gru", "dropout": 0.3, "weight_drop": 0.2, "recurrent_dropout": 0.2},
    {"cell": "mingru", "tied": True},
    {"cell": "layernorm-lstm", "engine": "reference"},
]
NAMES = ["elman", "deep", "dropped", "tied", "reference"]
every_model = pytest.mark.parametrize("settings", MODELS, ids=NAMES)


@every_model
@pytest.mark.parametrize("stride", [1, 3, WINDOWS])
def test_without_truncation_the_gradient_is_that_of_the_unrolled_epoch(settings, stride, monkeypatch):
    monkeypatch.setattr(whole, "_windows_at_once", lambda *_: stride)
    model, source = network(**settings), text(documents=(20, 55))
    noises = [torch.Generator().manual_seed(4) for _ in range(2)]
    found, positions = epoch(model, source, Gradient(truncation="none"), noise=noises[0])
    close(found, exact(model, source, noises[1]))
    assert torch.equal(noises[0].get_state(), noises[1].get_state()), "a second pass draws nothing more"
    assert positions[-1].at == BatchIndex(1, 0)


def test_memory_decides_how_many_windows_are_run_at_once(monkeypatch):
    monkeypatch.setattr(whole, "MEGABYTE", 1000)
    model, source = network(hidden_size=16), text()
    asked, back = [], whole._back
    monkeypatch.setattr(whole, "_back", lambda *given: asked.append(len(given[2])) or back(*given))
    wanted = exact(model, source)
    for memory, together in ((1000, [8]), (12, [2, 3, 3])):
        asked.clear()
        close(epoch(model, source, Gradient(truncation="none", memory=memory))[0], wanted)
        assert asked == together
    with pytest.raises(whole.ThroughtimeError, match=r"gradient.memory is 1 MB, and a window .* takes \d+ MB; raise"):
        epoch(model, source, Gradient(truncation="none", memory=1))


@every_model
def test_a_reach_over_the_whole_epoch_is_no_truncation(settings):
    if "dropout" in settings:
        pytest.skip("windows that are read again draw other masks")
    model, source = network(**settings), text(documents=(20, 55))
    found, positions = epoch(model, source, Gradient(reach=WINDOW * WINDOWS))
    close(found, exact(model, source))
    assert [len(position.behind) for position in positions] == [*range(1, WINDOWS), 0]


@pytest.mark.parametrize("reach", [WINDOW, 9, 2 * WINDOW, 25])
def test_the_gradient_goes_back_as_many_tokens_as_the_reach(reach):
    """By autograd: the state that lies `reach` tokens before the end of each window is detached."""
    model, source = network(), text()
    position = Position(BatchIndex(), model.initial_state(LANES))
    way = make_truncation(Gradient(reach=reach), WINDOW, 0)
    stream = np.concatenate([source[BatchIndex(0, index)].inputs for index in range(WINDOWS)])
    for index in range(WINDOWS):
        model.zero_grad()
        position = way.update(model, source, position).position
        found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        end = (index + 1) * WINDOW
        cut = max(0, end - reach)
        model.zero_grad()
        with torch.no_grad():
            state = model.initial_state(LANES)
            if cut:
                _, state = model(torch.from_numpy(stream[:cut]), state)
        targets_TB = torch.from_numpy(source[BatchIndex(0, index)].targets)
        model.nats(torch.from_numpy(stream[cut:end]), targets_TB, state)[0].mean().backward()
        close(found, torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))


def estimates(model, gradient):
    """The gradient of an epoch by many draws of a truncation, each as a share of the exact one along its direction."""
    found = []
    for seed in range(DRAWS):
        way = make_truncation(gradient, WINDOW, seed)
        lengths = None
        if way.lengths:
            own = np.random.default_rng(seed)
            lengths = lambda _, tokens: way.lengths(own, tokens)  # noqa: B023, E731
        found.append(epoch(model, text(lengths), gradient, seed)[0])
    return torch.stack(found)


REWEIGHTED = {
    "geometric": Gradient(truncation="variable", lengths="geometric"),
    "random": Gradient(truncation="random"),
    "rare": Gradient(truncation="random", cut=0.05),
}


@pytest.fixture(scope="module")
def remembering():
    """A network whose gradient goes far back: its state turns, and hardly shrinks."""
    model = network(seed=1)
    with torch.no_grad():
        model.embedding *= 0.2
        model.W_o *= 4
    return model, exact(model, text())


@pytest.mark.parametrize("name", REWEIGHTED)
def test_reweighted_truncation_is_right_on_average(remembering, name, record_property):
    model, wanted = remembering
    found = estimates(model, REWEIGHTED[name])
    along = found @ wanted / wanted.square().sum()
    error = float(along.std()) / math.sqrt(DRAWS)
    record_property("mean along the exact gradient", f"{along.mean():.3f} ± {error:.3f}")
    record_property("variance", f"{float(found.var(0).sum() / wanted.square().sum()):.3f} of its square")
    assert error < 0.1, "a mean that says something"
    assert abs(along.mean() - 1) < 3 * error
    scores = (found.mean(0) - wanted) / (found.std(0) / math.sqrt(DRAWS)).clamp(min=1e-7)
    assert (scores.abs() < 3).double().mean() > 0.97, "each parameter's mean lies within its own interval"


@pytest.mark.parametrize(
    "gradient", [Gradient(), Gradient(truncation="variable", deviation=2.0)], ids=["fixed", "normal"]
)
def test_and_truncation_without_reweighting_is_not(remembering, gradient):
    model, wanted = remembering
    along = epoch(model, text(), gradient)[0] @ wanted / wanted.square().sum()
    assert abs(along - 1) > 0.3


def test_windows_are_kept_until_every_lane_has_been_cut():
    model, source = network(), text()
    way = make_truncation(Gradient(truncation="random", cut=0.1), WINDOW, 0)
    position, let_go = Position(BatchIndex(), model.initial_state(LANES)), set()
    for index in range(WINDOWS - 1):
        position = way.update(model, source, position).position
        kept = position.behind
        assert [behind.at.batch for behind in kept] == list(range(index + 1 - len(kept), index + 1))
        through_B = [
            torch.stack([(b.gradient_scale_TB != 0).all(0) for b in kept[start:]]).all(0) for start in range(len(kept))
        ]
        assert all(passing_B.any() for passing_B in through_B[1:]), "nothing is kept for longer"
        let_go |= {len(kept) < index + 1}
    assert let_go == {True, False}
    assert way.update(model, source, position).position.behind == (), "an epoch begins with no past"


@pytest.mark.parametrize("name", ["fixed", "reach", "none", *REWEIGHTED])
def test_lanes_that_others_read_add_up_to_the_whole(name):
    gradient = {**REWEIGHTED, "fixed": Gradient(), "reach": Gradient(reach=15), "none": Gradient(truncation="none")}[
        name
    ]
    model, whole_text = network(cell="gru"), text(documents=(20, 55))
    parts = [text(documents=(20, 55), own=range(lane, lane + 1)) for lane in range(LANES)]
    found = [epoch(model, part, gradient)[0] for part in parts]
    close(sum(found), epoch(model, whole_text, gradient)[0])


def test_cuts_follow_their_schedule():
    model, source = network(), text()
    way = make_truncation(Gradient(truncation="random", cut=0.01, cut_end=0.9), WINDOW, 0)
    position = Position(BatchIndex(), model.initial_state(LANES))
    early, late = (way.update(model, source, position, progress=progress).position for progress in (0.0, 1.0))
    early, late = ((p.behind[0].gradient_scale_TB == 0).double().mean() for p in (early, late))
    assert early <= 0.1
    assert late > 0.6


def test_lengths_are_drawn_around_the_window():
    tokens = 200_000
    normal, geometric = (
        make_truncation(Gradient(truncation="variable", lengths=lengths, halved=0.25), 40, 0).lengths(
            np.random.default_rng(0), tokens
        )
        for lengths in ("normal", "geometric")
    )
    assert normal.sum() == geometric.sum() == tokens
    assert min(normal) >= 1 <= min(geometric)
    assert normal.mean() == pytest.approx(0.75 * 40 + 0.25 * 20, rel=0.02)
    assert (np.abs(normal - 20) < 10).mean() == pytest.approx(0.25, abs=0.03)
    assert geometric.mean() == pytest.approx(40, rel=0.05)
    assert geometric.std() == pytest.approx(40, rel=0.1)


def test_windows_of_drawn_lengths_leave_nothing_out():
    way = make_truncation(Gradient(truncation="variable", deviation=3.0), WINDOW, 0)
    source = text(way.lengths)
    even = text()
    read = [np.concatenate([p[BatchIndex(0, i)].inputs for i in range(p.batches_in(0))]) for p in (source, even)]
    assert np.array_equal(*read)
    assert {len(source[BatchIndex(0, index)].inputs) for index in range(source.batches_in(0))} - {WINDOW}
    assert way.updates(source, 2.5) == sum(source.batches_in(e) for e in (0, 1)) + round(source.batches_in(2) / 2)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"gradient": {"reach": 5}}, r"gradient.reach must be 0 or at least streams.window \(64\), got 5"),
        ({"gradient": {"reach": 99}, "streams": {"partition": "random"}}, "gradient.reach needs streams.partition"),
        ({"gradient": {"truncation": "none"}, "streams": {"partition": "random"}}, "'none' needs .* 'sequential'"),
        ({"gradient": {"truncation": "random", "cut_end": 0.0}}, "cut_end must be above 0"),
        ({"gradient": {"truncation": "random"}, "streams": {"window": 1}}, "gradient.cut must be given"),
        ({"gradient": {"truncation": "variable", "lengths": "geometric"}, "streams": {"window": 1}}, "at least 2"),
    ],
)
def test_settings_that_do_not_go_together_are_named(tree, message):
    with pytest.raises(ValueError, match=message):
        build(tree)


def test_the_memory_of_a_window_is_the_same_whatever_memory_was_used_before():
    model, source = network(hidden_size=16, layers=2), text()
    state = model.initial_state(LANES)
    found = set()
    for size in range(1, 6):
        used = [torch.zeros(500 * size) for _ in range(20)]
        del used[::2]
        found.add(whole._kept_bytes(model, source, BatchIndex(), state, None))
    assert len(found) == 1
