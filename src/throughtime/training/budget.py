"""The budget of a training, and the learning rate that follows it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from throughtime.training.settings import Training


def learning_rate(training: Training, progress: float) -> float:
    """Linear warm-up from 0, then half a cosine down to the final rate, over the budget (progress 0 to 1)."""
    if progress < training.warmup:
        return training.learning_rate * progress / training.warmup
    fallen = (progress - training.warmup) / (1 - training.warmup) if training.warmup < 1 else 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * min(fallen, 1.0)))
    return training.learning_rate * (training.final_rate + (1 - training.final_rate) * cosine)


@dataclass(frozen=True)
class Budget:
    """How much of the budget is used up, in whichever unit it was given.

    Attributes:
        steps: optimizer steps the budget holds; None for a budget of minutes.
        minutes: minutes the budget holds; None for a budget of steps or epochs.
    """

    steps: int | None
    minutes: float | None

    @classmethod
    def of(cls, training: Training, steps_in: Callable[[float], int]) -> Budget:
        """The recipe's budget; `steps_in` says how many optimizer steps there are in so many epochs."""
        if training.epochs is not None:
            return cls(steps_in(training.epochs), None)
        return cls(training.steps, training.minutes)

    def progress(self, steps: int, seconds: float) -> float:
        """Share of the budget used after so many steps and seconds, from 0 to 1."""
        if self.steps is not None:
            return min(1.0, steps / self.steps)
        assert self.minutes is not None
        return min(1.0, seconds / (60 * self.minutes))

    def seconds_left(self, steps: int, seconds: float) -> float | None:
        """Seconds until the budget is used up, at the pace so far; None before the first step."""
        progress = self.progress(steps, seconds)
        return seconds * (1 - progress) / progress if steps and progress else None
