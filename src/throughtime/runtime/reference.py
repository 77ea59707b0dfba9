"""The twin of the native network, in NumPy: the equations of every cell, one step after the other.

It runs where the package was installed without a compiler, and is what the native one is held against. It is called in
the same way, with the same arrays. Axes: T time, B batch (lane), D input, H hidden, G gates, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from throughtime.folder import whole_numbers
from throughtime.runtime.backend import Backend, Floats, Int64, Marks

Step = Callable[[Floats, Floats, Floats, Sequence[Floats]], tuple[Floats, ...]]
"""`(W x, U h, vectors, state) -> state`; its first array is the output."""

EPSILON = np.float32(1e-5)
LARGEST = np.float32(127)
TINY, HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def sigmoid(x: Floats) -> Floats:
    squashed: Floats = np.tanh(x * np.float32(0.5))
    return squashed * np.float32(0.5) + np.float32(0.5)


def normal(x: Floats) -> Floats:
    """Rows with mean 0 and variance 1."""
    centred: Floats = x - x.mean(-1, keepdims=True)
    variance: Floats = (centred * centred).mean(-1, keepdims=True)
    scaled: Floats = centred / np.sqrt(variance + EPSILON)
    return scaled


def positive(a: Floats) -> Floats:
    return np.where(a >= 0, a + np.float32(0.5), sigmoid(a))


def _elman(squash: Callable[[Floats], Floats]) -> Step:
    return lambda x, a, b, _: (squash(x + a + b),)


def _gru(x: Floats, a: Floats, v: Floats, state: Sequence[Floats]) -> tuple[Floats, ...]:
    size = state[0].shape[-1]
    x = x + v[: 3 * size]
    r, z = (sigmoid(x[..., at] + a[..., at]) for at in (slice(0, size), slice(size, 2 * size)))
    n = np.tanh(x[..., 2 * size :] + r * (a[..., 2 * size :] + v[3 * size :]))
    return (n + z * (state[0] - n),)


def _lstm(x: Floats, a: Floats, b: Floats, state: Sequence[Floats]) -> tuple[Floats, ...]:
    i, f, g, o = np.split(x + a + b, 4, -1)
    carried = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(carried), carried


def _layernorm_gru(x: Floats, a: Floats, v: Floats, state: Sequence[Floats]) -> tuple[Floats, ...]:
    size = state[0].shape[-1]
    b, c_n, gain_x, gain_h = np.split(v, np.cumsum([3 * size, size, 3 * size]))
    return _gru(normal(x) * gain_x, normal(a) * gain_h, np.concatenate([b, c_n]), state)


def _layernorm_lstm(x: Floats, a: Floats, v: Floats, state: Sequence[Floats]) -> tuple[Floats, ...]:
    size = state[0].shape[-1]
    b, gain_x, gain_h, gain_c, shift_c = np.split(v, np.cumsum([4 * size, 4 * size, 4 * size, size]))
    i, f, g, o = np.split(normal(x) * gain_x + normal(a) * gain_h + b, 4, -1)
    carried = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(gain_c * normal(carried) + shift_c), carried


def _mingru(candidate: Callable[[Floats], Floats]) -> Step:
    def step(x: Floats, _: Floats, b: Floats, state: Sequence[Floats]) -> tuple[Floats, ...]:
        z, n = np.split(x + b, 2, -1)
        return (state[0] + sigmoid(z) * (candidate(n) - state[0]),)

    return step


def _minlstm(candidate: Callable[[Floats], Floats]) -> Step:
    def step(x: Floats, _: Floats, b: Floats, state: Sequence[Floats]) -> tuple[Floats, ...]:
        f, i, n = np.split(x + b, 3, -1)
        # The share i / (f + i) of two sigmoids, by their logarithms: both may be too small to divide.
        share = sigmoid(np.logaddexp(0, -f) - np.logaddexp(0, -i))
        return (state[0] + share * (candidate(n) - state[0]),)

    return step


STEPS: dict[str, Step] = {
    "elman-tanh": _elman(np.tanh),
    "elman-relu": _elman(lambda x: np.maximum(x, 0)),
    "gru": _gru,
    "lstm": _lstm,
    "layernorm-gru": _layernorm_gru,
    "layernorm-lstm": _layernorm_lstm,
    "mingru-linear": _mingru(lambda a: a),
    "mingru-positive": _mingru(positive),
    "minlstm-linear": _minlstm(lambda a: a),
    "minlstm-positive": _minlstm(positive),
}


class _Layer(NamedTuple):
    step: Step
    W: Floats
    U: Floats | None
    vectors: Floats
    arrays: int
    weights: str


def rounded(array: Floats) -> Floats:
    """To bfloat16: the nearest number of 8 bits of mantissa, ties to even."""
    bits = array.view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
    return bits.astype(np.uint32).view(np.float32)


def held(matrix: Floats, weights: str) -> Floats:
    """The numbers that stand for a matrix in one of `network.WEIGHTS`."""
    if weights == "int8":
        whole, scale = whole_numbers(matrix)
        return whole * scale[:, None]
    return rounded(matrix) if weights == "bf16" else matrix


def met(array: Floats, weights: str, bounded: bool = False) -> Floats:
    """What stands for the rows of an array where they are multiplied with weights held so.

    For int8 the largest number of a row is 127; `bounded`: 1 is, for the state, which has none above.
    """
    if weights == "int8":
        largest: Floats = np.abs(array).max(-1, keepdims=True)
        largest[(largest == 0) | bounded] = 1
        wholes: Floats = np.rint(np.clip(array * (1 / largest), -1, 1) * LARGEST)
        return wholes * (largest / LARGEST)
    return rounded(np.ascontiguousarray(array)) if weights == "bf16" else array


@final
class Network(Backend):
    """As the native one; what it is called with is checked there."""

    def __init__(self) -> None:
        self._layers: list[_Layer] = []
        self._embedding: Floats | None = None
        self._head: tuple[Floats, Floats, str] | None = None

    def embed(self, rows: Floats) -> None:
        self._embedding = rows

    def add(self, cell: str, weights: str, W: Floats, U: Floats | None, vectors: Floats, threads: int) -> None:
        del threads
        arrays = 2 if STEPS[cell] in (_lstm, _layernorm_lstm) else 1
        recurrent = None if U is None else held(U, weights)
        self._layers.append(_Layer(STEPS[cell], held(W, weights), recurrent, vectors, arrays, weights))

    def head(self, weights: str, W: Floats, b: Floats, threads: int) -> None:
        del threads
        self._head = (held(W, weights), b, weights)

    def feed_ids(
        self, ids: Int64, fresh: Marks | None, before: Floats, wanted: int, threads: int
    ) -> tuple[Floats, Floats]:
        assert self._embedding is not None
        if ids.min() < 0 or ids.max() >= len(self._embedding):
            raise IndexError(f"an id is not in a vocabulary of {len(self._embedding)}")
        return self.feed_vectors(self._embedding[ids], fresh, before, wanted, threads)

    def feed_vectors(
        self, x: Floats, fresh: Marks | None, before: Floats, wanted: int, threads: int
    ) -> tuple[Floats, Floats]:
        del threads
        y_TBH, at, after = x, 0, np.empty(before.shape, np.float32)
        for layer in self._layers:
            state = tuple(before[at : at + layer.arrays])
            sums_TBG = met(y_TBH, layer.weights) @ layer.W.T
            outputs = []
            for t, x_BG in enumerate(sums_TBG):
                if fresh is not None:
                    state = tuple(np.where(fresh[t, :, None], np.float32(0), array) for array in state)
                a_BG = x_BG if layer.U is None else met(state[0], layer.weights, bounded=True) @ layer.U.T
                state = layer.step(x_BG, a_BG, layer.vectors, state)
                outputs.append(state[0])
            y_TBH = np.stack(outputs)
            after[at : at + layer.arrays] = state
            at += layer.arrays
        last = y_TBH[len(y_TBH) - wanted :]
        if self._head:
            W, b, weights = self._head
            last = met(last, weights) @ W.T + b
        return last, after

    def outputs_after(self, state: Floats, threads: int) -> Floats:
        del threads
        assert self._head is not None
        W, b, weights = self._head
        return met(state[len(state) - self._layers[-1].arrays], weights) @ W.T + b


def random_bits(seed: int, n: int) -> int:
    """The n-th number of SplitMix64 (Steele, Lea & Flood 2014) from a seed."""
    most = (1 << 64) - 1
    z = (seed + (n + 1) * 0x9E3779B97F4A7C15) & most
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & most
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & most
    return z ^ (z >> 31)


class Sampler:
    """As the native one."""

    def __init__(
        self,
        vocabulary: int,
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        repetition_penalty: float,
        seed: int,
        allowed: NDArray[np.uint8] | None,
    ):
        self._temperature, self._top_k, self._top_p, self._min_p = temperature, top_k, top_p, min_p
        self._penalty, self._start = repetition_penalty, random_bits(seed, 0)
        self.seed, self.drawn = seed, 0
        self._seen = np.zeros(vocabulary, bool)
        self._forbidden = None if allowed is None else allowed == 0

    @property
    def seen(self) -> list[int]:
        found: list[int] = np.flatnonzero(self._seen).tolist()
        return [] if self._penalty == 1 else found

    def see(self, tokens: Int64) -> None:
        self._seen[tokens] = True

    def skip(self, drawn: int) -> None:
        self.drawn = drawn

    def choose(self, logits_V: Floats) -> int:
        """It may change the logits; -1: no token that is allowed has a finite logit."""
        fall, rise = (np.float32(np.clip(by, TINY, HUGE)) for by in (1 / self._penalty, self._penalty))
        told = self._seen & np.isfinite(logits_V)
        changed = logits_V[told].astype(np.float64) * np.where(logits_V[told] > 0, fall, rise)
        logits_V[told] = np.clip(changed, -HUGE, HUGE)
        logits_V[np.isnan(logits_V)] = -np.inf
        if self._forbidden is not None:
            logits_V[self._forbidden] = -np.inf
        best = int(logits_V.argmax())
        if not np.isfinite(logits_V[best]):
            return -1
        token = best if self._temperature == 0 else self._draw(logits_V)
        self._seen[token] = True
        return token

    def _draw(self, logits_V: Floats) -> int:
        most = float(logits_V.max())
        least = np.float32(max(most + max(np.log(max(self._min_p, 1e-300)), -64.0) * self._temperature, -HUGE))
        candidates = np.flatnonzero(logits_V >= least)
        ordered = candidates[np.argsort(-logits_V[candidates], kind="stable")]
        if 0 < self._top_k < len(candidates):
            candidates = ordered = ordered[: self._top_k]
        if self._top_p < 1:
            candidates = ordered
        weights = np.exp((logits_V[candidates].astype(np.float64) - most) / self._temperature)
        if self._top_p < 1:
            sums = weights.cumsum()
            count = 1 + int(np.searchsorted(sums, self._top_p * sums[-1]))
            candidates, weights = candidates[:count], weights[:count]
        bits = random_bits(self._start, self.drawn) >> 11
        self.drawn += 1
        sums = weights.cumsum()
        place = np.searchsorted(sums, bits * 2.0**-53 * sums[-1], side="right")
        return int(candidates[min(int(place), len(candidates) - 1)])
