"""How training cuts a stream into minibatches, and the exact place in an epoch.

A partition computes any window from its place alone: going on after a break is asking for the next place. Every epoch
has its own random offset, drawn from (seed, epoch); it lies within one window, so every epoch has as many windows as
the next, and leaves out less than a window at the start and a ragged end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import NamedTuple, final

import numpy as np

from throughtime.errors import ThroughtimeError
from throughtime.recipe import Streams
from throughtime.streams.window import Int64, Tokens, Window, empty_window, fill_lane


class Place(NamedTuple):
    """The next window to read."""

    epoch: int = 0
    window: int = 0


class Partition(ABC):
    """Windows of `window` steps (T) by `lanes` lanes (B) from a stream of ids.

    Attributes:
        windows_per_epoch: the same in every epoch.
    """

    windows_per_epoch: int

    def __init__(self, tokens: Tokens, lanes: int, window: int, seed: int):
        self.tokens, self.lanes, self.window, self.seed = tokens, lanes, window, seed

    @abstractmethod
    def __getitem__(self, place: Place) -> Window:
        """The window at a place."""

    @final
    def after(self, place: Place) -> Place:
        """The place that follows."""
        following = Place(place.epoch, place.window + 1)
        return following if following.window < self.windows_per_epoch else Place(place.epoch + 1, 0)

    @final
    def _offset(self, epoch: int) -> int:
        return int(self._generator(epoch).integers(self.window))

    @final
    def _generator(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch])

    @final
    def _check(self) -> None:
        if self.windows_per_epoch < 1:
            needed = (self.lanes + 1) * self.window
            raise ThroughtimeError(
                f"the training text has {len(self.tokens):,} tokens, and {self.lanes} lanes of a {self.window}-token "
                f"window need {needed:,}; lower streams.lanes or streams.window"
            )


class SequentialPartition(Partition):
    """The stream behind the offset laid out as B contiguous lanes, each cut into windows in order.

    A lane is fresh in the first window of an epoch only (and where a document begins): the state is to be carried.
    """

    def __init__(self, tokens: Tokens, lanes: int, window: int, seed: int):
        super().__init__(tokens, lanes, window, seed)
        self.lane_length = (len(tokens) - window) // lanes
        self.windows_per_epoch = self.lane_length // window
        self._check()

    def __getitem__(self, place: Place) -> Window:
        cut = empty_window(self.window, self.lanes)
        first = self._offset(place.epoch) + place.window * self.window
        for lane in range(self.lanes):
            start = first + lane * self.lane_length
            fill_lane(cut, lane, self.tokens, start, start + self.window)
        if place.window == 0:
            cut.fresh_TB[0] = True
        return cut


class RandomPartition(Partition):
    """The stream behind the offset cut into windows, dealt over minibatches at random.

    Windows are independent: every lane is fresh at the first step of each.
    """

    def __init__(self, tokens: Tokens, lanes: int, window: int, seed: int):
        super().__init__(tokens, lanes, window, seed)
        self.windows_per_epoch = (len(tokens) - window) // window // lanes
        self._check()
        self._order = lru_cache(maxsize=1)(self._draw_order)

    def __getitem__(self, place: Place) -> Window:
        cut = empty_window(self.window, self.lanes)
        dealt = self._order(place.epoch)[place.window * self.lanes :][: self.lanes]
        for lane, index in enumerate(dealt.tolist()):
            start = self._offset(place.epoch) + index * self.window
            fill_lane(cut, lane, self.tokens, start, start + self.window)
        cut.fresh_TB[0] = True
        return cut

    def _draw_order(self, epoch: int) -> Int64:
        generator = self._generator(epoch)
        generator.integers(self.window)  # the offset, drawn first
        return generator.permutation((len(self.tokens) - self.window) // self.window)


def partition(tokens: Tokens, streams: Streams, seed: int) -> Partition:
    """The partition that a recipe asks for."""
    kind = {"sequential": SequentialPartition, "random": RandomPartition}[streams.partition]
    return kind(tokens, streams.lanes, streams.window, seed)
