"""When a model in training is validated, and on how much text, so that it costs at most a tenth of the time.

A budget of steps or epochs is planned once, from counts of tokens alone: the same recipe gives the same run. A budget
of minutes is planned by the clock, again before each validation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from pydantic import ConfigDict

from throughtime.settings import NonNegative, Whole

SHARE = 0.1
"""Most of a training's time that its validations take."""
TOKEN_COST = 0.4
"""Time of a token that is validated, in tokens that are trained on: a forward pass without the backward pass."""
MARGIN = 0.8
"""Part of the allowed time that is planned by the clock before the first validation has told what one takes."""
LEAST = 2
"""Validations, where as many are asked for, before less than the whole text is read: one on the way, one at the end."""
LEAST_TOKENS = 8192
"""Tokens that a validation reads at least."""
FREE_PRODUCTS = 1 << 36
"""Multiplications: validations that take no more all together, about a second, are as many as the recipe asks for."""
FREE_SECONDS = 1.0
"""The same for a budget of minutes."""
ROUNDING = 1e-9


@dataclass
class Record:
    """The validations so far, as a checkpoint keeps them."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # how `training.facts` reads it
    count: Whole = 0
    """Number of them."""
    tokens: Whole = 0
    """Tokens that each validation reads; 0 before that is planned."""
    at: NonNegative = 0.0
    """By the clock: seconds of training at which the last one began."""
    seconds: NonNegative = 0.0
    """By the clock: seconds that all of them took."""


@final
class Load:
    """How much a validation has to read, and by how large a model.

    Args:
        tokens: targets of the whole validation text; 0: there is none.
        whole: tokens that a validation on all of it reads, its warm-up included.
        parameters: of the model.
    """

    def __init__(self, tokens: int, whole: int, parameters: int):
        self.tokens, self.whole, self.parameters = tokens, whole, parameters

    def affordable(self, allowed: float, wanted: int) -> tuple[int, int]:
        """Validations that may be made, of those wanted, and the tokens that each reads.

        Args:
            allowed: tokens that all validations together may read, warm-ups included.
            wanted: validations that the recipe asks for.
        """
        if allowed >= wanted * self.whole:
            return wanted, self.tokens
        if allowed >= LEAST * self.whole:
            return int(allowed / self.whole), self.tokens
        count = min(wanted, LEAST)
        return count, min(self.tokens, max(LEAST_TOKENS, int(allowed / count) - (self.whole - self.tokens)))


class Schedule(ABC):
    """Says when a validation is due.

    Attributes:
        wanted: validations that the recipe asks for.
        record: the validations so far.
    """

    def __init__(self, wanted: int, load: Load, record: Record):
        self.wanted, self.load, self.record = wanted, load, record

    @abstractmethod
    def due(self, before: float, progress: float, seconds: float, trained: int) -> bool:
        """Whether a validation is due after a step.

        Args:
            before: progress before the step, from 0 to 1.
            progress: progress after it.
            seconds: time of the training so far, its validations included.
            trained: tokens trained on so far.
        """

    @abstractmethod
    def plan(self, seconds: float, trained: int) -> int:
        """Validations that are affordable from here on; settles how many tokens each reads.

        Args:
            seconds: time of the training so far, its validations included.
            trained: tokens trained on so far.
        """

    @abstractmethod
    def note(self) -> str | None:
        """A line where less is validated than the recipe asks for."""

    @abstractmethod
    def add(self, at: float, seconds: float) -> None:
        """Record a validation.

        Args:
            at: seconds of training at which it began.
            seconds: how long it took.
        """

    def _note_on(self, count: int) -> str | None:
        tokens = self.record.tokens
        if count >= self.wanted and tokens >= self.load.tokens:
            return None
        read = "" if tokens >= self.load.tokens else f", on {tokens:,} of {self.load.tokens:,} tokens each"
        return (
            f"validations: {count} of {self.wanted}{read}; more would take over {SHARE:.0%} of the training "
            "(a shorter validation text, or a larger budget, makes room for them)"
        )


@final
class ScheduleBySteps(Schedule):
    """Validations evenly spread over a number of steps.

    Args:
        trained: tokens that the whole budget trains on.
    """

    def __init__(self, wanted: int, load: Load, record: Record, trained: float):
        super().__init__(wanted, load, record)
        free = wanted * load.whole * load.parameters <= FREE_PRODUCTS
        self.count, tokens = load.affordable(math.inf if free else SHARE * trained / TOKEN_COST, wanted)
        record.tokens = record.tokens or tokens

    def plan(self, seconds: float, trained: int) -> int:  # noqa: ARG002
        return self.count

    def due(self, before: float, progress: float, seconds: float, trained: int) -> bool:  # noqa: ARG002
        return int(progress * self.count + ROUNDING) > int(before * self.count + ROUNDING)

    def add(self, at: float, seconds: float) -> None:  # noqa: ARG002
        self.record.count += 1  # and no times: checkpoints would differ from run to run

    def note(self) -> str | None:
        return self._note_on(self.count)


@final
class ScheduleByClock(Schedule):
    """Validations spread over a time, as evenly and as many as their cost allows.

    Args:
        budget: seconds of the training.
    """

    def __init__(self, wanted: int, load: Load, record: Record, budget: float):
        super().__init__(wanted, load, record)
        self.budget = budget
        self._planned: int | None = None

    def due(self, before: float, progress: float, seconds: float, trained: int) -> bool:  # noqa: ARG002
        if progress < self._next(self._left()):
            return False
        return progress >= self._next(self.plan(seconds, trained))

    def plan(self, seconds: float, trained: int) -> int:
        record, wanted = self.record, self._left()
        allowed = max(SHARE * self.budget, FREE_SECONDS) - record.seconds
        if record.seconds:
            count, tokens = min(wanted, int(allowed * record.count / record.seconds)), record.tokens
        else:
            token_seconds = TOKEN_COST / MARGIN * (seconds - record.seconds) / max(trained, 1)
            count, tokens = self.load.affordable(allowed / token_seconds if token_seconds else math.inf, wanted)
        record.tokens = record.tokens or tokens
        self._planned = record.count + max(count, 1)
        return max(count, 1)

    def _left(self) -> int:
        """Validations that the recipe asks for in the rest of the budget."""
        return max(1, round(self.wanted * (1 - self._done())))

    def _next(self, count: int) -> float:
        """Progress at which the next of so many validations, evenly spread over the rest of the budget, is due."""
        return self._done() + (1 - self._done()) / count - ROUNDING

    def _done(self) -> float:
        """Progress at the last validation."""
        return min(1.0, self.record.at / self.budget)

    def add(self, at: float, seconds: float) -> None:
        record = self.record
        record.count += 1
        record.at = at
        record.seconds += seconds

    def note(self) -> str | None:
        return None if self._planned is None else self._note_on(self._planned)
