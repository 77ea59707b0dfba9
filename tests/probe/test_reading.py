"""A text that is read in stretches side by side, against a plain loop over its tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from throughtime.cells.state import leaves, select_rows
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model
from throughtime.probe.connectivity import connectivity
from throughtime.probe.reading import read

TOKENS = 11


def model_of(cell: str, layers: int = 1, **values) -> LanguageModel:
    settings = Model(cell=cell, hidden_size=5, embedding_size=values.pop("embedding_size", 3), layers=layers, **values)
    return LanguageModel(settings, TOKENS, torch.Generator().manual_seed(3)).requires_grad_(False).double()


def text_of(length: int, *documents: int):
    fresh = np.zeros(length, np.bool_)
    fresh[list(documents)] = True
    return np.random.default_rng(5).integers(0, TOKENS, length), fresh


@pytest.mark.parametrize(("cell", "layers"), [("elman", 1), ("gru", 2), ("lstm", 1), ("lstm", 3), ("minlstm", 2)])
@pytest.mark.parametrize("length", [1, 2, 37])
def test_reading_is_a_loop_over_the_tokens(cell, layers, length):
    model = model_of(cell, layers)
    ids, fresh = text_of(length, 0, *range(19, length, 40))
    found = read(model, ids, fresh, guesses=4)
    state = model.initial_state(1)
    for t in range(length):
        if t:
            log_p_V = torch.log_softmax(model.logits(outputs[-1]), 1)[0]  # noqa: F821
            assert found.nats_T[t] == pytest.approx(-float(log_p_V[ids[t]]))
            assert found.guesses_TK[t].tolist() == log_p_V.argsort(descending=True)[:4].tolist()
            assert found.chances_TK[t] == pytest.approx(log_p_V.exp().sort(descending=True).values[:4], rel=1e-5)
        if fresh[t]:
            state = model.initial_state(1)
        y, outputs, states = model.embedded(torch.tensor(ids[t : t + 1])), [], []
        for layer, before in zip(model.stack.layers(), state, strict=True):
            y, after = layer.step(y, before)
            outputs.append(y)
            states.append(after)
        state = tuple(states)
        for array, wanted in zip(leaves(select_rows(found.states, torch.tensor([t]))), leaves(state), strict=True):
            torch.testing.assert_close(array, wanted)
        for level, output in enumerate(outputs, 1):
            track = next(track for track in found.tracks if (track.layer, track.name) == (level, "output"))
            assert track.values_TH[t] == pytest.approx(output[0], rel=1e-5)
    assert np.isnan(found.nats_T[0])
    assert np.isnan(found.chances_TK[0]).all()


def test_what_a_state_holds_beside_the_output_is_a_track():
    ids, fresh = text_of(9)
    assert [track[:2] for track in read(model_of("gru", 2), ids, fresh).tracks] == [(1, "output"), (2, "output")]
    tracks = read(model_of("lstm", 2), ids, fresh).tracks
    assert [track[:2] for track in tracks] == [(1, "output"), (1, "cell"), (2, "output"), (2, "cell")]


def test_there_are_no_more_guesses_than_tokens():
    ids, fresh = text_of(9)
    assert read(model_of("gru"), ids, fresh, guesses=50).guesses_TK.shape == (9, TOKENS)


@pytest.mark.parametrize(
    ("cell", "values"), [("lstm", {}), ("gru", {"layers": 2}), ("elman", {"tied": True, "embedding_size": 0})]
)
def test_connectivity_is_the_gradient_of_the_whole_text(cell, values):
    """Also at the beginning, where fewer tokens precede than there are lags, and across a document's beginning."""
    model, lags = model_of(cell, **values), 6
    ids, fresh = text_of(23, 13)
    reading = read(model, ids, fresh)
    places = np.arange(1, 23)
    found_NK = connectivity(model, reading, places, lags)
    x_TBD = model.embedded(torch.from_numpy(ids)[:, None]).detach().requires_grad_()
    hidden_TBH, _ = model.stack(x_TBD, None, torch.from_numpy(fresh)[:, None])
    log_p_TV = torch.log_softmax(model.logits(hidden_TBH[:, 0]), 1)
    for row, t in enumerate(places):
        (slope_TBD,) = torch.autograd.grad(-log_p_TV[t - 1, ids[t]], x_TBD, retain_graph=True)
        norms_T = slope_TBD.norm(dim=2)[:, 0]
        wanted = [float(norms_T[t - k]) if t >= k else 0.0 for k in range(1, lags + 1)]
        assert found_NK[row] == pytest.approx(wanted, rel=1e-5, abs=1e-12)
    assert found_NK[14, 0] > 0
    assert not found_NK[14, 2:].any(), "nothing passes the beginning of a document"


def test_connectivity_of_more_places_than_lanes(monkeypatch):
    model = model_of("gru")
    reading = read(model, *text_of(40))
    whole = connectivity(model, reading, np.arange(1, 40), 4)
    monkeypatch.setattr("throughtime.probe.connectivity.LANES", 7)
    assert connectivity(model, reading, np.arange(1, 40), 4) == pytest.approx(whole)
