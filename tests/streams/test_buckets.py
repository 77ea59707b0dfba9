"""Batches of independent examples: each once an epoch, of like length, from the index alone, on every process alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.errors import ThroughtimeError
from throughtime.streams.batch import NO_TARGET, Batch
from throughtime.streams.batches import BatchIndex
from throughtime.streams.buckets import BucketedBatches

quick = settings(deadline=None, max_examples=60)
lengths = st.lists(st.integers(1, 30), min_size=1, max_size=80)


def source_of(lengths_N, lanes, seed=0, own=None, targets_N=None):
    """Example n reads n at each of its steps, and its target is n."""
    lengths_N = np.array(lengths_N)

    def collate(numbers_B):
        lengths_B = np.where(numbers_B >= 0, lengths_N[numbers_B], 0)
        steps = int(lengths_B.max(initial=1))
        inputs_TB = np.where(np.arange(steps)[:, None] < lengths_B, numbers_B, 0)
        reset_TB = np.zeros((steps, len(numbers_B)), np.bool_)
        reset_TB[0] = True
        return Batch(inputs_TB, np.where(numbers_B >= 0, numbers_B, NO_TARGET), reset_TB, 0, lengths_B)

    return BucketedBatches(lengths_N, collate, lanes, seed, own, targets_N)


def epoch_of(source, epoch):
    return [source[BatchIndex(epoch, batch)] for batch in range(source.batches_in(epoch))]


@quick
@given(lengths, st.integers(1, 9), st.integers(0, 3))
def test_every_example_is_read_once_an_epoch_with_its_length(lengths_N, lanes, epoch):
    read = []
    for batch in epoch_of(source_of(lengths_N, lanes), epoch):
        there = batch.targets != NO_TARGET
        read += batch.targets[there].tolist()
        assert batch.lengths_B[there].tolist() == [lengths_N[number] for number in batch.targets[there]]
        assert not batch.lengths_B[~there].any()
        assert batch.count == there.sum()
        assert len(batch.inputs) == batch.lengths_B.max()
    assert sorted(read) == list(range(len(lengths_N)))


@quick
@given(lengths, st.integers(2, 9), st.data())
def test_processes_read_the_same_batches_lane_by_lane(lengths_N, lanes, data):
    cut = data.draw(st.integers(1, lanes - 1))
    whole = epoch_of(source_of(lengths_N, lanes), 1)
    parts = [epoch_of(source_of(lengths_N, lanes, own=own), 1) for own in (range(cut), range(cut, lanes))]
    assert len(parts[0]) == len(parts[1]) == len(whole)
    for batch, left, right in zip(whole, *parts, strict=True):
        assert batch.targets.tolist() == [*left.targets, *right.targets]
        assert batch.count == left.count == right.count


def test_a_batch_depends_on_its_index_alone_and_epochs_differ():
    lengths_N = np.random.default_rng(0).integers(1, 50, 300)
    one, other = source_of(lengths_N, 8), source_of(lengths_N, 8)
    forward = [batch.targets.tolist() for batch in epoch_of(one, 2)]
    backward = [other[BatchIndex(2, batch)].targets.tolist() for batch in reversed(range(other.batches_in(2)))]
    assert forward == backward[::-1]
    assert forward != [batch.targets.tolist() for batch in epoch_of(one, 3)]
    assert forward != [batch.targets.tolist() for batch in epoch_of(source_of(lengths_N, 8, seed=1), 2)]


def test_padding_is_a_small_share_of_what_is_read():
    lengths_N = np.random.default_rng(0).integers(1, 200, 4000)
    cells = sum(batch.inputs.size for batch in epoch_of(source_of(lengths_N, 32), 0))
    assert cells < 1.1 * lengths_N.sum()


def test_the_count_follows_the_targets_of_the_examples():
    source = source_of([3, 5, 2], 2, targets_N=[3, 5, 2])
    assert sum(batch.count for batch in epoch_of(source, 0)) == 10
    assert all(source.count_in(BatchIndex(0, index)) == source[BatchIndex(0, index)].count for index in range(2))


def test_no_examples_are_refused():
    with pytest.raises(ThroughtimeError, match="there are no examples to train on"):
        source_of([], 2)
