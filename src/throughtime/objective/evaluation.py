"""Measuring a model on a whole text with the state carried through it, on many lanes at once.

A lane that begins in the middle of the text should begin with the state that its predecessor ends with, which is not
known yet. So all lanes run from the initial state first. Then each runs again from its predecessor's end, without
predicting, until its states meet those of the run before: from there on both runs are the same. A network that forgets
meets itself within a few windows. One that remembers through whole lanes is followed to their ends, and its lanes run
again from where their predecessors then end, until no start moves. At last the windows before a meeting are predicted
once more, from the right states. The figure is that of a single lane, whatever the network; only the time differs.

Axes: T time, B batch (lane), S arrays of a state, H hidden, W windows.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from throughtime.objective.measure import Measure, measure
from throughtime.streams.evaluation import EvaluationLanes
from throughtime.streams.window import Int64, Tokens, Window
from throughtime.text.ids import TokenIds

WINDOW = 128
MOST_LANES = 64
TOKENS_WORTH_A_LANE = 1024
STATES_KEPT_BYTES = 1 << 26
MEETING = 1e-5
"""States whose entries differ by no more than this (relative above 1) have met. What it can change is far below 1e-5
of the sum: the difference is that of one moment, and shrinks from there."""

States = NDArray[np.float32]
"""[S, B, H]"""
Fresh = NDArray[np.bool_]


class Predictor(Protocol):
    """What is measured: its states are arrays [S, B, H] that go in and come back."""

    def initial_state(self, batch_size: int) -> States: ...

    def nats(
        self, inputs_TB: Int64, targets_TB: Int64, fresh_TB: Fresh | None, state_SBH: States
    ) -> tuple[NDArray[np.float64], States]:
        """-log P of each target (nats_TB, 0 where it is negative: none), and the state."""

    def advance(self, inputs_TB: Int64, fresh_TB: Fresh, state_SBH: States) -> States:
        """The state after a window; nothing is predicted."""


def evaluate(model: Predictor, ids: TokenIds, lanes: int | None = None) -> Measure:
    """The model's measure on a text of at least two tokens.

    It does not depend on the number of lanes (None: chosen by the length of the text).
    """
    nats, tokens = total_nats(model, ids, lanes)
    return measure(nats, tokens, ids.facts)


def total_nats(model: Predictor, tokens: Tokens, lanes: int | None = None) -> tuple[float, int]:
    """Sum of -log P over every token but the first, in float64, and the count of them."""
    lanes = lanes or max(1, min(MOST_LANES, len(tokens) // TOKENS_WORTH_A_LANE))
    layout = EvaluationLanes(tokens, lanes, WINDOW)
    if not layout.predictions:
        return 0.0, 0
    nats_WB = np.zeros((layout.windows, layout.lanes))
    trail = _Trail(layout)
    state = model.initial_state(layout.lanes)
    for index in range(layout.windows):
        nats_WB[index], state = _run(model, layout[index], state)
        trail.keep(index, state)
    wrong_B = _settle(model, layout, trail)
    running = np.arange(1, layout.lanes)
    state = trail.end[:, running - 1]
    for index in range(int(wrong_B.max())):
        running, state = _thin(running, state, wrong_B[running] > index)
        nats_WB[index, running], state = _run(model, _lanes_of(layout[index], running), state)
    return float(nats_WB.sum()), layout.predictions


def _settle(model: Predictor, layout: EvaluationLanes, trail: _Trail) -> Int64:
    """Make every lane's trail the one from its predecessor's end; how many of its windows (wrong_B) that changed."""
    wrong_B = np.zeros(layout.lanes, np.int64)
    starts = model.initial_state(layout.lanes)
    carried = np.zeros_like(starts)
    while True:
        ends = trail.end
        planned = _plan(starts, ends, carried)
        running = stale = _apart(starts, planned).nonzero()[0]
        if not len(stale):
            return wrong_B
        state = planned[:, stale]
        for index in range(layout.windows):
            window = _lanes_of(layout[index], running)
            state = model.advance(window.inputs_TB, window.fresh_TB, state)
            wrong_B[running] = np.maximum(wrong_B[running], index + 1)
            if trail.holds(index):
                apart = trail.replace(index, running, state)
                if not apart.any():
                    break
                running, state = _thin(running, state, apart)
        carried = _carried(starts, planned, ends, trail.end, carried)
        starts = starts.copy()
        starts[:, stale] = planned[:, stale]


def _thin(running: Int64, state: States, needed: Fresh) -> tuple[Int64, States]:
    """The lanes still needed, once they are at most half of those that run: every new batch size costs a set-up."""
    if 2 * int(needed.sum()) > len(running):
        return running, state
    return running[needed], state[:, needed]


def _plan(start_SBH: States, end_SBH: States, carried_SBH: States) -> States:
    """Where each lane is to begin: at its predecessor's end, as that will be once the predecessor begins as planned.

    A unit that remembers through whole lanes would otherwise be put right one lane a round.
    """
    plan_SBH = start_SBH.copy()
    for lane in range(1, plan_SBH.shape[1]):
        moved_SH = plan_SBH[:, lane - 1] - start_SBH[:, lane - 1]
        plan_SBH[:, lane] = end_SBH[:, lane - 1] + carried_SBH[:, lane - 1] * moved_SH
    return plan_SBH


def _carried(start: States, new_start: States, end: States, new_end: States, before: States) -> States:
    """What share of a unit's change at the start of a lane arrives at its end, by the secant of the last two runs."""
    moved = new_start - start
    told = np.abs(moved) > MEETING
    return np.where(told, np.clip((new_end - end) / np.where(told, moved, np.float32(1)), 0, 1), before)


class _Trail:
    """States at the ends of windows: all of them, or as many, evenly spaced, as memory is set aside for."""

    def __init__(self, layout: EvaluationLanes):
        self._windows = layout.windows
        self._states: dict[int, States] = {}
        self._stride = 1

    @property
    def end(self) -> States:
        return self._states[self._windows - 1]

    def holds(self, index: int) -> bool:
        return index in self._states

    def keep(self, index: int, state: States) -> None:
        if index == 0:
            self._stride = -(-state.nbytes * self._windows // STATES_KEPT_BYTES)
        if index % self._stride == 0 or index == self._windows - 1:
            self._states[index] = state

    def replace(self, index: int, lanes: Int64, state: States) -> Fresh:
        """Put the lanes' new states in place of their old ones; which of them had not met."""
        apart = _apart(self._states[index][:, lanes], state)
        changed = self._states[index].copy()
        changed[:, lanes] = state
        self._states[index] = changed
        return apart


def _run(model: Predictor, window: Window, state: States) -> tuple[NDArray[np.float64], States]:
    nats_TB, state = model.nats(window.inputs_TB, window.targets_TB, window.fresh_TB, state)
    return nats_TB.sum(0), state


def _lanes_of(window: Window, lanes: Int64) -> Window:
    inputs_TB, targets_TB, fresh_TB = window
    return Window(inputs_TB[:, lanes], targets_TB[:, lanes], fresh_TB[:, lanes])


def _apart(one: States, other: States) -> Fresh:
    """Which lanes of two states differ (mask_B)."""
    differ: Fresh = (np.abs(one - other) > MEETING * np.maximum(np.abs(one), 1)).any((0, 2))
    return differ
