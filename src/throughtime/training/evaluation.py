"""Measuring a model on a whole text with the state carried through it, on many lanes at once.

A lane that begins in the middle of the text should begin with the state that its predecessor ends with, which is not
known yet. So all lanes run from the initial state first; then each runs again from its predecessor's end, until its
states meet those of the run before. From there on both runs are the same, and the rest stands. A network that forgets
meets itself within a few windows; one that does not is followed to the end of its lane, and then its successor runs
again: the figure is that of a single lane either way, only the time differs.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from throughtime.cells.state import State, leaves, put_rows, select_rows
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

    stale = torch.arange(1, layout.lanes)
    while len(stale):
        running, state = stale, select_rows(trail.end, stale - 1)
        for index in range(layout.windows):
            nats_WB[index, running], state = _run(model, _lanes_of(layout[index], running), state)
            if trail.holds(index):
                apart = trail.replace(index, running, state)
                running, state = running[apart], select_rows(state, apart.nonzero().flatten())
                if not len(running):
                    break
        stale = running[running < layout.lanes - 1] + 1
    return float(nats_WB.sum()), layout.predictions


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
