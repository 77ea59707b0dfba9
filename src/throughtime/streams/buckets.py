"""Independent examples of unequal length, in batches of examples of like length.

Every epoch shuffles the examples anew, sorts them by length within groups of some batches, and shuffles the batches:
batches are nearly free of padding, and examples still meet others in every epoch. All of it is drawn from
(seed, epoch), so any batch is computed from its index alone.

Axes: T time, B batch (lane), N example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import final

import numpy as np
import numpy.typing as npt

from throughtime.errors import ThroughtimeError
from throughtime.streams.batch import Batch, Int64
from throughtime.streams.batches import BatchIndex, BatchSource

BATCHES_PER_GROUP = 16
"""Batches whose examples are sorted by length together: with more, less padding; with fewer, more mixing."""

Collate = Callable[[Int64], Batch]
"""Makes a batch of the examples of these numbers, in order; a number of -1 stands for an empty lane."""


@final
class BucketedBatches(BatchSource):
    """Each example once an epoch, in batches of examples of like length.

    Where the last batch of an epoch is not full, its other lanes are empty: length 0, without a target. Every process
    reads its own lanes of every batch, so all make equally many.

    Args:
        lengths_N: steps of each example.
        collate: makes a batch of examples; its `count` is replaced by that of all lanes.
        targets_N: number of targets of each example; None: 1.
        lanes: examples in a batch, over all processes.
        seed: seed of the order.
        own: the lanes that are read here; None: all of them.

    Raises:
        ThroughtimeError: where there are no examples.
    """

    def __init__(
        self,
        lengths_N: Sequence[int] | Int64,
        collate: Collate,
        lanes: int,
        seed: int,
        own: range | None = None,
        targets_N: Sequence[int] | Int64 | None = None,
    ):
        self.lengths_N = np.asarray(lengths_N, np.int64)
        if not len(self.lengths_N):
            raise ThroughtimeError("there are no examples to train on")
        super().__init__(lanes, int(self.lengths_N.max()), seed, own)
        self.targets_N = np.ones_like(self.lengths_N) if targets_N is None else np.asarray(targets_N, np.int64)
        self._collate = collate
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def batches_in(self, epoch: int) -> int:  # noqa: ARG002
        return -(-len(self.lengths_N) // self.lanes)

    def count_in(self, at: BatchIndex) -> int:
        numbers_B = self._order(at.epoch)[at.batch]
        return int(self.targets_N[numbers_B[numbers_B >= 0]].sum())

    def __getitem__(self, at: BatchIndex) -> Batch:
        numbers_B = self._order(at.epoch)[at.batch]
        batch = self._collate(numbers_B[self.own.start : self.own.stop])
        return Batch(batch.inputs, batch.targets, batch.reset_TB, self.count_in(at), batch.lengths_B)

    def _draw_order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The examples of each batch of an epoch, [batch, B]; -1 where there are no more."""
        generator = self._generator(epoch)
        drawn_N = generator.permutation(len(self.lengths_N))
        group = BATCHES_PER_GROUP * self.lanes
        sorted_N = np.concatenate(
            [
                numbers[np.argsort(-self.lengths_N[numbers], kind="stable")]
                for numbers in np.split(drawn_N, range(group, len(drawn_N), group))
            ]
        )
        missing = -len(sorted_N) % self.lanes
        batches = np.concatenate([sorted_N, np.full(missing, -1)]).reshape(-1, self.lanes)
        return batches[generator.permutation(len(batches))]
