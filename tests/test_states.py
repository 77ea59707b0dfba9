"""States outside PyTorch: any number of arrays of any shape behind the lanes."""

from __future__ import annotations

import numpy as np
import pytest

from throughtime import states


def drawn(lanes, seed=0):
    """A matrix, a number and a vector a lane, of two types."""
    rng = np.random.default_rng(seed)
    shapes = [(lanes, 2, 3), (lanes,), (lanes, 4)]
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    return (*arrays[:2], arrays[2].astype(np.float64))


def same(one, other):
    return all(a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("lanes", [0, 1, 5])
def test_a_state_in_one_array_comes_back_as_it_was(lanes):
    state = drawn(lanes)
    packed = states.flat(state)
    assert packed.shape == (lanes, 6 + 1 + 4)
    assert same(states.shaped(packed, drawn(2)), state)


def test_lanes_are_selected_and_written_by_indices_masks_and_slices():
    state, other = drawn(5), drawn(5, seed=1)
    for lanes in (np.array([3, 0, 3]), np.array([True, False, True, False, False]), slice(1, 4)):
        assert same(states.select(state, lanes), tuple(array[lanes] for array in state))
    written = states.copy(state)
    states.put(written, np.array([4, 1]), states.select(other, np.array([0, 2])))
    for kept, lane in ((state, 0), (state, 2), (state, 3)):
        assert same(states.select(written, slice(lane, lane + 1)), states.select(kept, slice(lane, lane + 1)))
    assert same(states.select(written, np.array([4, 1])), states.select(other, np.array([0, 2])))


def test_a_roll_gives_each_lane_the_state_of_the_lane_before():
    state = drawn(4)
    assert same(states.roll(state), states.select(state, np.array([3, 0, 1, 2])))


def test_the_distance_is_the_largest_of_any_array_and_relative_above_1():
    one = drawn(4)
    one[2][2, 1] = 1000.0
    other = states.copy(one)
    other[0][0, 1, 2] += 0.25
    other[1][1] -= 0.5
    other[2][2, 1] += 1.0
    apart = np.maximum(1, [abs(one[0][0, 1, 2]), abs(one[1][1]), 1000.0, 1.0])
    np.testing.assert_allclose(states.distance(one, other), np.array([0.25, 0.5, 1.0, 0.0]) / apart, rtol=1e-6)
    other[1][3] = np.nan
    assert np.isnan(states.distance(one, other)).tolist() == [False, False, False, True]


def test_the_bytes_are_those_of_all_arrays_and_empty_ones_have_their_shapes():
    state = drawn(3)
    assert states.nbytes(state) == 3 * (6 * 4 + 4 + 4 * 8)
    assert [array.shape for array in states.empty(state, 7)] == [(7, 3, 2, 3), (7, 3), (7, 3, 4)]
