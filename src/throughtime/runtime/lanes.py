"""Texts written side by side: lanes join and leave between steps, and none depends on who shares the batch.

Axes: T time, B batch (lane), S arrays of a state, V vocabulary.
"""

from __future__ import annotations

import math
import secrets
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from throughtime.errors import SettingError, ThroughtimeError
from throughtime.runtime.network import Floats, Int64, Network


class Choice(NamedTuple):
    """How tokens are drawn from the logits; `Model.generate` says what each setting means."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None

    def check(self) -> None:
        """Refuse what is out of range.

        Raises:
            SettingError: naming the setting and its value.
        """
        for name, holds, should in (
            ("temperature", 0 <= self.temperature < math.inf, "not be negative"),
            ("top_k", self.top_k is None or self.top_k >= 1, "be at least 1"),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "be above 0 and at most 1"),
            ("min_p", self.min_p is None or 0 <= self.min_p <= 1, "be 0 to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "be above 0"),
            ("seed", self.seed is None or 0 <= self.seed < 1 << 64, "be 0 to 2^64 - 1"),
        ):
            if not holds:
                raise SettingError(f"{name} must {should}, got {getattr(self, name):g}")

    def sampler(self, network: Network, vocabulary_size: int, allowed: NDArray[np.uint8] | None) -> Any:
        """What draws by it, for one lane."""
        self.check()
        return network.sampler(
            vocabulary_size,
            temperature=float(self.temperature),
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else float(self.top_p),
            min_p=self.min_p or 0.0,
            repetition_penalty=float(self.repetition_penalty),
            seed=secrets.randbits(64) if self.seed is None else self.seed,
            allowed=allowed,
        )


@final
class Lanes:
    """What each lane has read, and how it goes on."""

    def __init__(self, network: Network):
        self._network = network
        self._logits_1BV = np.empty((1, 0, network.outputs), np.float32)
        self._state_SBH = network.initial_state(0)
        self._samplers: list[Any] = []

    def __len__(self) -> int:
        return len(self._samplers)

    def join(self, logits_V: Floats, state_SBH: Floats, sampler: Any) -> None:
        """One lane more, the last: from the logits of what follows it, and its state [S, 1, H]."""
        self._logits_1BV = np.concatenate([self._logits_1BV, logits_V[None, None]], 1)
        self._state_SBH = np.concatenate([self._state_SBH, state_SBH], 1)
        self._samplers.append(sampler)

    def leave(self, lane: int) -> Floats:
        """One lane less: the state it had. Those behind it move up."""
        state_SBH = np.ascontiguousarray(self._state_SBH[:, lane : lane + 1])
        self._logits_1BV = np.delete(self._logits_1BV, lane, 1)
        self._state_SBH = np.delete(self._state_SBH, lane, 1)
        del self._samplers[lane]
        return state_SBH

    def state(self, lane: int) -> Floats:
        """What the lane remembers, [S, 1, H]."""
        return np.ascontiguousarray(self._state_SBH[:, lane : lane + 1])

    def draw(self, tokens: int) -> Int64:
        """So many tokens_TB.

        Raises:
            ThroughtimeError: where a lane is allowed no token that can follow.
        """
        try:
            return self._network.generate(self._logits_1BV, self._state_SBH, self._samplers, tokens)
        except ValueError as error:
            raise ThroughtimeError(str(error)) from None
