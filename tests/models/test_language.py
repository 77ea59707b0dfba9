"""The language model: its probabilities, its state, its loss."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from throughtime.cells.state import to_arrays
from throughtime.models import language, output
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model
from throughtime.streams.batch import NO_TARGET, Batch

SETTINGS = [
    Model(hidden_size=7),
    Model(hidden_size=7, layers=2, cell="gru", dropout=0.5, weight_drop=0.5, recurrent_dropout=0.5),
    Model(hidden_size=7, tied=True, cell="elman"),
    Model(hidden_size=7, embedding_size=4),
]
every_model = pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "deep", "tied", "narrow embedding"])


def build(settings, seed=0):
    return LanguageModel(settings, 11, torch.Generator().manual_seed(seed)).double().eval()


def draw(steps=6, lanes=3):
    generator = torch.Generator().manual_seed(1)
    ids_TB, targets_TB = (torch.randint(11, (steps, lanes), generator=generator) for _ in range(2))
    return ids_TB, targets_TB


@every_model
def test_a_sequence_is_a_loop_of_steps(settings):
    model = build(settings)
    ids_TB, _ = draw()
    logits_TBV, after = model(ids_TB)
    state = model.initial_state(3)
    for ids_B, logits_BV in zip(ids_TB, logits_TBV, strict=True):
        stepped, state = model.step(ids_B, state)
        torch.testing.assert_close(stepped, logits_BV)
    for name, array in to_arrays(after).items():
        torch.testing.assert_close(to_arrays(state)[name], array)


@every_model
def test_a_split_changes_nothing(settings):
    model = build(settings)
    ids_TB, targets_TB = draw()
    whole, _ = model.nats(ids_TB, targets_TB)
    first, between = model.nats(ids_TB[:2], targets_TB[:2])
    second, _ = model.nats(ids_TB[2:], targets_TB[2:], between)
    torch.testing.assert_close(torch.cat([first, second]), whole)


@every_model
def test_padding_is_neither_read_nor_predicted(settings):
    model = build(settings)
    ids_TB, targets_TB = draw()
    lengths_B = torch.tensor([6, 2, 0])
    padded = torch.arange(6)[:, None] >= lengths_B
    batch = Batch(ids_TB.masked_fill(padded, 10**9), targets_TB.masked_fill(padded, -5), None, 8, lengths_B)
    losses, after = model.losses(batch)
    nats_TB = losses.terms
    assert not nats_TB[padded].any()
    logits_TBV, _ = model.outputs(batch)
    advanced = model.advance(batch)
    for lane, length in enumerate(lengths_B.tolist()):
        alone, state = model.nats(ids_TB[:length, lane, None], targets_TB[:length, lane, None])
        torch.testing.assert_close(nats_TB[:length, lane], alone[:, 0])
        torch.testing.assert_close(logits_TBV[:length, lane], model(ids_TB[:length, lane, None])[0][:, 0])
        for name, array in to_arrays(state).items():
            torch.testing.assert_close(to_arrays(after)[name][lane], array[0])
            torch.testing.assert_close(to_arrays(advanced)[name][lane], array[0])


@every_model
def test_nats_are_the_cross_entropy_and_leave_out_what_has_no_target(settings):
    model = build(settings)
    ids_TB, targets_TB = draw()
    targets_TB[4:, 2] = NO_TARGET
    nats_TB, _ = model.nats(ids_TB, targets_TB)
    logits_TBV, _ = model(ids_TB)
    naive = -logits_TBV.log_softmax(2).gather(2, targets_TB.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(nats_TB, torch.where(targets_TB == NO_TARGET, 0.0, naive))
    assert nats_TB[4:, 2].tolist() == [0.0, 0.0]


@every_model
def test_chunks_of_logits_change_nothing(settings, monkeypatch):
    model = build(settings)
    ids_TB, targets_TB = draw()

    def learn():
        model.zero_grad()
        nats_TB, _ = model.nats(ids_TB, targets_TB)
        nats_TB.mean().backward()
        return nats_TB, {name: parameter.grad for name, parameter in model.named_parameters()}

    whole = learn()
    monkeypatch.setattr(output, "LOGITS_AT_ONCE", 11 * 4)
    torch.testing.assert_close(learn(), whole)
    with torch.no_grad():
        torch.testing.assert_close(model.nats(ids_TB, targets_TB)[0], whole[0])


def test_tied_weights_are_one_array_and_learn_from_both_ends():
    model = build(Model(hidden_size=7, tied=True))
    names = set(dict(model.named_parameters()))
    assert "W_o" not in names
    ids_TB = torch.zeros(2, 1, dtype=torch.long)
    loss = cross_entropy(model(ids_TB)[0].flatten(0, 1), ids_TB.flatten())
    loss.backward()
    assert model.embedding.grad[1].abs().sum() > 0, "a token that is never read still learns as an output"


@pytest.mark.parametrize("setting", ["dropout", "weight_drop", "recurrent_dropout"])
def test_dropout_needs_noise_and_repeats_with_its_seed(setting):
    model = build(Model(hidden_size=7, layers=2, **{setting: 0.5}))
    ids_TB, _ = draw()
    assert torch.equal(model(ids_TB)[0], model(ids_TB)[0])
    one, same, other = (model(ids_TB, noise=torch.Generator().manual_seed(s))[0] for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_dropout_keeps_the_mean():
    ones = torch.ones(1000, 100)
    dropped = language.drop(ones, 0.3, torch.Generator().manual_seed(0))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)


@every_model
def test_an_untrained_model_knows_nothing(settings):
    """A uniform guess costs log V; a start far from it wastes the first steps."""
    ids_TB, targets_TB = draw(50, 8)
    nats_TB, _ = build(settings).nats(ids_TB, targets_TB)
    assert nats_TB.mean().item() == pytest.approx(2.398, abs=0.35)
