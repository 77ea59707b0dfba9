"""Measuring a model on a whole text with the state carried through it, on many lanes at once.

A lane that begins in the middle of the text should begin with the state that its predecessor ends with, which is not
known yet. So all lanes run from the initial state first. Then each runs again from its predecessor's end, without
predicting, until its states meet those of the run before: from there on both runs are the same. A network that forgets
meets itself within a few windows. One that remembers through whole lanes is followed to their ends, and its lanes run
again from where their predecessors then end, until no start moves. At last the windows before a meeting are predicted
once more, from the right states. The figure is that of a single lane, whatever the network; only the time differs.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from throughtime.cells.state import State, leaves, map_state, put_rows, select_rows
from throughtime.models.language import LanguageModel
from throughtime.objective.measure import Measure, measure
from throughtime.streams.evaluation import EvaluationLanes
from throughtime.streams.window import Tokens, Window
from throughtime.text.ids import IdsFile

WINDOW = 128
MOST_LANES = 64
TOKENS_WORTH_A_LANE = 1024
STATES_KEPT_BYTES = 1 << 26
MEETING = 1e-5
"""States whose entries differ by no more than this (relative above 1) have met. What it can change is far below 1e-5
of the sum: the difference is that of one moment, and shrinks from there."""


def evaluate(model: LanguageModel, ids: IdsFile, lanes: int | None = None) -> Measure:
    """The model's measure on a text of at least two tokens.

    It does not depend on the number of lanes (None: chosen by the length of the text).
    """
    nats, tokens = total_nats(model, ids, lanes)
    return measure(nats, tokens, ids.facts)


@torch.no_grad()
def total_nats(model: LanguageModel, tokens: Tokens, lanes: int | None = None) -> tuple[float, int]:
    """Sum of -log P over every token but the first, in float64, and the count of them."""
    lanes = lanes or max(1, min(MOST_LANES, len(tokens) // TOKENS_WORTH_A_LANE))
    layout = EvaluationLanes(tokens, lanes, WINDOW)
    if not layout.predictions:
        return 0.0, 0
    nats_WB = torch.zeros(layout.windows, layout.lanes, dtype=torch.float64)
    trail = _Trail(layout)
    state = model.initial_state(layout.lanes)
    for index in range(layout.windows):
        nats_WB[index], state = _run(model, layout[index], state)
        trail.keep(index, state)
    wrong_B = _settle(model, layout, trail)
    running = torch.arange(layout.lanes)[1:]
    state = select_rows(trail.end, running - 1)
    for index in range(int(wrong_B.max())):
        running, state = _thin(running, state, wrong_B[running] > index)
        nats_WB[index, running], state = _run(model, _lanes_of(layout[index], running), state)
    return float(nats_WB.sum()), layout.predictions


def _settle(model: LanguageModel, layout: EvaluationLanes, trail: _Trail) -> Tensor:
    """Make every lane's trail the one from its predecessor's end; how many of its windows (wrong_B) that changed."""
    wrong_B = torch.zeros(layout.lanes, dtype=torch.long)
    starts = model.initial_state(layout.lanes)
    carried = map_state(torch.zeros_like, starts)
    while True:
        ends = trail.end
        planned = map_state(_plan, starts, ends, carried)
        running = stale = _apart(starts, planned).nonzero().flatten()
        if not len(stale):
            return wrong_B
        state = select_rows(planned, stale)
        for index in range(layout.windows):
            inputs_TB, _, state, fresh_TB = _tensors(_lanes_of(layout[index], running), state)
            state = model.advance(inputs_TB, state, fresh_TB)
            wrong_B[running] = wrong_B[running].clamp(min=index + 1)
            if trail.holds(index):
                apart = trail.replace(index, running, state)
                if not apart.any():
                    break
                running, state = _thin(running, state, apart)
        carried = map_state(_carried, starts, planned, ends, trail.end, carried)
        starts = put_rows(starts, stale, select_rows(planned, stale))


def _thin(running: Tensor, state: State, needed: Tensor) -> tuple[Tensor, State]:
    """The lanes still needed, once they are at most half of those that run: every new batch size costs a set-up."""
    if 2 * int(needed.sum()) > len(running):
        return running, state
    return running[needed], select_rows(state, needed.nonzero().flatten())


def _plan(start_BH: Tensor, end_BH: Tensor, carried_BH: Tensor) -> Tensor:
    """Where each lane is to begin: at its predecessor's end, as that will be once the predecessor begins as planned.

    A unit that remembers through whole lanes would otherwise be put right one lane a round.
    """
    plan_BH = start_BH.clone()
    for lane in range(1, len(plan_BH)):
        moved_H = plan_BH[lane - 1] - start_BH[lane - 1]
        plan_BH[lane] = end_BH[lane - 1] + carried_BH[lane - 1] * moved_H
    return plan_BH


def _carried(start: Tensor, new_start: Tensor, end: Tensor, new_end: Tensor, before: Tensor) -> Tensor:
    """What share of a unit's change at the start of a lane arrives at its end, by the secant of the last two runs."""
    moved = new_start - start
    told = moved.abs() > MEETING
    return torch.where(told, ((new_end - end) / torch.where(told, moved, 1.0)).clamp(0, 1), before)


