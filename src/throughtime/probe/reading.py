"""A language model reads a text: what surprises it, what it expects next, and what every unit does meanwhile.

The text is cut into stretches. The fast form of the network runs through them in order and leaves the state that each
begins with; from there all stretches are stepped side by side, so that every state of the text is seen, exactly, in
about twice sqrt(T) calls.

Axes: T token, S step of a stretch, L stretch (a lane), H unit, K guess, V vocabulary.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from throughtime.cells.state import State, as_rows, map_state, reset_rows
from throughtime.models.language import LanguageModel
from throughtime.models.output import LOGITS_AT_ONCE
from throughtime.streams.batch import Batch

AXES = re.compile("_B[A-Z]*$")
"""The axis letters at the end of the name of a state's array."""


class Track(NamedTuple):
    """What the units of a layer did along a text. The entries of an array of any shape are its units."""

    layer: int
    """Counted from 1, the one next to the input."""
    name: str
    """`output`, or the name of another array of the layer's state, such as an LSTM's `cell`."""
    values_TH: NDArray[np.float32]
    """After each token has been read."""


class Reading(NamedTuple):
    """A text as a model read it."""

    ids_T: Tensor
    reset_T: Tensor
    """True where a document begins: the state is reset before the token is read."""
    nats_T: NDArray[np.float64]
    """-log P of each token, given those before it; NaN for the first, which nothing predicts."""
    guesses_TK: NDArray[np.int64]
    """The likeliest tokens at each place, given those before it, likeliest first; the first row says nothing."""
    chances_TK: NDArray[np.float32]
    """Their probabilities; NaN in the first row."""
    tracks: list[Track]
    states: State
    """The state after each token, as if tokens were lanes: the first axis of its arrays is T."""


@torch.no_grad()
def read(
    model: LanguageModel, ids: NDArray[np.int64], fresh: NDArray[np.bool_] | None = None, guesses: int = 5
) -> Reading:
    """Read a text from the initial state.

    Args:
        model: the reader.
        ids: the text's tokens, at least one.
        fresh: true where a document begins; None: at the first token only.
        guesses: K, at most the size of the vocabulary.
    """
    ids_T = torch.from_numpy(ids)
    reset_T = torch.zeros(len(ids), dtype=torch.bool) if fresh is None else torch.from_numpy(fresh.copy())
    reset_T[0] = True
    steps = max(1, round(len(ids) ** 0.5))
    missing = -len(ids) % steps
    ids_SL = pad(ids_T, (0, missing)).view(-1, steps).T.contiguous()
    reset_SL = pad(reset_T, (0, missing)).view(-1, steps).T.contiguous()
    outputs, states = _side_by_side(model, ids_SL, reset_SL, _beginnings(model, ids_SL, reset_SL))
    states = map_state(lambda array: array[: len(ids)], states)
    outputs = [output[: len(ids)] for output in outputs]
    nats_T, guesses_TK, chances_TK = _predictions(model, outputs[-1], ids_T, min(guesses, model.vocabulary_size))
    return Reading(ids_T, reset_T, nats_T, guesses_TK, chances_TK, _tracks(outputs, states), states)


def _beginnings(model: LanguageModel, ids_SL: Tensor, reset_SL: Tensor) -> State:
    """The state before each stretch, L lanes."""
    state = model.initial_state(1)
    found = []
    for lane in range(ids_SL.shape[1]):
        found.append(state)
        state = model.advance(Batch(ids_SL[:, lane, None], None, reset_SL[:, lane, None], 0), state)
    return map_state(lambda *rows: torch.cat(rows), *found)


def _side_by_side(model: LanguageModel, ids_SL: Tensor, reset_SL: Tensor, state: State) -> tuple[list[Tensor], State]:
    """Each layer's outputs and the stack's states along the text, [L * S, H] in its order."""
    initial = model.initial_state(ids_SL.shape[1])
    outputs, states = [], []
    for ids_L, reset_L in zip(ids_SL, reset_SL, strict=True):
        y_LH = model.embedded(ids_L)
        layers, after = [], []
        for cell, before in zip(model.stack.layers(), reset_rows(state, reset_L, initial), strict=True):
            y_LH, layer_state = cell.step(y_LH, before)
            layers.append(y_LH)
            after.append(layer_state)
        state = tuple(after)
        outputs.append(layers)
        states.append(state)
    return [_in_order(*layer) for layer in zip(*outputs, strict=True)], map_state(_in_order, *states)


def _in_order(*steps: Tensor) -> Tensor:
    return torch.stack(steps, 1).flatten(0, 1)


def _predictions(
    model: LanguageModel, hidden_TH: Tensor, ids_T: Tensor, guesses: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float32]]:
    nats_T = torch.full((len(ids_T),), torch.nan, dtype=torch.float64)
    guesses_TK = torch.zeros(len(ids_T), guesses, dtype=torch.int64)
    chances_TK = torch.full((len(ids_T), guesses), torch.nan)
    rows = max(1, LOGITS_AT_ONCE // model.vocabulary_size)
    for start in range(1, len(ids_T), rows):
        here = slice(start, min(start + rows, len(ids_T)))
        log_p_TV = torch.log_softmax(model.logits(hidden_TH[here.start - 1 : here.stop - 1]), 1)
        nats_T[here] = -log_p_TV.gather(1, ids_T[here, None])[:, 0].double()
        best = log_p_TV.topk(guesses)
        guesses_TK[here], chances_TK[here] = best.indices, best.values.exp().float()
    return nats_T.numpy(), guesses_TK.numpy(), chances_TK.numpy()


def _tracks(outputs: list[Tensor], states: State) -> list[Track]:
    """The outputs of each layer, and what else its state holds."""
    tracks = []
    for level, (output_TH, state) in enumerate(zip(outputs, states, strict=True), 1):
        tracks.append(Track(level, "output", output_TH.float().numpy()))
        for field, array in zip(state._fields, state, strict=True):
            if not torch.equal(array, output_TH):
                tracks.append(Track(level, AXES.sub("", field), as_rows(array).float().numpy()))
    return tracks
