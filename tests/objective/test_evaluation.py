"""A text's figure is one number, whatever the lanes; and it is that of a plain loop over its tokens."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import matrix_memory
from helpers import ArrayTokens
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model
from throughtime.objective import evaluation
from throughtime.objective.evaluation import total_nats
from throughtime.text.dataset import prepare
from throughtime.text.settings import Text
from throughtime.training.predictor import TorchPredictor

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


def ids_of(folder, length):
    """A text on disk, in characters."""
    letters = np.random.default_rng(length).integers(V - 1, size=length).astype(np.uint8) + ord("a")
    (folder / f"{length}.txt").write_bytes(letters.tobytes())
    settings = Text(sources=[str(folder / f"{length}.txt")], split=(1.0, 0.0, 0.0))
    return prepare(settings).train


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
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm", matrix_memory.NAME])
def test_the_figure_does_not_depend_on_the_lanes(cell, lanes, monkeypatch):
    monkeypatch.setattr(evaluation, "WINDOW", 16)
    model, text = model_of(cell, layers=2), text_of(700, (0, 90, 91, 500))
    nats, tokens = total_nats(TorchPredictor(model), text, lanes)
    assert tokens == 699
    assert nats == pytest.approx(plain_loop(model, text).sum(), rel=1e-6)


class Counted:
    """A predictor that counts the tokens that pass through it."""

    def __init__(self, model):
        self._model, self.tokens, self.lanes = TorchPredictor(model), 0, []

    @property
    def state_tolerance(self):
        return self._model.state_tolerance

    def initial_state(self, batch_size):
        return self._model.initial_state(batch_size)

    def losses(self, batch, state):
        self.tokens += batch.inputs.size
        self.lanes.append(batch.inputs.shape[1])
        return self._model.losses(batch, state)

    def advance(self, batch, state):
        self.tokens += batch.inputs.size
        return self._model.advance(batch, state)


@pytest.mark.parametrize("kept", [1 << 26, 4000])
def test_states_of_any_shape_meet_as_states_of_units_do(kept, monkeypatch):
    """A memory that decays by 0.88 a step is read little more than once, on all lanes."""
    monkeypatch.setattr(evaluation, "WINDOW", 32)
    monkeypatch.setattr(evaluation, "STATES_KEPT_BYTES", kept)
    model, text = model_of(matrix_memory.NAME), text_of(4001, (0, 90, 3000))
    counted = Counted(model)
    assert total_nats(counted, text, 8)[0] == pytest.approx(plain_loop(model, text).sum(), rel=1e-6)
    assert counted.lanes[0] == 8
    assert 1 not in counted.lanes
    if kept > 4000:
        assert counted.tokens < 4000 * 1.5


def latched():
    """A cell that sums up all it has read and forgets nothing."""
    return model_of("lstm", forget_bias=40.0)


def chaotic():
    """A network whose states move apart however close they begin."""
    return model_of("elman", gain=3.0)


@pytest.mark.parametrize("network", [latched, chaotic])
def test_a_network_that_never_forgets_is_read_by_one_lane(network, monkeypatch):
    monkeypatch.setattr(evaluation, "WINDOW", 8)
    model, text = network(), text_of(400)
    counted = Counted(model)
    assert total_nats(counted, text, 7)[0] == pytest.approx(plain_loop(model, text).sum(), rel=1e-6)
    assert counted.lanes[-1] == 1
    assert counted.tokens < 1.4 * 400  # the trial, and one pass


@pytest.mark.parametrize("kept", [1 << 26, 4000])
def test_lanes_that_do_not_meet_after_two_corrections_are_read_one_after_the_other(kept, monkeypatch):
    """Most lanes begin with a document, so that the trial is passed; the last three hang on one another."""
    monkeypatch.setattr(evaluation, "WINDOW", 8)
    monkeypatch.setattr(evaluation, "STATES_KEPT_BYTES", kept)
    model, text = latched(), text_of(400, [25 * lane for lane in range(13)])
    counted = Counted(model)
    assert total_nats(counted, text, 16)[0] == pytest.approx(plain_loop(model, text).sum(), rel=1e-6)
    assert counted.lanes[-1] == 1
    assert counted.tokens < 2.6 * 400


@pytest.mark.parametrize("gain", [0.3, 1.0])
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_a_network_that_forgets_is_read_little_more_than_once(cell, gain, monkeypatch):
    monkeypatch.setattr(evaluation, "WINDOW", 32)
    counted = Counted(model_of(cell, gain))
    total_nats(counted, text_of(8001), 8)
    assert counted.tokens < 8000 * 1.4
    assert counted.lanes[0] == 8


def test_a_measure_says_how_the_text_was_read(tmp_path):
    ids = ids_of(tmp_path, 5000)
    assert evaluation.evaluate(TorchPredictor(model_of("lstm")), ids).reading == "4 lanes"
    assert evaluation.evaluate(TorchPredictor(latched()), ids).reading == "one lane"
    assert evaluation.evaluate(TorchPredictor(model_of("lstm")), ids, 1).reading == "one lane"


def test_memory_does_not_grow_with_the_text(monkeypatch):
    monkeypatch.setattr(evaluation, "WINDOW", 4)
    monkeypatch.setattr(evaluation, "STATES_KEPT_BYTES", 1 << 14)
    model, peaks = TorchPredictor(model_of("lstm")), []
    for length in (2000, 8000):
        text = text_of(length)
        total_nats(model, text, 8)
        tracemalloc.start()
        total_nats(model, text, 8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 8 * 8 * (8000 - 2000) // 8 // 4 + 30_000  # the nats of every window and lane


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_an_estimate_is_close_to_the_exact_figure_and_costs_one_pass_whatever_the_network(cell, tmp_path):
    ids = ids_of(tmp_path, 20_000)
    model = model_of(cell)
    counted = Counted(model)
    estimated, exact = evaluation.estimate(counted, ids), evaluation.evaluate(TorchPredictor(model), ids)
    assert (estimated.tokens, estimated.bytes) == (exact.tokens, exact.bytes)
    assert estimated.nats_per_token == pytest.approx(exact.nats_per_token, rel=1e-5)
    assert counted.tokens <= evaluation.tokens_of_estimate(ids) + 2 * 19  # the last lane may be shorter
    for network in (latched, chaotic):
        counted = Counted(network())
        evaluation.estimate(counted, ids)
        assert counted.tokens < 1.2 * 20_000


def test_an_estimate_of_a_short_text_is_exact(tmp_path):
    ids, model = ids_of(tmp_path, 1500), TorchPredictor(latched())
    assert evaluation.is_exact(ids)
    assert evaluation.estimate(model, ids).nats == evaluation.evaluate(model, ids).nats


def test_an_estimate_from_a_share_of_the_text_stands_for_all_of_it(tmp_path):
    ids, model = ids_of(tmp_path, 40_000), model_of("gru")
    counted = Counted(model)
    estimated = evaluation.estimate(counted, ids, 10_000)
    exact = evaluation.evaluate(TorchPredictor(model), ids)
    assert counted.tokens <= 10_000 + 39 * evaluation.WARM_UP
    assert (estimated.tokens, estimated.bytes) == (exact.tokens, exact.bytes)
    assert estimated.bits_per_byte == pytest.approx(exact.bits_per_byte, rel=0.02)


def test_a_model_that_gives_nan_ends_too(tmp_path):
    model = model_of("gru")
    with torch.no_grad():
        model.b_o.fill_(math.nan)
        model.stack.cells[0].W.fill_(math.nan)
    ids = ids_of(tmp_path, 5000)
    assert math.isnan(evaluation.evaluate(TorchPredictor(model), ids).nats)
    assert math.isnan(evaluation.estimate(TorchPredictor(model), ids).nats)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 9])
def test_short_texts(length):
    model, text = model_of("gru"), text_of(length)
    nats, tokens = total_nats(TorchPredictor(model), text, 64)
    assert tokens == max(0, length - 1)
    assert nats == pytest.approx(plain_loop(model, text).sum())
