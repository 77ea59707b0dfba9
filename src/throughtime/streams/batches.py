"""How training cuts a stream into minibatches, and the exact place in an epoch.

A batch source computes any batch from its index alone: to resume is to ask for the next index. Every epoch has its own
random offset, drawn from (seed, epoch); it lies within one window, so an epoch leaves out less than a window at the
start and a ragged end. Where lengths of windows are drawn, they too are drawn from (seed, epoch).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from functools import lru_cache
from typing import NamedTuple, Self, final

import numpy as np

from throughtime.errors import ThroughtimeError
from throughtime.streams.batch import Batch, Int64, Tokens, empty_batch, fill_lane
from throughtime.streams.settings import Streams

Lengths = Callable[[np.random.Generator, int], Int64]
"""The lengths of the windows that a lane of so many tokens is cut into; they sum to no more than these."""


class BatchIndex(NamedTuple):
    """Which batch of a training: all that a batch is computed from."""

    epoch: int = 0
    batch: int = 0
    """Number of the batch in its epoch."""


class BatchSource(ABC):
    """Minibatches by their index.

    Args:
        lanes: sequences side by side (B), over all processes.
        window: steps of a batch (T), on average.
        seed: seed of everything drawn.
        own: the lanes that are read here; None: all of them. What is drawn is drawn for all.
    """

    def __init__(self, lanes: int, window: int, seed: int, own: range | None = None):
        self.lanes, self.window, self.seed = lanes, window, seed
        self.own = range(lanes) if own is None else own

    @abstractmethod
    def __getitem__(self, at: BatchIndex) -> Batch:
        """The own lanes of a batch."""

    @abstractmethod
    def batches_in(self, epoch: int) -> int:
        """Number of batches in an epoch, at least 1."""

    @abstractmethod
    def count_in(self, at: BatchIndex) -> int:
        """Number of targets in all lanes of a batch: its `count`, known before it is read."""

    @final
    def of_all_lanes(self) -> Self:
        """The same batches, with the lanes that other processes read."""
        whole = copy(self)
        whole.own = range(self.lanes)
        return whole

    @final
    def after(self, at: BatchIndex) -> BatchIndex:
        """The index that follows."""
        following = BatchIndex(at.epoch, at.batch + 1)
        return following if following.batch < self.batches_in(at.epoch) else BatchIndex(at.epoch + 1, 0)

    @final
    def _generator(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch])


class StreamBatches(BatchSource):
    """Windows of a stream of ids, each lane predicting the token that follows each of its own.

    Raises:
        ThroughtimeError: where the stream is too short for the lanes.
    """

    def __init__(self, tokens: Tokens, lanes: int, window: int, seed: int, own: range | None = None):
        super().__init__(lanes, window, seed, own)
        self.tokens = tokens
        needed = (lanes + 1) * window
        if len(tokens) < needed:
            raise ThroughtimeError(
                f"the training text has {len(tokens):,} tokens, and {lanes} lanes of a {window}-token "
                f"window need {needed:,}; lower streams.lanes or streams.window"
            )

    @final
    def _offset(self, epoch: int) -> int:
        return int(self._generator(epoch).integers(self.window))


@final
class SequentialBatches(StreamBatches):
    """The stream behind the offset laid out as B contiguous lanes, each cut into windows in order.

    A lane is reset in the first window of an epoch only (and where a document begins): the state is to be carried.

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

    def batches_in(self, epoch: int) -> int:
        return len(self._cuts(epoch)) - 1

    def __getitem__(self, at: BatchIndex) -> Batch:
        begin, end = self._bounds(at)
        batch = empty_batch(end - begin, len(self.own), self.count_in(at))
        first = self._offset(at.epoch) + begin
        for column, lane in enumerate(self.own):
            start = first + lane * self.lane_length
            fill_lane(batch, column, self.tokens, start, start + end - begin)
        if at.batch == 0:
            batch.reset_TB[0] = True
        return batch

    def count_in(self, at: BatchIndex) -> int:
        begin, end = self._bounds(at)
        return (end - begin) * self.lanes

    def _bounds(self, at: BatchIndex) -> tuple[int, int]:
        begin, end = self._cuts(at.epoch)[at.batch : at.batch + 2].tolist()
        return begin, end

    def _draw_cuts(self, epoch: int) -> Int64:
        """Where the windows of a lane begin and, at last, end."""
        generator = self._generator(epoch)
        generator.integers(self.window)  # the offset, drawn first
        return np.concatenate([[0], np.cumsum(self._lengths(generator, self.lane_length))])


@final
class RandomBatches(StreamBatches):
    """The stream behind the offset cut into windows, which are spread over the batches at random.

    Windows are independent: every lane is reset at the first step of each.
    """

    def __init__(self, tokens: Tokens, lanes: int, window: int, seed: int, own: range | None = None):
        super().__init__(tokens, lanes, window, seed, own)
        self._order = lru_cache(maxsize=1)(self._draw_order)

    def batches_in(self, epoch: int) -> int:  # noqa: ARG002
        return (len(self.tokens) - self.window) // self.window // self.lanes

    def __getitem__(self, at: BatchIndex) -> Batch:
        batch = empty_batch(self.window, len(self.own), self.count_in(at))
        drawn = self._order(at.epoch)[at.batch * self.lanes :][self.own.start : self.own.stop]
        for column, number in enumerate(drawn.tolist()):
            start = self._offset(at.epoch) + number * self.window
            fill_lane(batch, column, self.tokens, start, start + self.window)
        batch.reset_TB[0] = True
        return batch

    def count_in(self, at: BatchIndex) -> int:  # noqa: ARG002
        return self.window * self.lanes

    def _draw_order(self, epoch: int) -> Int64:
        generator = self._generator(epoch)
        generator.integers(self.window)  # the offset, drawn first
        return generator.permutation((len(self.tokens) - self.window) // self.window)


def make_stream_batches(
    tokens: Tokens, streams: Streams, seed: int, lengths: Lengths | None = None, own: range | None = None
) -> StreamBatches:
    """The batches that a recipe asks for; `lengths` of sequential windows as in `SequentialBatches`."""
    if streams.partition == "random":
        return RandomBatches(tokens, streams.lanes, streams.window, seed, own)
    return SequentialBatches(tokens, streams.lanes, streams.window, seed, own, lengths)
