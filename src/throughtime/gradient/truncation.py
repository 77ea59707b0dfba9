"""How far back through time the gradient goes: four truncations, one question.

Asked for an update, a truncation says which windows it reads, how much gradient passes between their steps, and what it
leaves to the next. The states it leaves were made with the weights of their time; the gradient is exact for them.

Axes: T time, B batch (lane).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from throughtime.cells.state import State, detach
from throughtime.gradient.settings import Gradient
from throughtime.gradient.whole import back_through, summed_loss
from throughtime.models.base import SequenceModel, to_tensors
from throughtime.streams.batch import Batch, Int64, join_batches
from throughtime.streams.batches import BatchIndex, BatchSource, Lengths

CUTS = 1
"""Tells the draws of cuts from a source's, which come from the same seed."""


class Behind(NamedTuple):
    """A window that was read, into which the gradient of the next still goes back."""

    at: BatchIndex
    state: State
    """Before it."""
    gradient_scale_TB: Tensor | None = None
    """That of `Cell.forward`, where it was drawn: for all lanes, also those that other processes read."""


class Position(NamedTuple):
    """Where a training stands in its text: all that the next update begins from. Nothing in it has a gradient."""

    at: BatchIndex
    state: State
    behind: tuple[Behind, ...] = ()
    """Oldest first, without a gap before the place."""


class Update(NamedTuple):
    """What an update came to; its gradient lies in the parameters."""

    loss: float
    """Mean loss of the targets, in which the own lanes' targets alone are summed: over processes it adds up."""
    targets: int
    """Number of targets in all lanes of all processes."""
    rate: float
    """Share of the learning rate that it deserves."""
    position: Position
    """Where the next one begins."""


class Truncation(ABC):
    """A way to cut back-propagation through time.

    Args:
        gradient: the recipe's settings.
        window: tokens of a window, or their mean.
        seed: of what is drawn.
    """

    def __init__(self, gradient: Gradient, window: int, seed: int):
        self.gradient, self.window, self.seed = gradient, window, seed

    @property
    def lengths(self) -> Lengths | None:
        """Of the windows that a source is to cut; None: as long as the window, all of them."""
        return None

    def updates(self, source: BatchSource, epochs: float) -> int:
        """Optimiser steps in so many epochs, 1 at least."""
        whole = int(epochs)
        count = sum(source.batches_in(epoch) for epoch in range(whole))
        return max(1, count + round((epochs - whole) * source.batches_in(whole)))

    @abstractmethod
    def update(
        self,
        model: SequenceModel,
        source: BatchSource,
        position: Position,
        noise: torch.Generator | None = None,
        progress: float = 0.0,
    ) -> Update:
        """Read on from a place, and add the gradient of the mean loss to that of the parameters.

        The mean is over all lanes of the source: where other processes read some, gradients add up to the whole.

        Args:
            model: whose parameters learn.
            source: what is read.
            position: where the update before ended.
            noise: what dropout is drawn from; None: nothing is dropped.
            progress: share of the budget used, for what follows a schedule.
        """


