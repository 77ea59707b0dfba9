"""A text's figure is one number, whatever the lanes; and it is that of a plain loop over its tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers import ArrayTokens
from throughtime.models.language import LanguageModel
from throughtime.objective import evaluation
from throughtime.objective.evaluation import total_nats
from throughtime.recipe import Model
from throughtime.training.evaluation import InTraining

V = 17


def model_of(cell, gain=1.0, layers=1, **options):
    settings = Model(cell=cell, hidden_size=12, layers=layers, cell_options=options)
    model = LanguageModel(settings, V, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("W_hh", "U")):
                parameter *= gain
    return model.double()


def text_of(length, documents=(0,)):
    return ArrayTokens(np.random.default_rng(length).integers(V, size=length), documents)


@torch.no_grad()
def plain_loop(model, text):
    """One token after the other, nothing clever."""
    bits, state = [], model.initial_state(1)
    for place in range(len(text) - 1):
        if place in text.documents:
            state = model.initial_state(1)
        logits_BV, state = model.step(torch.tensor(text.ids[place : place + 1]), state)
        bits.append(cross_entropy(logits_BV, torch.tensor(text.ids[place + 1 : place + 2])).item())
    return np.array(bits)


@pytest.mark.parametrize("lanes", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_the_figure_does_not_depend_on_the_lanes(cell, lanes, monkeypatch):
    monkeypatch.setattr(evaluation, "WINDOW", 16)
    model, text = model_of(cell, layers=2), text_of(700, (0, 90, 91, 500))
    nats, tokens = total_nats(InTraining(model), text, lanes)
    assert tokens == 699
    assert nats == pytest.approx(plain_loop(model, text).sum(), rel=1e-6)


@pytest.mark.parametrize("kept", [1 << 26, 4000])
def test_a_network_that_never_forgets_is_followed_to_the_end(kept, monkeypatch):
    """A cell that sums up all it has read: lanes never meet, and none is right before its predecessor is."""
    monkeypatch.setattr(evaluation, "WINDOW", 8)
    monkeypatch.setattr(evaluation, "STATES_KEPT_BYTES", kept)
    model, text = model_of("lstm", forget_bias=40.0), text_of(400)
    assert total_nats(InTraining(model), text, 7)[0] == pytest.approx(plain_loop(model, text).sum(), rel=1e-6)


def test_lanes_that_meet_are_not_run_twice(monkeypatch):
    monkeypatch.setattr(evaluation, "WINDOW", 32)
    model, text = model_of("lstm", gain=0.3), text_of(8001)
    hidden, read = LanguageModel._hidden, []
    monkeypatch.setattr(
        LanguageModel, "_hidden", lambda self, ids, *rest: read.append(ids.numel()) or hidden(self, ids, *rest)
    )
    total_nats(InTraining(model), text, 8)
    assert sum(read) < 8000 * 1.6


@pytest.mark.parametrize("length", [0, 1, 2, 3, 9])
def test_short_texts(length):
    model, text = model_of("gru"), text_of(length)
    nats, tokens = total_nats(InTraining(model), text, 64)
    assert tokens == max(0, length - 1)
    assert nats == pytest.approx(plain_loop(model, text).sum())
