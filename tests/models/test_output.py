"""Nats from hidden units: chunk by chunk what they are from all logits at once, forward and backward."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from throughtime.models import output
from throughtime.models.output import target_nats
from throughtime.streams.batch import NO_TARGET

HIDDEN = 5
UPSTREAM = {
    "sum": lambda nats_N, _: nats_N.sum(),
    "mean": lambda nats_N, _: nats_N.mean(),
    "mean of the targets": lambda nats_N, targets_N: nats_N[targets_N != NO_TARGET].mean(),
    "weighted": lambda nats_N, _: nats_N @ torch.linspace(-1, 2, len(nats_N), dtype=nats_N.dtype),
    "one token": lambda nats_N, _: nats_N[-1],
}
every_upstream = pytest.mark.parametrize("loss", UPSTREAM.values(), ids=UPSTREAM)


@pytest.fixture(autouse=True)
def _poison():
    """Fills what was asked for empty with NaN, and refuses operations whose result may differ from run to run."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def plain(hidden_NH, weight_VH, bias_V, targets_N):
    return cross_entropy(linear(hidden_NH, weight_VH, bias_V), targets_N, ignore_index=NO_TARGET, reduction="none")


def draw(tokens=7, vocabulary=11, dtype=torch.float64, needed=(True, True, True)):
    """hidden_NH, weight_VH, bias_V and targets_N, every third of which is none (but the last)."""
    generator = torch.Generator().manual_seed(tokens + vocabulary)
    shapes = ((tokens, HIDDEN), (vocabulary, HIDDEN), (vocabulary,))
    arrays = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    targets_N = torch.randint(vocabulary, (tokens,), generator=generator)
    targets_N[:-1:3] = NO_TARGET
    return *(array.requires_grad_(need) for array, need in zip(arrays, needed, strict=True)), targets_N


def gradients(arrays):
    return [array.grad for array in arrays]


def in_chunks(monkeypatch, vocabulary=11, rows=2):
    """From here on, chunks of at most so many rows, and at least one."""
    monkeypatch.setattr(output, "LOGITS_AT_ONCE", vocabulary * (rows + 1) - 1)


@every_upstream
@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("vocabulary", [3, 257])
@pytest.mark.parametrize("tokens", [1, 7, 63])
def test_chunks_change_neither_nats_nor_gradients(tokens, vocabulary, rows, loss, monkeypatch):
    in_chunks(monkeypatch, vocabulary, rows)
    for dtype in (torch.float64, torch.float32):
        ours, theirs = draw(tokens, vocabulary, dtype), draw(tokens, vocabulary, dtype)
        chunked_N, whole_N = target_nats(*ours), plain(*theirs)
        torch.testing.assert_close(chunked_N, whole_N)
        loss(chunked_N, ours[-1]).backward()
        loss(whole_N, theirs[-1]).backward()
        torch.testing.assert_close(gradients(ours), gradients(theirs))


@pytest.mark.parametrize("needed", list(itertools.product([True, False], repeat=3)))
@every_upstream
def test_only_what_needs_a_gradient_gets_one(needed, loss, monkeypatch):
    in_chunks(monkeypatch)
    ours, theirs = draw(needed=needed), draw(needed=needed)
    nats_N = target_nats(*ours)
    assert nats_N.requires_grad == any(needed)
    if any(needed):
        loss(nats_N, ours[-1]).backward()
        loss(plain(*theirs), theirs[-1]).backward()
    torch.testing.assert_close(gradients(ours), gradients(theirs))


@every_upstream
def test_without_a_target_there_are_no_nats_and_no_gradient(loss, monkeypatch):
    in_chunks(monkeypatch)
    hidden_NH, weight_VH, bias_V, targets_N = arrays = draw()
    nats_N = target_nats(*arrays)
    none_N = targets_N == NO_TARGET
    assert none_N.sum() == 2
    assert not nats_N[none_N].any()
    loss(nats_N, targets_N).backward()
    assert not hidden_NH.grad[none_N].any()

    arrays = (hidden_NH, weight_VH, bias_V, torch.full_like(targets_N, NO_TARGET))
    hidden_NH.grad = weight_VH.grad = bias_V.grad = None
    nats_N = target_nats(*arrays)
    nats_N.sum().backward()
    assert not any(array.any() for array in (nats_N, hidden_NH.grad, weight_VH.grad, bias_V.grad))


