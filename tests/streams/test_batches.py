"""Windows of training: every one at its place, none twice, the state fresh where it should be."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers import counted_tokens
from throughtime.errors import ThroughtimeError
from throughtime.streams.batches import BatchIndex, BatchSource, RandomBatches, SequentialBatches, make_stream_batches
from throughtime.streams.settings import Streams

SEED = 7
KINDS = [SequentialBatches, RandomBatches]


@st.composite
def layouts(draw):
    """Tokens, lanes, window and seed that give at least one window an epoch."""
    lanes, window = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    needed = (lanes + 1) * window
    return draw(st.integers(needed, needed + 120)), lanes, window, draw(st.integers(0, 2**40))


def cut(kind: type[BatchSource], layout, documents=()) -> BatchSource:
    tokens, lanes, window, seed = layout
    return kind(counted_tokens(tokens, documents), lanes, window, seed)


def epoch_of(part: BatchSource, epoch: int) -> list:
    return [part[BatchIndex(epoch, window)] for window in range(part.batches_in(epoch))]


def arrays_of(batch):
    return batch.inputs, batch.targets, batch.reset_TB


def starts_of(part: BatchSource, epoch: int) -> np.ndarray:
    """Where each window of an epoch begins in the stream, [window, lane]."""
    return np.array([window.inputs[0] - 1000 for window in epoch_of(part, epoch)])


both = pytest.mark.parametrize("kind", KINDS)
quick = settings(deadline=None, max_examples=100)


@both
@quick
@given(layout=layouts(), epoch=st.integers(0, 5))
def test_every_lane_is_a_stretch_of_the_stream_and_targets_are_one_ahead(kind, layout, epoch):
    part = cut(kind, layout)
    for window in epoch_of(part, epoch):
        assert window.inputs.shape == (part.window, part.lanes)
        assert (window.inputs == window.inputs[0] + np.arange(part.window)[:, None]).all()
        assert (window.targets == window.inputs + 1).all()


@quick
@given(layout=layouts(), epoch=st.integers(0, 5))
def test_random_windows_stand_on_a_grid_behind_the_offset_and_are_dealt_once(layout, epoch):
    part = cut(RandomBatches, layout)
    starts = starts_of(part, epoch).ravel()
    offset = starts[0] % part.window
    assert (starts % part.window == offset).all()
    assert len(set(starts.tolist())) == len(starts)
    grid = (len(part.tokens) - part.window) // part.window
    assert set(((starts - offset) // part.window).tolist()) <= set(range(grid))
    assert grid - len(starts) < part.lanes


@quick
@given(layout=layouts(), epoch=st.integers(0, 5))
def test_random_windows_are_fresh_at_the_first_step_only(layout, epoch):
    for window in epoch_of(cut(RandomBatches, layout), epoch):
        assert window.reset_TB[0].all()
        assert not window.reset_TB[1:].any()


def test_random_windows_come_in_another_order_each_epoch_and_with_each_seed():
    part, other = (
        RandomBatches(counted_tokens(3000), 4, 10, SEED),
        RandomBatches(counted_tokens(3000), 4, 10, SEED + 1),
    )
    orders = [(starts_of(source, epoch) // 10).ravel().tolist() for source in (part, other) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 6
    assert all(order != sorted(order) for order in orders)
    assert all(len(set(order)) == 296 for order in orders)


@quick
@given(layout=layouts(), epoch=st.integers(0, 5))
def test_sequential_lanes_go_on_from_window_to_window(layout, epoch):
    part = cut(SequentialBatches, layout)
    starts = starts_of(part, epoch)
    assert 0 <= starts[0, 0] < part.window
    assert (starts - starts[0] == np.arange(part.batches_in(0))[:, None] * part.window).all()
    length = (len(part.tokens) - part.window) // part.lanes
    assert (np.diff(starts[0]) == length).all()
    assert 0 <= length - part.batches_in(0) * part.window < part.window


@quick
@given(layout=layouts(), epoch=st.integers(0, 5))
def test_sequential_lanes_are_fresh_in_the_first_step_of_an_epoch_only(layout, epoch):
    first, *rest = epoch_of(cut(SequentialBatches, layout), epoch)
    assert first.reset_TB[0].all()
    assert not first.reset_TB[1:].any()
    assert not any(window.reset_TB.any() for window in rest)


@both
@quick
@given(layout=layouts())
def test_every_epoch_has_as_many_windows_and_fits_the_stream(kind, layout):
    part = cut(kind, layout)
    tokens, lanes, window, _ = layout
    leftover = (tokens - window) - part.batches_in(0) * lanes * window
    assert 0 <= leftover < lanes * window
    for epoch in range(4):
        assert starts_of(part, epoch).shape == (part.batches_in(0), lanes)
        assert starts_of(part, epoch).max() + window < tokens


@both
def test_offsets_lie_in_a_window_and_differ_over_epochs(kind):
    part = kind(counted_tokens(200), 3, 10, SEED)
    offsets = [int(starts_of(part, epoch).min()) % 10 for epoch in range(200)]
    assert set(offsets) == set(range(10))


@both
@quick
@given(layout=layouts(), places=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), min_size=1, max_size=6))
def test_a_window_depends_on_its_place_alone(kind, layout, places):
    part = cut(kind, layout)
    for epoch, window in [*places, *places[::-1]]:
        place = BatchIndex(epoch, window % part.batches_in(0))
        for ours, anew in zip(arrays_of(part[place]), arrays_of(cut(kind, layout)[place]), strict=True):
            assert ours.tolist() == anew.tolist()


@both
def test_a_window_is_a_copy(kind):
    part = kind(counted_tokens(100), 2, 5, SEED)
    first = part[BatchIndex(0, 0)].inputs.copy()
    for array in arrays_of(part[BatchIndex(0, 0)]):
        array[:] = 0
    assert part[BatchIndex(0, 0)].inputs.tolist() == first.tolist()


@both
@quick
@given(layout=layouts())
def test_places_walk_through_epochs(kind, layout):
    part, place, walked = cut(kind, layout), BatchIndex(), []
    for _ in range(2 * part.batches_in(0) + 1):
        walked.append(tuple(place))
        place = part.after(place)
    windows = range(part.batches_in(0))
    assert walked == [(epoch, window) for epoch in (0, 1) for window in windows] + [(2, 0)]


@both
@quick
@given(layout=layouts())
@example(layout=(4, 1, 2, 0))
def test_the_error_names_the_fewest_tokens_that_do(kind, layout):
    _, lanes, window, seed = layout
    needed = (lanes + 1) * window
    assert cut(kind, (needed, lanes, window, seed)).batches_in(0) == 1
    for tokens in {0, window - 1, needed - 1}:
        with pytest.raises(ThroughtimeError) as caught:
            cut(kind, (tokens, lanes, window, seed))
        assert str(caught.value) == (
            f"the training text has {tokens} tokens, and {lanes} lanes of a {window}-token window need {needed}; "
            "lower streams.lanes or streams.window"
        )


def test_the_error_writes_large_counts_in_groups():
    with pytest.raises(ThroughtimeError, match="has 2,000 tokens, and 64 lanes of a 128-token window need 8,320;"):
        RandomBatches(counted_tokens(2000), 64, 128, SEED)


@both
@quick
@given(layout=layouts(), data=st.data())
def test_a_lane_is_fresh_where_a_document_begins(kind, layout, data):
    documents = tuple(sorted(data.draw(st.sets(st.integers(0, layout[0] - 1), max_size=12))))
    part = cut(kind, layout, documents)
    for epoch in range(2):
        for index, window in enumerate(epoch_of(part, epoch)):
            expected = np.isin(window.inputs - 1000, documents)
            expected[0] |= index == 0 or kind is RandomBatches
            assert window.reset_TB.tolist() == expected.tolist()


@pytest.mark.parametrize(("name", "kind"), [("sequential", SequentialBatches), ("random", RandomBatches)])
def test_a_recipe_chooses_its_partition(name, kind):
    part = make_stream_batches(counted_tokens(100), Streams(partition=name, lanes=3, window=5), seed=11)
    assert type(part) is kind
    expected = kind(counted_tokens(100), 3, 5, 11)[BatchIndex(1, 2)]
    assert part[BatchIndex(1, 2)].inputs.tolist() == expected.inputs.tolist()
