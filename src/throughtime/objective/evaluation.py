"""Measuring a model on a whole text with the state carried through it, on many lanes at once.

`evaluate` is exact: its figure is that of a single lane, and only the time depends on the lanes. A lane that begins in
the middle of the text has to begin with the state that its predecessor ends with, which is not known yet. So all lanes
are read from the initial state first, and then again from their predecessors' ends until their states meet those of
the first reading: from there on both readings are the same. A network that forgets meets itself within a few windows.
A trial at the beginning shows whether the network is of that kind; if it is not, the text is read by one lane, and so
is whatever has not met after two corrections.

`estimate` is for validation during training: every lane begins with a warm-up over the text before it, and is read
once. It costs little more than a plain pass, whatever the network.

A state is a tuple of arrays (`states`). Axes: T time, B batch (lane), W windows, K states kept.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, final

import numpy as np
from numpy.typing import NDArray

from throughtime import states
from throughtime.objective.measure import Measure, measure
from throughtime.states import States
from throughtime.streams.batch import Batch, Int64, Tokens, select_lanes
from throughtime.streams.evaluation import EvaluationLanes
from throughtime.text.ids import TokenIds

WINDOW = 128
"""Steps read at once in lanes."""
WINDOW_ALONE = 2048
"""Steps read at once by one lane: its outputs then make one large product."""
MOST_LANES = 64
TOKENS_WORTH_A_LANE = 1024
WARM_UP = 128
"""Steps that an estimated lane reads before it predicts."""
CORRECTIONS = 2
"""Times that lanes are read again before the rest is read by one lane."""
TRIAL_SHARE = 8
"""The trial reads one window in so many, at least one."""
TRIAL_QUANTILE = 0.75
"""Lane, by how far its states stay apart in the trial, that stands for all of them."""
STATES_KEPT_BYTES = 1 << 26

Mask = NDArray[np.bool_]


class Predictor(Protocol):
    """A model that is measured. Its states go in and come back; nothing else is assumed of their arrays' shapes."""

    @property
    def state_tolerance(self) -> float:
        """Difference at which two entries of a state count as equal, relative above 1: the noise of the products."""

    def initial_state(self, batch_size: int) -> States: ...

    def losses(self, batch: Batch, state: States) -> tuple[NDArray[np.float64], States]:
        """The loss of each target, 0 where it is NO_TARGET, and the state; for a language model -log P, [T, B]."""

    def advance(self, batch: Batch, state: States) -> States:
        """The state after a batch; nothing is predicted."""


class _Total(NamedTuple):
    nats: float
    """Sum of -log P, in float64."""
    tokens: int
    """Number of tokens predicted."""
    reading: str
    """How the text was read: `64 lanes`, `one lane`, or `64 lanes, then one`."""


def evaluate(model: Predictor, ids: TokenIds, lanes: int | None = None) -> Measure:
    """The model's measure on a text of at least two tokens.

    It does not depend on the number of lanes (None: chosen by the length of the text).
    """
    total = _exact_total(model, ids, lanes)
    return measure(total.nats, total.tokens, ids.facts)._replace(reading=total.reading)


def estimate(model: Predictor, ids: TokenIds, most: int | None = None) -> Measure:
    """An estimate of the model's measure on a text of at least two tokens, at the cost of one pass.

    The lanes begin with a warm-up of WARM_UP steps. With `most`, evenly spaced stretches of that many tokens stand for
    the text.
    """
    layout = EvaluationLanes(ids, _lanes_for(ids), WINDOW, most)
    state = model.initial_state(layout.lanes)
    if layout.lanes > 1:
        before = layout.warm_up(WARM_UP)
        state = model.advance(before, state)
    nats = read_once(model, layout, state)
    return measure(nats * layout.predictions / layout.read, layout.predictions, ids.facts)


def is_exact(ids: TokenIds) -> bool:
    """Whether an estimate from all of these tokens is the exact figure: a single lane reads them."""
    return _lanes_for(ids) == 1


def tokens_of_estimate(ids: TokenIds) -> int:
    """Number of tokens that `estimate` reads of a whole text, its warm-up included."""
    layout = EvaluationLanes(ids, _lanes_for(ids), WINDOW)
    return layout.read + (WARM_UP * layout.lanes if layout.lanes > 1 else 0)


def total_nats(model: Predictor, tokens: Tokens, lanes: int | None = None) -> tuple[float, int]:
    """Sum of -log P over every token but the first, in float64, and the count of them."""
    total = _exact_total(model, tokens, lanes)
    return total.nats, total.tokens


def read_once(model: Predictor, layout: EvaluationLanes, state: States) -> float:
    """Sum of -log P over a pass through the lanes, from this state."""
    nats = 0.0
    for index in range(layout.windows):
        nats_B, state = _predict(model, layout[index], state)
        nats += float(nats_B.sum())
    return nats


