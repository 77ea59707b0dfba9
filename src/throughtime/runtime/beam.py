"""Beam search: the likeliest texts rather than drawn ones.

Axes: B beam, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from throughtime.errors import SettingError
from throughtime.runtime.model import Model
from throughtime.runtime.network import Floats
from throughtime.runtime.state import State


class Found(NamedTuple):
    """A text that follows the prompt."""

    text: str
    nats: float
    """-log P of it, its stop string included."""
    score: float
    """-nats, divided by ((5 + tokens) / 6) ** length_penalty (Wu et al. 2016): the higher the better."""
    state: State
    """After its last token."""


class _Beam(NamedTuple):
    ids: tuple[int, ...]
    nats: float


def search(
    model: Model,
    prompt: str = "",
    max_tokens: int = 50,
    *,
    beams: int = 4,
    best: int = 1,
    length_penalty: float = 0.0,
    stop: Sequence[str] = (),
    characters: str | None = None,
) -> list[Found]:
    """The best texts found, the best first.

    A text ends with a stop string (which is left out of it) or after `max_tokens`. The search ends when `best` texts
    have ended and no beam can become better than they are.

    Args:
        model: predicts.
        prompt: read first; empty: the model begins a line.
        max_tokens: the longest text.
        beams: texts followed at once.
        best: texts returned, at most `beams`.
        length_penalty: 0 compares probabilities, 1 about those of a token; between: longer texts gain.
        stop: what ends a text.
        characters: write with these only; None: with all.

    Raises:
        ThroughtimeError: where a setting is out of range or the prompt cannot be encoded.
    """
    if beams < 1 or not 1 <= best <= beams:
        raise SettingError(f"beams must be at least 1 and best 1 to beams, got {beams} and {best}")
    if max_tokens < 1:
        raise SettingError(f"max_tokens must be at least 1, got {max_tokens}")
    if not 0 <= length_penalty < float("inf"):
        raise SettingError(f"length_penalty must not be negative, got {length_penalty:g}")
    if any(not text for text in stop):
        raise SettingError("a stop string must not be empty")
    stops = [text.encode() for text in stop]
    mask = model.allowed(characters)
    barred_V = np.zeros(model.vocabulary_size) if mask is None else np.where(mask, 0.0, np.inf)
    logits_V, state = model.read(model.tokenizer.opening(prompt))
    logits_BV, alive, ended = logits_V[None], [_Beam((), 0.0)], []

    def score(nats: float, tokens: int) -> float:
        return -nats / float(((5 + tokens) / 6) ** length_penalty)

    for length in range(1, max_tokens + 1):
        nats_BV = _nats(logits_BV) + np.array([beam.nats for beam in alive])[:, None] + barred_V
        order = np.argsort(nats_BV, axis=None, kind="stable")[: 2 * beams]
        following: list[_Beam] = []
        parents: list[int] = []
        for place in order.tolist():
            parent, token = divmod(place, model.vocabulary_size)
            nats = float(nats_BV[parent, token])
            if not np.isfinite(nats) or len(following) == beams:
                break
            ids = (*alive[parent].ids, token)
            content = model.tokenizer.decode_bytes(ids)
            cut = min((at for at in (content.find(text) for text in stops) if at >= 0), default=None)
            if cut is None and length < max_tokens:
                following.append(_Beam(ids, nats))
                parents.append(parent)
            else:
                _, after = model.step([token], state.select([parent]))
                ended.append(Found(content[:cut].decode("utf-8", "replace"), nats, score(nats, length), after))
        ended.sort(key=lambda found: -found.score)
        # Nats only grow; at best a beam keeps its own to the end, where the penalty for length helps it most.
        hopes = [score(beam.nats, max_tokens) for beam in following]
        if not following or (len(ended) >= best and max(hopes) <= ended[best - 1].score):
            break
        alive = following
        logits_BV, state = model.step([beam.ids[-1] for beam in alive], state.select(parents))
    return ended[:best]


def _nats(logits_BV: Floats) -> NDArray[np.float64]:
    shifted: NDArray[np.float64] = logits_BV.astype(np.float64) - logits_BV.max(1, keepdims=True)
    nats: NDArray[np.float64] = np.log(np.exp(shifted).sum(1, keepdims=True)) - shifted
    return nats
