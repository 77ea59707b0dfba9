"""All that a report shows of a model and a text.

Axes: T token, U unit, K lag.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from throughtime.cells.state import leaves
from throughtime.errors import ThroughtimeError
from throughtime.models.language import LanguageModel
from throughtime.models.saved import Loaded
from throughtime.probe.connectivity import connectivity
from throughtime.probe.examination import LEAST, Examination, examine
from throughtime.probe.features import follow
from throughtime.probe.reading import Reading, read
from throughtime.probe.system import Floats, constant_inputs, run, system
from throughtime.probe.units import Scores, score
from throughtime.streams.batch import Tokens

READ = 16_000
"""Tokens that are read: what units follow is measured on them."""
VALUES = 1 << 28
"""Values of units held at once, a gigabyte: a text is read for fewer tokens where there are very many units."""
ENTRIES = 8192
"""Most numbers in a state whose Jacobians are measured; one of them takes half a gigabyte then."""
SHOWN = 4_000
"""Tokens that the report shows, at most."""
LAGS = 40
EXAMINED = 2_000
"""Tokens along which gradients and Jacobians are measured, at most."""
PATHS, PATH = 8, 150
"""Paths of the recurrence left to itself that are drawn, and their steps."""
WORK = 1e12
"""Multiplications and additions spent on connectivity, at most: a large network's is of fewer tokens."""


class Inspected(NamedTuple):
    """What was found."""

    loaded: Loaded
    text: str
    """Its name."""
    length: int
    """Tokens there are in it."""
    reading: Reading
    past_NK: NDArray[np.float32]
    """Connectivity of the first N tokens; zeros for the first of all, which nothing predicts."""
    scores: Scores
    """Units are counted through all tracks in their order."""
    examined: Examination | None
    """Gradients, Jacobians and dynamics; None where the text is too short or the state too large."""
    paths_TBN: Floats
    """States of the recurrence when the text stops, from several places of what was examined on."""

    @property
    def window(self) -> int | None:
        """Tokens of a window that the model was trained with, where that is known."""
        return self.loaded.recipe.streams.window if self.loaded.recipe else None

    @property
    def omission(self) -> str | None:
        """A line where the state is too large for its gradients, Jacobians and dynamics to be measured."""
        entries = sum(array[0].numel() for array in leaves(self.reading.states))
        if entries <= ENTRIES:
            return None
        return (
            f"gradients, Jacobians and dynamics are left out: the state has {entries:,} numbers, more than {ENTRIES:,}"
        )

    @property
    def bits_per_token(self) -> float:
        return float(np.nanmean(self.reading.nats_T)) / math.log(2)

    @property
    def perplexity(self) -> float:
        """Per token; infinite where no float can hold it."""
        return 2**self.bits_per_token if self.bits_per_token < 1023 else math.inf

    @property
    def dependence_K(self) -> list[float]:
        """Mean connectivity by lag, from 1."""
        means: list[float] = self.past_NK[1:].mean(0, dtype=np.float64).tolist()
        return means

    @property
    def reach(self) -> int:
        """Tokens back within which lie nine tenths of what predictions depend on."""
        sums_K = np.cumsum(self.dependence_K)
        return int(np.searchsorted(sums_K, 0.9 * sums_K[-1]) + 1)

    def unit(self, number: int) -> tuple[int, int]:
        """The track, and the place in it, of a unit counted through all tracks."""
        starts = np.cumsum([0, *(track.values_TH.shape[1] for track in self.reading.tracks)])
        track = int(np.searchsorted(starts, number, "right")) - 1
        return track, number - int(starts[track])


def inspect(loaded: Loaded, text: str, ids: Tokens) -> Inspected:
    """Let a model read a text (its first READ tokens), and look at it meanwhile.

    Args:
        loaded: the reader.
        text: the name of the text.
        ids: its tokens, two at least.

    Raises:
        ThroughtimeError: where the numbers of the network outgrow float32.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    entries = sum(array.numel() for array in leaves(model.initial_state(1)))
    units = entries + sum(cell.hidden_size for cell in model.stack.layers())
    count = min(len(ids), READ, max(LEAST, VALUES // units))
    numbers = ids.read(0, count)
    fresh = np.zeros(count, np.bool_)
    fresh[ids.documents_within(0, count)] = True
    reading = read(model, numbers, fresh)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    # Forwards and back to the inputs, a parameter costs four operations at each token.
    places = min(int(np.clip(WORK / (4 * parameters * LAGS), 200, SHOWN)), count)
    past_NK = np.zeros((places, LAGS), np.float32)
    past_NK[1:] = connectivity(model, reading, np.arange(1, places), LAGS)
    if not (np.isfinite(reading.nats_T[1:]).all() and np.isfinite(past_NK).all()):
        raise ThroughtimeError(f"the network's state or gradient outgrows all numbers along {text}: it has diverged")
    values_TU = np.concatenate([track.values_TH for track in reading.tracks], 1)
    # The stream ends with what was left open: an empty string more than there are tokens.
    scores = score(values_TU, follow(list(tokenizer.decode_stream(numbers.tolist()))[:count]))
    examined = examine(model, reading.ids_T[:EXAMINED]) if count >= LEAST and entries <= ENTRIES else None
    paths_TBN = _left_alone(model, examined.states_TN) if examined else np.zeros((0, 0, 0))
    return Inspected(loaded, text, len(ids), reading, past_NK, scores, examined, paths_TBN)


def _left_alone(model: LanguageModel, states_TN: Floats) -> Floats:
    """Paths from evenly spread states on, with zeros to read."""
    inner = system(model)
    starts_BN = torch.from_numpy(states_TN[np.linspace(0, len(states_TN) - 1, PATHS + 1).astype(int)[1:]])
    return run(inner, starts_BN, constant_inputs(inner, PATH, PATHS)).states_TBN.numpy()