@final
class FixedTruncation(Truncation):
    """The gradient goes back `reach` tokens from the end of the window; the state goes on, detached.

    With a reach above the window every update goes back into windows before its own: the truncation of k1 and k2 steps
    of Williams & Peng (1990), k1 the window, k2 the reach.
    """

    def update(
        self,
        model: SequenceModel,
        source: BatchSource,
        position: Position,
        noise: torch.Generator | None = None,
        progress: float = 0.0,  # noqa: ARG002
    ) -> Update:
        reach = self.gradient.reach or self.window
        stretch = (*position.behind, Behind(position.at, position.state))
        too_far = len(stretch) * self.window - reach
        gradient_scale_TB = None
        if too_far > 0:
            gradient_scale_TB = torch.ones(len(stretch) * self.window, len(source.own))
            gradient_scale_TB[too_far] = 0
        batches = [source[behind.at] for behind in stretch]
        kept = -(-reach // self.window) - 1
        return _through(model, source, stretch, batches, gradient_scale_TB, noise, stretch[-kept:] if kept else ())


@final
class RandomTruncation(Truncation):
    """At each step and for each lane the way back is cut with probability c, else multiplied by 1 / (1 - c).

    On average that is the gradient of the whole past (Tallec & Ollivier 2017, section 3, where all lanes are cut at
    once). An update goes back into the windows before its own until every lane has been cut.
    """

    def update(
        self,
        model: SequenceModel,
        source: BatchSource,
        position: Position,
        noise: torch.Generator | None = None,
        progress: float = 0.0,
    ) -> Update:
        first = self.gradient.cut or 1 / self.window
        cut = first + ((self.gradient.cut_end or first) - first) * progress
        uniform_TB = np.random.default_rng([self.seed, *position.at, CUTS]).random((self.window, source.lanes))
        passes_TB = torch.from_numpy((uniform_TB >= cut).astype(np.float32)) / (1 - cut)
        stretch = (*position.behind, Behind(position.at, position.state, passes_TB))
        gradient_scale_TB = torch.cat(
            [behind.gradient_scale_TB for behind in stretch if behind.gradient_scale_TB is not None]
        )
        own_TB = gradient_scale_TB[:, source.own.start : source.own.stop]
        batches = [source[behind.at] for behind in stretch]
        return _through(model, source, stretch, batches, own_TB, noise, _still_reached(stretch))


@final
class VariableTruncation(Truncation):
    """The gradient goes back to the beginning of a window whose length is drawn; the state goes on, detached.

    `normal`: around the window, now and then around half of it (Merity et al. 2017, section 5). `geometric`: a window
    ends after each token with probability c = 1 / window, and what passes a step within it is multiplied by
    1 / (1 - c), so that on average the gradient is that of the whole past (Tallec & Ollivier 2017). The learning rate
    is scaled with the length, so that a token of a short window counts as much as any other.
    """

    @property
    def lengths(self) -> Lengths | None:
        return self._draw

    def _draw(self, draw: np.random.Generator, tokens: int) -> Int64:
        found: list[int] = []
        left = tokens
        while left > 0:
            found.append(min(self._length(draw), left))
            left -= found[-1]
        return np.array(found, np.int64)

    def _length(self, draw: np.random.Generator) -> int:
        if self.gradient.lengths == "geometric":
            return int(draw.geometric(1 / self.window))
        centre = self.window / 2 if draw.random() < self.gradient.halved else self.window
        return max(1, round(draw.normal(centre, self.gradient.deviation)))

    def update(
        self,
        model: SequenceModel,
        source: BatchSource,
        position: Position,
        noise: torch.Generator | None = None,
        progress: float = 0.0,  # noqa: ARG002
    ) -> Update:
        batch = source[position.at]
        gradient_scale_TB = None
        if self.gradient.lengths == "geometric":
            gradient_scale_TB = torch.full(batch.reset_TB.shape, self.window / (self.window - 1))
        stretch = (Behind(position.at, position.state),)
        done = _through(model, source, stretch, [batch], gradient_scale_TB, noise)
        return done._replace(rate=len(batch.reset_TB) / self.window)


@final
class NoTruncation(Truncation):
    """The gradient goes back to the beginning of the epoch, and there is one update an epoch.

    It costs two passes forwards and one back, in as much memory as the recipe grants (`gradient.memory`).
    """

    def updates(self, source: BatchSource, epochs: float) -> int:  # noqa: ARG002
        return max(1, round(epochs))

    def update(
        self,
        model: SequenceModel,
        source: BatchSource,
        position: Position,
        noise: torch.Generator | None = None,
        progress: float = 0.0,  # noqa: ARG002
    ) -> Update:
        epoch, first = position.at
        indices = [BatchIndex(epoch, index) for index in range(first, source.batches_in(epoch))]
        loss, count, state = back_through(model, source, indices, position.state, noise, self.gradient.memory)
        return Update(loss, count, 1.0, Position(BatchIndex(epoch + 1), state))


def make_truncation(gradient: Gradient, window: int, seed: int) -> Truncation:
    """The truncation that a recipe asks for; arguments as for `Truncation`."""
    kinds: dict[str, type[Truncation]] = {
        "none": NoTruncation,
        "fixed": FixedTruncation,
        "variable": VariableTruncation,
        "random": RandomTruncation,
    }
    return kinds[gradient.truncation](gradient, window, seed)


def _through(
    model: SequenceModel,
    source: BatchSource,
    stretch: Sequence[Behind],
    batches: Sequence[Batch],
    gradient_scale_TB: Tensor | None,
    noise: torch.Generator | None,
    kept: tuple[Behind, ...] = (),
) -> Update:
    """Read batches in one go, predict the last one's targets, go back through all; leave `kept` to the next update."""
    batch = to_tensors(join_batches(batches))
    if not batch.reset_TB.any():
        batch = replace(batch, reset_TB=None)
    summed, state = summed_loss(model, source, batch, stretch[0].state, gradient_scale_TB, noise)
    loss = summed / batch.count
    loss.backward()
    following = source.after(stretch[-1].at)
    if not model.carries_state:
        state = model.initial_state(len(source.own))
    position = Position(following, detach(state), kept if following.batch else ())
    return Update(loss.item(), batch.count, 1.0, position)


def _still_reached(stretch: tuple[Behind, ...]) -> tuple[Behind, ...]:
    """The windows that some lane's gradient still enters from behind the last one."""
    passing_B = torch.ones((), dtype=torch.bool)
    kept = len(stretch)
    while kept and passing_B.any():
        kept -= 1
        gradient_scale_TB = stretch[kept].gradient_scale_TB
        assert gradient_scale_TB is not None
        passing_B = passing_B & (gradient_scale_TB != 0).all(0)
    return stretch[kept:]
