"""Signs of life: held against plain autograd and eigenvalues; warnings where they belong."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import throughtime
from throughtime.cells.state import map_state
from throughtime.models.base import to_tensors
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model
from throughtime.streams.batch import Batch
from throughtime.training.display import Silence
from throughtime.training.signs import VANISHED, Signs, as_facts, gradient_norms, signs, warnings

STEPS, LANES, VOCABULARY = 7, 3, 11


def network(**settings):
    return LanguageModel(Model(hidden_size=9, **settings), VOCABULARY, torch.Generator().manual_seed(0))


def window():
    drawn = np.random.default_rng(0).integers(VOCABULARY, size=(STEPS + 1, LANES))
    return to_tensors(Batch(drawn[:-1], drawn[1:], np.zeros((STEPS, LANES), np.bool_), STEPS * LANES))


@pytest.mark.parametrize("cell", throughtime.cells.names())
def test_signs_are_what_autograd_and_eigenvalues_say(cell):
    model, read = network(cell=cell, layers=2), window()
    state = map_state(lambda array: array + 0.1, model.initial_state(LANES))
    nats_TB, _ = model.nats(read.inputs, read.targets, state)
    nats_TB.mean().backward()
    found = signs(model, read, state, gradient_norms(model))
    for level, layer in enumerate(model.stack.layers()):
        whole = torch.cat([parameter.grad.flatten() for parameter in layer.parameters()]).norm()
        assert found[level].gradient_norm == pytest.approx(float(whole), rel=1e-5)
        if layer.recurrent is None:
            assert found[level].spectral_radius is None
        else:
            blocks = layer.recurrent_weights().detach().unflatten(0, (-1, 9))
            radius = float(torch.linalg.eigvals(blocks).abs().max())
            assert found[level].spectral_radius == pytest.approx(radius, rel=0.05)
        assert 0 <= found[level].saturated <= 1
    for level in range(2):
        norms = []
        for start in (0, STEPS - 1):
            leaf = {}
            now = state
            for t, ids_B in enumerate(read.inputs):
                if t == start:
                    now = map_state(lambda array: array.detach().requires_grad_(), now)
                    leaf = now[level]
                logits_BV, now = model.step(ids_B, now)
            loss = -logits_BV.log_softmax(1)[torch.arange(LANES), read.targets[-1]].sum()
            gradients = torch.autograd.grad(loss, leaf, materialize_grads=True)
            norms.append(sum(gradient.square().sum(1) for gradient in gradients).sqrt().mean())
        assert found[level].comes_back == pytest.approx(float(norms[0] / norms[1]), rel=1e-3)


@pytest.mark.parametrize(("scale", "word"), [(1e-3, "vanishes"), (1.0, None), (30.0, "explodes")])
def test_a_warning_says_what_to_try(scale, word):
    model = network(cell="elman", cell_options={"activation": "relu"})
    with torch.no_grad():
        model.stack.layers()[0].recurrent_weights().mul_(scale)
        model.embedding.abs_()
    told = list(warnings(signs(model, window(), model.initial_state(LANES), [1.0]), STEPS))
    assert bool(told) == bool(word)
    if word:
        assert f"the gradient {word}: of layer 1" in told[0][1]
        assert "; try " in told[0][1]


def test_the_journal_keeps_them_and_a_warning_comes_once(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(Silence, "say", lambda _, line: lines.append(line))
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 30)
    tree = {
        "text": {"sources": [str(text)]},
        "streams": {"lanes": 2, "window": 40},
        "model": {"cell": "mingru", "hidden_size": 4},
        "training": {"steps": 12, "signs_every": 4, "sample_tokens": 0, "threads": 1},
    }
    folder = throughtime.train(tree, tmp_path / "run").folder
    entries = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    kept = [entry for entry in entries if entry["event"] == "signs"]
    assert [entry["step"] for entry in kept] == [4, 8, 12]
    assert all(set(layer) == set(Signs._fields) for entry in kept for layer in entry["layers"])
    assert min(layer["comes_back"] for entry in kept for layer in entry["layers"]) < VANISHED
    assert len([line for line in lines if "the gradient vanishes" in line]) == 1


def test_what_is_not_finite_is_null():
    assert as_facts([Signs(1.23456, math.nan, None, math.inf)]) == [
        {"gradient_norm": 1.235, "comes_back": None, "spectral_radius": None, "saturated": None}
    ]
