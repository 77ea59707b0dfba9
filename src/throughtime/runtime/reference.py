"""The twin of the native network, in NumPy: the equations of every cell, one step after the other.

It runs where the package was installed without a compiler, and is what the native one is held against. It is called in
the same way, with the same arrays. Axes: T time, B batch (lane), D input, H hidden, G gates, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from throughtime.engine.forms import EPSILON
from throughtime.folder import whole_numbers
from throughtime.runtime.backend import Backend, Floats, Int64, Marks
from throughtime.states import States

Step = Callable[[Floats, Floats, Floats, Sequence[Floats]], tuple[Floats, ...]]
"""`(W x, U h, vectors, state) -> state`; its first array is the output."""

LARGEST = np.float32(127)
TINY, HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def sigmoid(x: Floats) -> Floats:
    squashed: Floats = np.tanh(x * np.float32(0.5))
    return squashed * np.float32(0.5) + np.float32(0.5)


def normal(x: Floats) -> Floats:
    """Rows with mean 0 and variance 1."""
    centred: Floats = x - x.mean(-1, keepdims=True)
    variance: Floats = (centred * centred).mean(-1, keepdims=True)
    scaled: Floats = centred / np.sqrt(variance + np.float32(EPSILON))
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


class Equations(NamedTuple):
    """A kernel: its step, its gates, and the arrays of its state."""

    step: Step
    gates: int
    arrays: int = 1


EQUATIONS = {
    "elman-tanh": Equations(_elman(np.tanh), 1),
    "elman-relu": Equations(_elman(lambda x: np.maximum(x, 0)), 1),
    "gru": Equations(_gru, 3),
    "lstm": Equations(_lstm, 4, arrays=2),
    "layernorm-gru": Equations(_layernorm_gru, 3),
    "layernorm-lstm": Equations(_layernorm_lstm, 4, arrays=2),
    "mingru-linear": Equations(_mingru(lambda a: a), 2),
    "mingru-positive": Equations(_mingru(positive), 2),
    "minlstm-linear": Equations(_minlstm(lambda a: a), 3),
    "minlstm-positive": Equations(_minlstm(positive), 3),
}


class _Layer(NamedTuple):
    equations: Equations
    W: Floats
    U: Floats | None
    vectors: Floats
    units: int
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

    @property
    def outputs(self) -> int:
        return len(self._head[1]) if self._head else self._layers[-1].units

    def initial_state(self, batch_size: int) -> States:
        sizes = [layer.units for layer in self._layers for _ in range(layer.equations.arrays)]
        return tuple(np.zeros((batch_size, size), np.float32) for size in sizes)

    def embed(self, rows: Floats) -> None:
        self._embedding = rows

    def add(self, cell: str, weights: str, W: Floats, U: Floats | None, vectors: Floats, threads: int) -> None:
        del threads
        equations, recurrent = EQUATIONS[cell], None if U is None else held(U, weights)
        units = len(W) // equations.gates
        self._layers.append(_Layer(equations, held(W, weights), recurrent, vectors, units, weights))

    def head(self, weights: str, W: Floats, b: Floats, threads: int) -> None:
        del threads
        self._head = (held(W, weights), b, weights)

    def feed_ids(
        self, ids: Int64, fresh: Marks | None, before: States, wanted: int, threads: int
    ) -> tuple[Floats, States]:
        assert self._embedding is not None
        if ids.min() < 0 or ids.max() >= len(self._embedding):
            raise IndexError(f"an id is not in a vocabulary of {len(self._embedding)}")
        return self.feed_vectors(self._embedding[ids], fresh, before, wanted, threads)

    def feed_vectors(
        self, x: Floats, fresh: Marks | None, before: States, wanted: int, threads: int
    ) -> tuple[Floats, States]:
        del threads
        y_TBH, after = x, list[Floats]()
        for layer in self._layers:
            state = before[len(after) : len(after) + layer.equations.arrays]
            sums_TBG = met(y_TBH, layer.weights) @ layer.W.T
            outputs = []
            for t, x_BG in enumerate(sums_TBG):
                if fresh is not None:
                    state = tuple(np.where(fresh[t, :, None], np.float32(0), array) for array in state)
                a_BG = x_BG if layer.U is None else met(state[0], layer.weights, bounded=True) @ layer.U.T
                state = layer.equations.step(x_BG, a_BG, layer.vectors, state)
                outputs.append(state[0])
            y_TBH = np.stack(outputs)
            after += state
        last = y_TBH[len(y_TBH) - wanted :]
        if self._head:
            W, b, weights = self._head
            last = met(last, weights) @ W.T + b
        return last, tuple(np.ascontiguousarray(array, np.float32) for array in after)

    def step_vectors(self, x: Floats, before: States, threads: int) -> tuple[Floats, States]:
        outputs, after = self.feed_vectors(x[None], None, before, 1, threads)
        return outputs[0], after

    def outputs_after(self, state: States, threads: int) -> Floats:
        del threads
        assert self._head is not None
        W, b, weights = self._head
        return met(state[len(state) - self._layers[-1].equations.arrays], weights) @ W.T + b


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