def _lanes_for(tokens: Tokens) -> int:
    return max(1, min(MOST_LANES, len(tokens) // TOKENS_WORTH_A_LANE))


def _exact_total(model: Predictor, tokens: Tokens, lanes: int | None) -> _Total:
    layout = EvaluationLanes(tokens, lanes or _lanes_for(tokens), WINDOW)
    if layout.lanes <= 1:
        return _by_one_lane(model, tokens)
    reading = _Reading(model, layout)
    if not reading.begin():
        return _by_one_lane(model, tokens)
    for _ in range(CORRECTIONS):
        if not reading.correct():
            return _Total(reading.nats, layout.predictions, f"{layout.lanes} lanes")
    alone = reading.finish_alone()
    return _Total(reading.nats, layout.predictions, f"{layout.lanes} lanes" + (", then one" if alone else ""))


def _by_one_lane(model: Predictor, tokens: Tokens) -> _Total:
    layout = EvaluationLanes(tokens, 1, WINDOW_ALONE)
    return _Total(read_once(model, layout, model.initial_state(1)), layout.predictions, "one lane")


@final
class _Reading:
    """A text read in lanes: the nats of every window, and the states that each lane went through."""

    def __init__(self, model: Predictor, layout: EvaluationLanes):
        self._model, self._layout = model, layout
        self._nats_WB = np.zeros((layout.windows, layout.lanes))
        self._starts = states.copy(model.initial_state(layout.lanes))
        self._trail = _Trail(layout.windows, self._starts)

    @property
    def nats(self) -> float:
        return float(self._nats_WB.sum())

    def begin(self) -> bool:
        """Read all lanes from the initial state; False, and nothing more is read, where the network does not forget.

        The trial comes after the first windows: they are read once more from the states of other lanes. At the rate at
        which the two readings approach each other they have to meet within the corrections.
        """
        layout, lanes = self._layout, np.arange(self._layout.lanes)
        tried = max(1, layout.windows // TRIAL_SHARE)
        state = self._starts
        for index in range(layout.windows):
            self._nats_WB[index], state = _predict(self._model, layout[index], state)
            self._trail.keep(index, lanes, state)
            if index == tried - 1 and not self._forgets(state, tried):
                return False
        return True

    def correct(self) -> bool:
        """Read lanes again whose predecessors end elsewhere than they began; whether there were any."""
        starts = self._due_starts()
        stale = self._apart(self._starts, starts).nonzero()[0]
        due = states.select(starts, stale)
        states.put(self._starts, stale, due)
        self._read(stale, due)
        return bool(len(stale))

    def finish_alone(self) -> bool:
        """Correct lane after lane, each after its predecessor; whether any had to be."""
        alone = False
        for lane in range(1, self._layout.lanes):
            start = states.select(self._trail.end, slice(lane - 1, lane))
            if self._apart(states.select(self._starts, slice(lane, lane + 1)), start).any():
                self._read(np.array([lane]), start)
                alone = True
        return alone

    def _due_starts(self) -> States:
        """The end of its predecessor for each lane, the initial state for the first."""
        starts = states.copy(self._starts)
        states.put(starts, slice(1, None), states.select(self._trail.end, slice(None, -1)))
        return starts

    def _read(self, lanes: Int64, state: States) -> None:
        """Read lanes until their states meet those of the reading before."""
        for index in range(self._layout.windows if len(lanes) else 0):
            window = select_lanes(self._layout[index], lanes)
            self._nats_WB[index, lanes], state = _predict(self._model, window, state)
            before = self._trail.keep(index, lanes, state)
            if before is not None:
                apart = self._apart(before, state)
                if not apart.any():
                    return
                lanes, state = _thin(lanes, state, apart)

    def _forgets(self, state: States, tried: int) -> bool:
        """Whether lanes that come to this state in so many windows will meet what comes from other states."""
        other = states.roll(state)
        for index in range(tried):
            window = self._layout[index]
            other = self._model.advance(window, other)
        distance = float(np.quantile(states.distance(state, other), TRIAL_QUANTILE))
        tolerance = self._model.state_tolerance
        if distance <= tolerance:
            return True
        needed = tried * math.log(tolerance) / math.log(distance) if distance < 1 else math.inf
        return needed <= CORRECTIONS * self._layout.windows

    def _apart(self, one: States, other: States) -> Mask:
        """Which lanes of two states differ (mask_B)."""
        differ: Mask = ~(states.distance(one, other) <= self._model.state_tolerance)
        return differ


@final
class _Trail:
    """States at the ends of windows, as many, evenly spaced, as fit STATES_KEPT_BYTES; and those at the end."""

    def __init__(self, windows: int, state: States):
        self._stride = max(1, -(-states.nbytes(state) * windows // STATES_KEPT_BYTES))
        self._last = windows - 1
        slots = windows // self._stride
        self._states_K = states.empty(state, slots)
        self.end = states.empty(state)
        self._kept = np.zeros(slots, np.bool_)

    def keep(self, index: int, lanes: Int64, state: States) -> States | None:
        """Keep the lanes' state after a window; the state kept before, None where there is none."""
        if index == self._last:
            states.put(self.end, lanes, state)
            return None
        slot, rest = divmod(index + 1, self._stride)
        if rest:
            return None
        held = tuple(array_K[slot - 1] for array_K in self._states_K)
        before = states.select(held, lanes) if self._kept[slot - 1] else None
        states.put(held, lanes, state)
        self._kept[slot - 1] = True
        return before


def _thin(lanes: Int64, state: States, needed: Mask) -> tuple[Int64, States]:
    """The lanes still needed, once they are at most half of those that run: every new batch size costs a set-up."""
    if 2 * int(needed.sum()) > len(lanes):
        return lanes, state
    return lanes[needed], states.select(state, needed)


def _predict(model: Predictor, window: Batch, state: States) -> tuple[NDArray[np.float64], States]:
    """Sum of -log P over a window of each lane (nats_B), and the state."""
    nats_TB, state = model.losses(window, state)
    return nats_TB.sum(0), state
