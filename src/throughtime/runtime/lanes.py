"""Texts written side by side: lanes join and leave between steps, and none depends on who shares the batch.

Axes: T time, B batch (lane), V vocabulary.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Self, final

import numpy as np
from numpy.typing import NDArray

from throughtime.errors import ThroughtimeError
from throughtime.runtime.arguments import LARGEST, LARGEST_FLOAT, SEEDS, number, whole
from throughtime.runtime.network import Floats, Int64, Network
from throughtime.runtime.state import Position
from throughtime.states import States, join, select

LONGEST_CHUNK = 64
"""Tokens drawn in one native call: a chunk grows while it takes less than PATIENCE seconds."""
PATIENCE = 0.02
NOT_DRAWN, STAYED = -2, -1
"""What stands for a token before it is drawn, and where a lane has none to write."""
STUCK = "no token that is allowed can follow: none has a finite logit"


class Choice(NamedTuple):
    """How tokens are drawn from the logits; `Model.generate` says what each setting means."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None

    def checked(self) -> Self:
        """The same with numbers of Python's own kinds.

        Raises:
            SettingError: where one is out of range or no number, naming the setting and its value.
        """
        top_p, min_p = self.top_p, self.min_p
        return self._replace(
            temperature=number("temperature", self.temperature, 0, LARGEST_FLOAT, "not be negative"),
            top_k=None if self.top_k is None else min(whole("top_k", self.top_k, 1, 1 << 256), LARGEST),
            top_p=None if top_p is None else number("top_p", top_p, 0, 1, "be above 0 and at most 1", above=True),
            min_p=None if min_p is None else number("min_p", min_p, 0, 1, "be 0 to 1"),
            repetition_penalty=number(
                "repetition_penalty", self.repetition_penalty, 0, LARGEST_FLOAT, "be above 0", above=True
            ),
            seed=None if self.seed is None else whole("seed", self.seed, 0, SEEDS - 1),
        )

    def sampler(self, network: Network, allowed: NDArray[np.uint8] | None) -> Any:
        """What draws by it, for one lane."""
        return network.sampler(
            temperature=self.temperature,
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty,
            seed=secrets.randbits(64) if self.seed is None else self.seed,
            allowed=allowed,
        )


@final
class Lanes:
    """What each lane has read, and how it goes on.

    Args:
        network: runs them.
        separator: where their documents end, as `Network.separator` makes it.
    """

    def __init__(self, network: Network, separator: Any):
        self._network, self._separator = network, separator
        self._logits_1BV = np.empty((1, 0, network.outputs), np.float32)
        self._state = network.initial_state(0)
        self._matched_B = np.empty(0, np.int64)
        self._samplers: list[Any] = []

    def __len__(self) -> int:
        return len(self._samplers)

    def join(self, logits_V: Floats, state: States, matched: int, sampler: Any) -> None:
        """One lane more, the last: from the logits of what follows it, its state, and what it has matched of the
        separator."""
        self._logits_1BV = np.concatenate([self._logits_1BV, logits_V[None, None]], 1)
        self._state = join([self._state, state])
        self._matched_B = np.append(self._matched_B, matched)
        self._samplers.append(sampler)

    def leave(self, lane: int) -> None:
        """One lane less. Those behind it move up."""
        self._logits_1BV = np.delete(self._logits_1BV, lane, 1)
        self._state = tuple(np.delete(array, lane, 0) for array in self._state)
        self._matched_B = np.delete(self._matched_B, lane)
        del self._samplers[lane]

    def state(self, lane: int) -> tuple[States, Position]:
        """What the lane remembers, a copy, and how far it has come."""
        sampler = self._samplers[lane]
        position = Position(int(self._matched_B[lane]), b"", sampler.seed, sampler.drawn, tuple(sampler.seen))
        return select(self._state, [lane]), position

    def draw(self, tokens: int, kept: list[Int64] | None = None) -> Iterator[Int64]:
        """So many tokens_TB, chunk by chunk, each short enough for Ctrl-C to be answered; -1 from where a lane has no
        token to write: it stays as it is there.

        `kept` holds every chunk that was drawn, though Ctrl-C may have come before it was handed out.
        """
        chunk = 1
        while tokens:
            chunk = min(chunk, tokens)
            drawn_TB = np.full((chunk, len(self)), NOT_DRAWN, np.int64)
            if kept is not None:
                kept.append(drawn_TB)
            began = time.perf_counter()
            self._network.generate(
                self._logits_1BV,
                self._state,
                self._samplers,
                chunk,
                self._separator,
                self._matched_B,
                drawn_TB,
            )
            took = time.perf_counter() - began
            yield drawn_TB
            tokens -= chunk
            if took < PATIENCE:
                chunk = min(2 * chunk, LONGEST_CHUNK)


def written(drawn_T: Int64) -> list[int]:
    """The tokens of a lane up to where it had none to write."""
    ended = np.flatnonzero(drawn_T < 0)
    found: list[int] = drawn_T[: ended[0] if len(ended) else None].tolist()
    return found


def can_go_on(drawn_T: Int64) -> bool:
    """Whether a lane had a token to write each time."""
    return not (drawn_T == STAYED).any()


def resumed(sampler: Any, position: Position, seed: int | None, vocabulary_size: int) -> Any:
    """The sampler, told of the tokens that a lane has seen, and at the draw where the lane stands if it is of its seed.

    Raises:
        ThroughtimeError: where the position is of another vocabulary.
    """
    if position.seen and position.seen[-1] >= vocabulary_size:
        raise ThroughtimeError(f"the state has seen the token {position.seen[-1]}, of {vocabulary_size} there are")
    sampler.see(np.array(position.seen, np.int64))
    if position.seed is not None and position.seed == seed:
        sampler.skip(position.drawn)
    return sampler
