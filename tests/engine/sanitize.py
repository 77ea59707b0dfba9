"""Every kernel, and what the runtime makes of them, through all that touches memory or other threads. A script, for a
library built with a sanitizer (`make sanitize`): it needs neither PyTorch, whose threads no sanitizer sees, nor pytest.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from engine.calls import KERNELS, LEVELS, ODD, RAGGED, WANTED, Case, call, draw
from throughtime.engine.choice import _native
from throughtime.states import select

CASES = (*ODD, *RAGGED, Case(2, 40, 5, 33, marked=True, masked=True), Case(2, 18, 3, 70, V=300))
"""In these two, threads share lanes; in most of the others, units."""

UNBOUNDED = "elman-relu"
"""It has no form for int8 weights; to be told so would be an exception, which the sanitizers do not survive."""


def exercise(name: str) -> int:
    """All levels and precisions of a kernel; returns the number of calls."""
    calls = 0
    for level in LEVELS:
        for bf16 in (False, True):
            kernel = _native.recurrence(level, name, bf16)
            for number, case in enumerate(CASES):
                inputs = draw(kernel, case)
                for threads, wanted in ((1, WANTED), (3, WANTED), (4, WANTED), (2, WANTED[number % 6 :][:1]), (2, ())):
                    # A thread of its own has a workspace of its own, no larger than it needs: nothing lies beyond.
                    with ThreadPoolExecutor(1) as fresh:
                        found = fresh.submit(call, kernel, case, inputs, threads, wanted, spoil=False).result()
                    assert all(np.isfinite(array).all() for array in found.values()), (level, name, case, threads)
                    calls += 1
    return calls


def run_networks(name: str) -> int:
    """Two layers of a cell with an embedding and a head, by all levels and forms of weights; the number of calls."""
    calls = 0
    for level in LEVELS:
        for weights in ("float32", "bf16") if name == UNBOUNDED else ("float32", "bf16", "int8"):
            for number, case in enumerate(
                (Case(1, 1, 7, 33, V=21), Case(3, 5, 33, 7, V=130), Case(2, 70, 16, 64, V=9))
            ):
                # With a table of what the first layer makes of every token, and without.
                network = _network(level, name, weights, case, table_bytes=(1 << 24) * (number % 2))
                for threads in (1, 3):
                    _write(network, case, threads)
                    calls += 1
    return calls


def _network(level: str, name: str, weights: str, case: Case, table_bytes: int):
    """Two layers, the second one wider, and a head."""
    kernel = _native.recurrence(level, name, False)
    network = _native.Network(level, table_bytes)
    network.embed(np.random.default_rng(0).standard_normal((case.V, case.D)).astype(np.float32))
    wider = case.H + 3
    for D, H in ((case.D, case.H), (case.H, wider)):
        arrays = draw(kernel, Case(1, 1, D, H))
        network.add(name, weights, arrays["W"], arrays.get("U"), arrays["vectors"].ravel(), 2)
    W, b = np.full((case.V, wider), 0.1, np.float32), np.zeros(case.V, np.float32)
    network.head(weights, W, b, 2)
    return network


def _write(network, case: Case, threads: int) -> None:
    """Read, measure, and draw in every way there is."""
    T, B, _, _, V, *_ = case
    ids, fresh = np.arange(T * B).reshape(T, B) % V, np.zeros((T, B), np.uint8)
    fresh[-1, ::2] = 1
    logits, state = network.feed_ids(ids, fresh, network.initial_state(B), T, threads)
    assert np.isfinite(logits).all()
    nats, shares = np.empty(T * B), np.empty((T * B, V))
    network.nats(logits.reshape(-1, V), ids.ravel(), nats)
    network.probabilities(logits.reshape(-1, V), np.zeros(V, np.float32), shares)
    assert np.isfinite(nats).all()
    assert (shares.sum(1) == 1).all()
    separator = _native.Separator([bytes([97 + token % 3]) * (token % 4) for token in range(V)], b"cab")
    matched = np.arange(B) % 4
    assert separator.starts(ids, matched.copy()).shape == (T, B)
    for beams in (1, 4):
        found = network.search(
            logits[-1, 0], select(state, slice(1)), separator, 3, [b"abc", b"bb"], None, beams, beams, 6, 0.7, threads
        )
        assert len(found) == beams
    samplers = [_sampler(V, lane) for lane in range(B)]
    tokens = np.full((4, B), -1)
    network.generate(np.ascontiguousarray(logits[-1:]), state, samplers, separator, matched, tokens, threads)
    assert ((tokens >= 0) & (tokens < V)).all()


def _sampler(V: int, lane: int):
    allowed = np.ones(V, np.uint8)
    allowed[lane % V] = 0
    choice = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": lane}
    ways = {}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}, {"repetition_penalty": 1.5}
    sampler = _native.Sampler(V, **choice | ways[lane % len(ways)], allowed=allowed if lane % 2 else None)
    sampler.see(np.arange(V // 2))
    return sampler


def borrow(number: int) -> None:
    """Blocks that are taken and left in turn with other threads."""
    for turn in range(100):
        blocks = [_native.memory(1 + (number * 7919 + turn * 104729 * i) % 6_000_000) for i in range(3)]
        for block in blocks:
            block[:: block.size // 9 + 1] = number
            block[-1] = number
        del blocks[turn % 3]


def fork() -> None:
    """A child that makes threads of its own and ends as processes do."""
    time.sleep(1)  # threads that have ended still give memory back, and a child would inherit the sanitizer's lock
    child = os.fork()
    if not child:
        exercise(KERNELS[0])
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0


def main() -> None:
    assert _native.thread_source() == "own"
    alone = sum(map(exercise, KERNELS))
    written = sum(map(run_networks, KERNELS))
    with ThreadPoolExecutor(3) as callers:
        together = sum(callers.map(exercise, KERNELS[:3]))
        list(callers.map(run_networks, KERNELS[:3]))
        list(callers.map(borrow, range(6)))
    if "fork" in sys.argv:
        fork()
    print(f"{', '.join(LEVELS)}: {alone} calls alone, {together} beside one another; {written} texts")


if __name__ == "__main__":
    main()
