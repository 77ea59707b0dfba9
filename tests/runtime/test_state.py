"""A state is a value: it can be picked apart, joined, sent and found damaged."""

from __future__ import annotations

import base64
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.errors import ThroughtimeError
from throughtime.runtime import State
from throughtime.runtime.state import Position


def state_of(lanes=3, model="abc"):
    """Vectors of two sizes, a matrix and a number for each lane."""
    rng = np.random.default_rng(lanes)
    return State([rng.normal(size=(lanes, *shape)).astype(np.float32) for shape in ((5,), (7,), (2, 3), ())], model)


def assert_same(arrays, others):
    for array, other in zip(arrays, others, strict=True):
        np.testing.assert_array_equal(array, other)


def test_bytes_bring_it_back():
    state = state_of()
    same = State.from_bytes(state.to_bytes())
    assert_same(same.arrays, state.arrays)
    assert (same.model, same.batch_size) == ("abc", 3)


STACKED = (
    "KAEAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJ0aHJvdWdodGltZSBzdGF0ZSI6IntcImZvcm1hdFwiOiBcIjJcIiwgXCJtb2RlbFwi"
    "OiBcImFiY1wiLCBcInNoYTI1NlwiOiBcIjlmMWFjNmNkNDIxZmY4YjhiYTY5YmZjZGU2MDA1YmZlMGE3MDZiOTAxNTA0MzQ3OTE1"
    "Y2IyYWZiOWNjZWI0MjZcIiwgXCJwb3NpdGlvbnNcIjogW1swLCBcIlwiLCBudWxsLCAwLCBbXV0sIFsxLCBcImMzXCIsIDcsIDMs"
    "IFsyLCA1XV1dfSJ9LCJzdGF0ZSI6eyJkdHlwZSI6IkYzMiIsInNoYXBlIjpbMiwyLDJdLCJkYXRhX29mZnNldHMiOlswLDMyXX19"
    "ICAgIAAAAAAAAIA+AAAAPwAAQD8AAIA/AACgPwAAwD8AAOA/"
)


def test_bytes_of_the_format_with_one_array_are_read():
    """They were written by the last version that had that format."""
    state = State.from_bytes(base64.b64decode(STACKED))
    assert_same(state.arrays, np.arange(8, dtype=np.float32).reshape(2, 2, 2) / 4)
    assert (state.model, state.batch_size) == ("abc", 2)
    assert state.positions == (Position(), Position(1, b"\xc3", 7, 3, (2, 5)))


def test_lanes_can_be_picked_and_joined():
    state = state_of()
    picked = state.select([2, 0, 2])
    assert_same(picked.arrays, [array[[2, 0, 2]] for array in state.arrays])
    assert all(array.flags.c_contiguous for array in picked.arrays)
    joined = State.join([state.select([0]), state.select([1, 2])])
    assert_same(joined.arrays, state.arrays)
    with pytest.raises(ThroughtimeError, match="should be of one model"):
        State.join([state, state_of(model="other")])
    with pytest.raises(ThroughtimeError, match="no state to join"):
        State.join([])
    with pytest.raises(ThroughtimeError, match="should be of one size"):
        State.join([state, State(state.arrays[:2], "abc")])


@pytest.mark.parametrize("arrays", [(), [np.float32(1)], [np.zeros((2, 3)), np.zeros((3, 3))]])
def test_arrays_without_a_batch_size_in_common_are_no_state(arrays):
    with pytest.raises(ThroughtimeError, match=r"a state has arrays \[B, ...\] of one batch size, got shapes"):
        State(arrays, "abc")


@given(st.data())
def test_damage_is_found(data):
    state = state_of()
    blob = bytearray(state.to_bytes())
    place = data.draw(st.integers(0, len(blob) - 1))
    blob[place] ^= data.draw(st.integers(1, 255))
    found = None
    with suppress(ThroughtimeError):
        found = State.from_bytes(bytes(blob[: data.draw(st.sampled_from([len(blob), place]))]))
    if found:  # the name of the model is not under the hash
        assert_same(found.arrays, state.arrays)


def test_what_is_no_state():
    for blob in (b"", b"hello", b"\0" * 100):
        with pytest.raises(ThroughtimeError, match="are no state of a model, or damaged"):
            State.from_bytes(blob)