@torch.no_grad()
def surprise(model: LanguageModel, tokens: Tokens) -> npt.NDArray[np.float64]:
    """-log2 P of every token but the first, in bits, in the order of the text, the state carried through it."""
    layout = EvaluationLanes(tokens, 1, WINDOW)
    state = model.initial_state(1)
    bits = np.empty(layout.predictions)
    for index in range(layout.windows):
        nats_T1, state = model.nats(*_tensors(layout[index], state))
        bits[index * WINDOW :][:WINDOW] = nats_T1[:, 0].double().numpy() / math.log(2)
    return bits


class _Trail:
    """States at the ends of windows: all of them, or as many, evenly spaced, as memory is set aside for."""

    def __init__(self, layout: EvaluationLanes):
        self._windows = layout.windows
        self._states: dict[int, State] = {}
        self._stride = 1

    @property
    def end(self) -> State:
        return self._states[self._windows - 1]

    def holds(self, index: int) -> bool:
        return index in self._states

    def keep(self, index: int, state: State) -> None:
        if index == 0:
            size = sum(leaf.nbytes for leaf in leaves(state)) * self._windows
            self._stride = -(-size // STATES_KEPT_BYTES)
        if index % self._stride == 0 or index == self._windows - 1:
            self._states[index] = state

    def replace(self, index: int, rows: Tensor, state: State) -> Tensor:
        """Put the rows' new states in place of their old ones; which of them had not met."""
        before = select_rows(self._states[index], rows)
        self._states[index] = put_rows(self._states[index], rows, state)
        return _apart(before, state)


def _run(model: LanguageModel, window: Window, state: State) -> tuple[Tensor, State]:
    nats_TB, state = model.nats(*_tensors(window, state))
    return nats_TB.double().sum(0), state


def _tensors(window: Window, state: State) -> tuple[Tensor, Tensor, State, Tensor]:
    inputs_TB, targets_TB, fresh_TB = (torch.from_numpy(array) for array in window)
    return inputs_TB, targets_TB, state, fresh_TB


def _lanes_of(window: Window, lanes: Tensor) -> Window:
    columns = lanes.numpy()
    return Window(window.inputs_TB[:, columns], window.targets_TB[:, columns], window.fresh_TB[:, columns])


def _apart(one: State, other: State) -> Tensor:
    """Which rows of two states differ (mask_B)."""
    differ = [
        ((a - b).abs() > MEETING * torch.maximum(a.abs(), torch.ones_like(a))).flatten(1).any(1)
        for a, b in zip(leaves(one), leaves(other), strict=True)
    ]
    return torch.stack(differ).any(0)
