"""A state is a value: it can be picked apart, joined, sent and found damaged."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.errors import ThroughtimeError
from throughtime.runtime import State


def state_of(lanes=3, model="abc"):
    return State(np.random.default_rng(lanes).normal(size=(2, lanes, 5)).astype(np.float32), model)


def test_bytes_bring_it_back():
    state = state_of()
    same = State.from_bytes(state.to_bytes())
    np.testing.assert_array_equal(same.array_SBH, state.array_SBH)
    assert (same.model, same.batch_size) == ("abc", 3)


def test_lanes_can_be_picked_and_joined():
    state = state_of()
    picked = state.select([2, 0, 2])
    np.testing.assert_array_equal(picked.array_SBH, state.array_SBH[:, [2, 0, 2]])
    assert picked.array_SBH.flags.c_contiguous
    joined = State.join([state.select([0]), state.select([1, 2])])
    np.testing.assert_array_equal(joined.array_SBH, state.array_SBH)
    with pytest.raises(ThroughtimeError, match="should be of one model"):
        State.join([state, state_of(model="other")])
    with pytest.raises(ThroughtimeError, match="no state to join"):
        State.join([])


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
        np.testing.assert_array_equal(found.array_SBH, state.array_SBH)


def test_what_is_no_state():
    for blob in (b"", b"hello", b"\0" * 100):
        with pytest.raises(ThroughtimeError, match="are no state of a model, or damaged"):
            State.from_bytes(blob)