@every_upstream
def test_a_retained_graph_gives_its_gradients_again(loss, monkeypatch):
    in_chunks(monkeypatch)
    ours, theirs = draw(), draw()
    for arrays, nats in ((ours, target_nats), (theirs, plain)):
        nats_N = nats(*arrays)
        for again in (loss, loss, UPSTREAM["weighted"], UPSTREAM["mean"]):
            again(nats_N, arrays[-1]).backward(retain_graph=True)
    torch.testing.assert_close(gradients(ours), gradients(theirs))


@every_upstream
def test_a_second_derivative_is_refused(loss, monkeypatch):
    """A gradient without a graph would pass for a constant, and what depends on it would be wrong without a word."""
    in_chunks(monkeypatch)
    hidden_NH, *others = draw()
    total = loss(target_nats(hidden_NH, *others), others[-1])
    with pytest.raises(RuntimeError, match="cannot be differentiated again; read fewer tokens"):
        torch.autograd.grad(total, hidden_NH, create_graph=True)


def test_without_gradient_nothing_but_nats_is_made(monkeypatch):
    in_chunks(monkeypatch)
    arrays = draw()
    monkeypatch.setattr(torch.Tensor, "exp_", None)  # only a gradient needs p
    with torch.no_grad():
        nats_N = target_nats(*arrays)
    assert not nats_N.requires_grad
    torch.testing.assert_close(nats_N, plain(*arrays).detach())


@pytest.mark.parametrize(("loss", "sweeps"), list(zip(UPSTREAM.values(), [1, 1, 1, 2, 2], strict=True)), ids=UPSTREAM)
def test_a_sum_or_a_mean_makes_the_logits_once(loss, sweeps, monkeypatch):
    in_chunks(monkeypatch)
    made, sweep = [], output._sweep
    monkeypatch.setattr(output, "_sweep", lambda *arrays: made.append(1) or sweep(*arrays))
    arrays = draw()
    loss(target_nats(*arrays), arrays[-1]).backward()
    assert len(made) == sweeps


def test_logits_far_from_zero_stay_finite(monkeypatch):
    in_chunks(monkeypatch)
    ours, theirs = draw(dtype=torch.float32), draw(dtype=torch.float32)
    for arrays, nats in ((ours, target_nats), (theirs, plain)):
        with torch.no_grad():
            arrays[2][::2] += 1e4
        nats_N = nats(*arrays)
        assert nats_N.isfinite().all()
        nats_N.sum().backward()
    torch.testing.assert_close(gradients(ours), gradients(theirs))


LEARN = """
import sys
import torch
from throughtime.models import output
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model

def resident(which):
    (line,) = (line for line in open("/proc/self/status") if line.startswith(which))
    return 1024 * int(line.split()[1])

output.LOGITS_AT_ONCE = int(sys.argv[1])
torch.set_num_threads(1)
model = LanguageModel(Model(hidden_size=8), int(sys.argv[2]))
ids_TB = torch.zeros(64, 32, dtype=torch.long)
before = resident("VmRSS")
model.nats(ids_TB, ids_TB)[0].mean().backward()
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the largest resident memory from /proc")
def test_a_step_of_training_never_holds_all_logits():
    vocabulary = 20_011
    logits_bytes = 4 * 64 * 32 * vocabulary
    grown = [
        int(subprocess.run([sys.executable, "-c", LEARN, *map(str, arguments)], check=True, capture_output=True).stdout)
        for arguments in ((1 << 22, vocabulary), (1 << 40, vocabulary))
    ]
    assert grown[0] < logits_bytes / 2, "a tenth of the logits, and what a step needs anyway"
    assert grown[1] > logits_bytes, "the plain form holds them, and this test would see it"
