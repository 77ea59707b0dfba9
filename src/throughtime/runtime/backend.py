"""What a `Network` runs on: the part that is the same for all that are written in Python.

The kernels have their own (`engine`). Axes: T time, B batch (lane), G lanes that go on, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from throughtime.states import States, put, select

Floats = NDArray[np.float32]
Int64 = NDArray[np.int64]
Marks = NDArray[np.uint8]


class Backend(Protocol):
    """What runs the layers of a network: the native engine, its NumPy twin, or PyTorch; arguments are checked before.

    A subclass reads a stretch of ids. Probabilities, sampling and beam search follow from that. States are tuples of
    arrays of any shape, the batch first (`throughtime.states`).
    """

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Size of an output, the number of logits."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> States:
        """The state before the first step, in new arrays."""

    @abstractmethod
    def feed_ids(
        self, ids: Int64, fresh: Marks | None, before: States, wanted: int, threads: int
    ) -> tuple[Floats, States]:
        """The logits_TBV of the last `wanted` steps of ids_TB, and the state after them, in new arrays.

        Args:
            ids: ids_TB, at least one.
            fresh: 1 where a lane's state is reset before the step; None: nowhere.
            before: the state.
            wanted: number of steps.
            threads: most threads to use.

        Raises:
            IndexError: where an id is not in the vocabulary.
        """

    def step_ids(self, ids: Int64, before: States, threads: int) -> tuple[Floats, States]:
        """One step: `feed_ids` of ids_B without a reset; the logits_BV and the state."""
        outputs, after = self.feed_ids(ids[None], None, before, 1, threads)
        return outputs[0], after

    @abstractmethod
    def outputs_after(self, state: States, threads: int) -> Floats:
        """The logits_BV of the token that follows a state."""

    def nats(self, logits_NV: Floats, targets_N: Int64, nats_N: NDArray[np.float64]) -> None:
        logits = logits_NV - logits_NV.max(1, keepdims=True)
        nats_N[:] = np.log(np.exp(logits, dtype=np.float64).sum(1)) - logits[np.arange(len(logits)), targets_N]

    def probabilities(self, logits: Floats, bias: Floats, out: NDArray[np.float64]) -> None:
        shifted = logits + bias
        most = shifted.max(1, keepdims=True)
        known = np.isfinite(most)  # of no other row the probabilities are known
        parts = np.exp(np.where(known, shifted - np.where(known, most, 0), 0).astype(np.float64))
        whole = 1 + np.where(known, np.floor(parts * ((2**24 - logits.shape[1]) / parts.sum(1, keepdims=True))), 0)
        whole[np.arange(len(whole)), shifted.argmax(1)] += 2**24 - whole.sum(1)
        out[:] = whole * 2.0**-24

    def generate(
        self,
        logits: Floats,
        state: States,
        samplers: Sequence[Any],
        separator: Any,
        matched: Int64,
        tokens: Int64,
        threads: int,
    ) -> None:
        for ids_B in tokens:
            ids_B[:] = [sampler.choose(logits_V) for sampler, logits_V in zip(samplers, logits[0], strict=True)]
            going = ids_B >= 0
            if not going.any():
                continue
            matched_G = matched[going]
            fresh = separator.starts(ids_B[None, going], matched_G)
            matched[going] = matched_G
            logits[:, going], after = self.feed_ids(ids_B[None, going], fresh, select(state, going), 1, threads)
            put(state, going, after)

    def search(
        self,
        logits: Floats,
        state: States,
        separator: Any,
        matched: int,
        stops: Sequence[bytes],
        allowed: Marks | None,
        beams: int,
        best: int,
        tokens: int,
        length_penalty: float,
        threads: int,
    ) -> list[tuple[bytes, float, float, States, int]]:
        pieces = separator.pieces

        def score(nats: float, count: int) -> float:
            return -nats / float(((5 + count) / 6) ** length_penalty)

        def read(ids: Sequence[int], state: States, matched: Int64) -> tuple[Floats, States, Int64]:
            ids_1B, matched = np.array([ids]), matched.copy()
            fresh = separator.starts(ids_1B, matched)
            logits_1BV, after = self.feed_ids(ids_1B, fresh, state, 1, threads)
            return logits_1BV[0], after, matched

        barred_V = np.zeros(len(pieces)) if allowed is None else np.where(allowed, 0.0, np.inf)
        logits_BV = logits[None]
        alive: list[tuple[bytes, float]] = [(b"", 0.0)]
        ended: list[tuple[bytes, float, float, States, int]] = []
        matched_B = np.array([matched])
        for length in range(1, tokens + 1):
            nats_BV = _nats(logits_BV) + np.array([nats for _, nats in alive])[:, None] + barred_V
            following: list[tuple[bytes, float]] = []
            parents: list[int] = []
            ids: list[int] = []
            for place in np.argsort(nats_BV, axis=None, kind="stable")[: 2 * beams].tolist():
                parent, token = divmod(place, len(pieces))
                nats = float(nats_BV[parent, token])
                if not np.isfinite(nats) or len(following) == beams:
                    break
                text = alive[parent][0] + pieces[token]
                cut = min((at for at in (text.find(stop) for stop in stops) if at >= 0), default=None)
                if cut is None and length < tokens:
                    following.append((text, nats))
                    parents.append(parent)
                    ids.append(token)
                else:
                    _, after, at = read([token], select(state, [parent]), matched_B[[parent]])
                    ended.append((text[:cut], nats, score(nats, length), after, int(at[0])))
            ended.sort(key=lambda found: -found[2])
            # Nats only grow; at best a beam keeps its own to the end, where the penalty for length helps it most.
            hopes = [score(nats, tokens) for _, nats in following]
            if not following or (len(ended) >= best and max(hopes) <= ended[best - 1][2]):
                break
            alive = following
            logits_BV, state, matched_B = read(ids, select(state, parents), matched_B[parents])
        return ended[:best]


def _nats(logits_BV: Floats) -> NDArray[np.float64]:
    shifted: NDArray[np.float64] = logits_BV.astype(np.float64) - logits_BV.max(1, keepdims=True)
    nats: NDArray[np.float64] = np.log(np.exp(shifted).sum(1, keepdims=True)) - shifted
    return nats
