"""How training cuts a stream into minibatches, and the exact place in an epoch.

A partition computes any window from its place alone: going on after a break is asking for the next place. Every epoch
has its own random offset, drawn from (seed, epoch); it lies within one window, so an epoch leaves out less than a
window at the start and a ragged end. Where lengths of windows are drawn, they too are drawn from (seed, epoch).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from functools import lru_cache
from typing import NamedTuple, Self, final

import numpy as np

from throughtime.errors import ThroughtimeError
from throughtime.recipe import Streams
from throughtime.streams.window import Int64, Tokens, Window, empty_window, fill_lane

Lengths = Callable[[np.random.Generator, int], Int64]
"""The lengths of the windows that a lane of so many tokens is cut into; they sum to no more than these."""


class Place(NamedTuple):
    """The next window to read."""

    epoch: int = 0
    window: int = 0


class Partition(ABC):
    """Windows of `window` steps (T), on average, by `lanes` lanes (B) from a stream of ids.

    Args:
        own: the lanes that are read here; None: all of them. What is drawn is drawn for all.
    """

    def __init__(self, tokens: Tokens, lanes: int, window: int, seed: int, own: range | None = None):
        self.tokens, self.lanes, self.window, self.seed = tokens, lanes, window, seed
        self.own = range(lanes) if own is None else own
        needed = (lanes + 1) * window
        if len(tokens) < needed:
            raise ThroughtimeError(
                f"the training text has {len(tokens):,} tokens, and {lanes} lanes of a {window}-token "
                f"window need {needed:,}; lower streams.lanes or streams.window"
            )

    @abstractmethod
    def __getitem__(self, place: Place) -> Window:
        """The own lanes' window at a place."""

    @abstractmethod
    def windows_in(self, epoch: int) -> int:
        """How many windows an epoch has; 1 at least."""

    @final
    def of_all_lanes(self) -> Self:
        """The same windows, with the lanes that are read elsewhere."""
        whole = copy(self)
        whole.own = range(self.lanes)
        return whole

    @final
    def after(self, place: Place) -> Place:
        """The place that follows."""
        following = Place(place.epoch, place.window + 1)
        return following if following.window < self.windows_in(place.epoch) else Place(place.epoch + 1, 0)

    @final
    def _offset(self, epoch: int) -> int:
        return int(self._generator(epoch).integers(self.window))

    @final
    def _generator(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch])


class SequentialPartition(Partition):
    """The stream behind the offset laid out as B contiguous lanes, each cut into windows in order.

    A lane is fresh in the first window of an epoch only (and where a document begins): the state is to be carried.

    Args:
        lengths: of the windows; None: every one has `window` steps.
    """

    def __init__(
        self,
        tokens: Tokens,
        lanes: int,
        window: int,
        seed: int,
        own: range | None = None,
        lengths: Lengths | None = None,
    ):
        super().__init__(tokens, lanes, window, seed, own)
        self.lane_length = (len(tokens) - window) // lanes
        self._lengths = lengths or (lambda _, steps: np.full(steps // window, window))
        self._cuts = lru_cache(maxsize=2)(self._draw_cuts)

    def windows_in(self, epoch: int) -> int:
        return len(self._cuts(epoch)) - 1

    def __getitem__(self, place: Place) -> Window:
        begin, end = self._cuts(place.epoch)[place.window : place.window + 2].tolist()
        cut = empty_window(end - begin, len(self.own))
        first = self._offset(place.epoch) + begin
        for column, lane in enumerate(self.own):
            start = first + lane * self.lane_length
            fill_lane(cut, column, self.tokens, start, start + end - begin)
        if place.window == 0:
            cut.reset_TB[0] = True
        return cut

    def _draw_cuts(self, epoch: int) -> Int64:
        """Where the windows of a lane begin and, at last, end."""
        generator = self._generator(epoch)
        generator.integers(self.window)  # the offset, drawn first
        return np.concatenate([[0], np.cumsum(self._lengths(generator, self.lane_length))])


class RandomPartition(Partition):
    """The stream behind the offset cut into windows, dealt over minibatches at random.

    Windows are independent: every lane is fresh at the first step of each.
    """

    def __init__(self, tokens: Tokens, lanes: int, window: int, seed: int, own: range | None = None):
        super().__init__(tokens, lanes, window, seed, own)
        self._order = lru_cache(maxsize=1)(self._draw_order)

    def windows_in(self, epoch: int) -> int:  # noqa: ARG002
        return (len(self.tokens) - self.window) // self.window // self.lanes

    def __getitem__(self, place: Place) -> Window:
        cut = empty_window(self.window, len(self.own))
        dealt = self._order(place.epoch)[place.window * self.lanes :][self.own.start : self.own.stop]
        for column, index in enumerate(dealt.tolist()):
            start = self._offset(place.epoch) + index * self.window
            fill_lane(cut, column, self.tokens, start, start + self.window)
        cut.reset_TB[0] = True
        return cut

    def _draw_order(self, epoch: int) -> Int64:
        generator = self._generator(epoch)
        generator.integers(self.window)  # the offset, drawn first
        return generator.permutation((len(self.tokens) - self.window) // self.window)


def partition(
    tokens: Tokens, streams: Streams, seed: int, lengths: Lengths | None = None, own: range | None = None
) -> Partition:
    """The partition that a recipe asks for; `lengths` of sequential windows as in `SequentialPartition`."""
    if streams.partition == "random":
        return RandomPartition(tokens, streams.lanes, streams.window, seed, own)
    return SequentialPartition(tokens, streams.lanes, streams.window, seed, own, lengths)
