"""The lanes of an evaluation, and the figures that come out of the sums."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers import counted_tokens
from throughtime.streams.batch import NO_TARGET
from throughtime.streams.evaluation import EvaluationLanes

shapes = given(tokens=st.integers(2, 150), lanes=st.integers(1, 200), window=st.integers(1, 40))
quick = settings(deadline=None)


def joined(layout: EvaluationLanes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets and fresh marks of all windows, one after the other, [step, lane]."""
    windows = [layout[index] for index in range(layout.windows)]
    arrays = ((batch.inputs, batch.targets, batch.reset_TB) for batch in windows)
    return tuple(np.concatenate(parts) for parts in zip(*arrays, strict=True))


@quick
@shapes
@example(tokens=2, lanes=64, window=1)
@example(tokens=11, lanes=4, window=3)
def test_every_token_but_the_first_is_predicted_once_and_in_order(tokens, lanes, window):
    layout = EvaluationLanes(counted_tokens(tokens), lanes, window)
    inputs, targets, _ = joined(layout)
    predicted = targets.T[targets.T != NO_TARGET]  # lane after lane
    assert predicted.tolist() == list(range(1001, 1000 + tokens))
    assert (inputs[targets != NO_TARGET] == targets[targets != NO_TARGET] - 1).all()
    assert not inputs[targets == NO_TARGET].any()


@quick
@shapes
@example(tokens=11, lanes=4, window=3)
def test_only_the_last_lane_is_ragged(tokens, lanes, window):
    layout = EvaluationLanes(counted_tokens(tokens), lanes, window)
    _, targets, _ = joined(layout)
    lengths = (targets != NO_TARGET).sum(0)
    assert 1 <= layout.lanes <= lanes
    assert len(targets) == layout.lane_length
    assert (lengths[:-1] == layout.lane_length).all()
    assert 1 <= lengths[-1] <= layout.lane_length
    assert (targets[: lengths[-1], -1] != NO_TARGET).all()


@quick
@shapes
def test_only_the_last_window_is_short(tokens, lanes, window):
    layout = EvaluationLanes(counted_tokens(tokens), lanes, window)
    steps = [len(layout[index].inputs) for index in range(layout.windows)]
    assert steps[:-1] == [window] * (layout.windows - 1)
    assert 1 <= steps[-1] <= window


@quick
@given(
    tokens=st.integers(2, 150),
    lanes=st.integers(1, 200),
    window=st.integers(1, 40),
    documents=st.sets(st.integers(0, 149), max_size=9),
)
def test_only_lane_0_and_documents_are_fresh(tokens, lanes, window, documents):
    documents = tuple(sorted(place for place in documents if place < tokens))
    inputs, targets, fresh = joined(EvaluationLanes(counted_tokens(tokens, documents), lanes, window))
    expected = np.isin(inputs - 1000, documents) & (targets != NO_TARGET)
    expected[0, 0] = True
    assert fresh.tolist() == expected.tolist()


def test_a_small_text_by_hand():
    layout = EvaluationLanes(counted_tokens(9, documents=(0, 5)), lanes=3, window=2)
    assert (layout.lanes, layout.lane_length, layout.windows, layout.predictions) == (3, 3, 2, 8)
    first, last = layout[0], layout[1]
    assert first.inputs.tolist() == [[1000, 1003, 1006], [1001, 1004, 1007]]
    assert first.targets.tolist() == [[1001, 1004, 1007], [1002, 1005, 1008]]
    assert first.reset_TB.tolist() == [[True, False, False], [False, False, False]]
    assert last.inputs.tolist() == [[1002, 1005, 0]]
    assert last.targets.tolist() == [[1003, 1006, NO_TARGET]]
    assert last.reset_TB.tolist() == [[False, True, False]]


@quick
@given(
    tokens=st.integers(2, 150),
    lanes=st.integers(1, 40),
    steps=st.integers(1, 50),
    documents=st.sets(st.integers(0, 149), max_size=9),
)
def test_a_warm_up_reads_the_text_before_each_lane_and_resets_where_there_is_none(tokens, lanes, steps, documents):
    documents = tuple(sorted(place for place in documents if place < tokens))
    layout = EvaluationLanes(counted_tokens(tokens, documents), lanes, 8)
    batch = layout.warm_up(steps)
    inputs, fresh = batch.inputs, batch.reset_TB
    for lane in range(layout.lanes):
        before = range(max(0, lane * layout.spacing - steps), lane * layout.spacing)
        read = inputs[steps - len(before) :, lane]
        assert read.tolist() == [1000 + place for place in before]
        assert not inputs[: steps - len(before), lane].any()
        marks = {place for place in before if place in documents} | {place for place in before if place == 0}
        assert (fresh[:, lane].nonzero()[0] + lane * layout.spacing - steps).tolist() == sorted(marks)


@quick
@given(tokens=st.integers(2, 300), lanes=st.integers(1, 40), most=st.integers(1, 300))
def test_a_limit_leaves_evenly_spaced_stretches(tokens, lanes, most):
    layout = EvaluationLanes(counted_tokens(tokens), lanes, 8, most)
    inputs, targets, _ = joined(layout)
    predicted = targets.T[targets.T != NO_TARGET]
    assert len(predicted) == layout.read <= max(most, layout.lanes)
    assert len(set(predicted.tolist())) == layout.read
    assert (inputs[0] - 1000).tolist() == [lane * layout.spacing for lane in range(layout.lanes)]
    if most >= tokens - 1:
        assert layout.read == tokens - 1


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_text_without_predictions_has_no_lanes_and_no_windows(tokens):
    layout = EvaluationLanes(counted_tokens(tokens), 4, 3)
    assert (layout.predictions, layout.lanes, layout.windows) == (0, 0, 0)
