"""Beam search: the likeliest texts rather than drawn ones. It runs whole in native code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from throughtime.errors import SettingError, ThroughtimeError
from throughtime.runtime import arguments
from throughtime.runtime.lanes import STUCK
from throughtime.runtime.model import Model
from throughtime.runtime.state import Position, State

MOST_BEAMS = 1 << 16
LARGEST_PENALTY = 10.0


class Found(NamedTuple):
    """A text that follows the prompt."""

    text: str
    nats: float
    """-log P of it, its stop string included."""
    score: float
    """-nats, divided by ((5 + tokens) / 6) ** length_penalty (Wu et al. 2016): the higher the better."""
    state: State
    """After its last token."""


def search(
    model: Model,
    prompt: str = "",
    max_tokens: int = 50,
    *,
    beams: int = 4,
    best: int = 1,
    length_penalty: float = 0.0,
    stop: str | Iterable[str] = (),
    characters: str | Iterable[str] | None = None,
) -> list[Found]:
    """The best texts found, the best first.

    A text ends with a stop string (which is left out of it) or after `max_tokens`. The search ends when `best` texts
    have ended and no beam can become better than they are.

    Args:
        model: predicts.
        prompt: read first; empty: as in `Model.generate`.
        max_tokens: the longest text.
        beams: texts followed at once.
        best: texts returned, at most `beams`.
        length_penalty: 0 compares probabilities, 1 about those of a token; between: longer texts gain.
        stop: what ends a text: a string, or several.
        characters: write with these only; None: with all.

    Raises:
        ThroughtimeError: where an argument is out of range or of a wrong kind, or the prompt cannot be encoded.
    """
    beams, best = arguments.whole("beams", beams, 0, MOST_BEAMS), arguments.whole("best", best, 0)
    if not 1 <= best <= beams:
        raise SettingError(f"beams must be at least 1 and best 1 to beams, got {beams} and {best}")
    max_tokens = arguments.whole("max_tokens", max_tokens, 1)
    length_penalty = arguments.number("length_penalty", length_penalty, 0, arguments.LARGEST_FLOAT, "not be negative")
    if length_penalty > LARGEST_PENALTY:
        raise SettingError(f"length_penalty must be at most {LARGEST_PENALTY:g}, got {length_penalty:g}")
    stops, allowed = arguments.stops(stop), model.allowed(characters)
    logits_V, state = model.read(model.prompt_ids(prompt))
    found = model.network.search(
        logits_V,
        state.arrays,
        model.documents,
        state.position(0).matched,
        stops,
        allowed,
        beams=beams,
        best=best,
        tokens=max_tokens,
        length_penalty=length_penalty,
    )
    if not found:
        raise ThroughtimeError(STUCK)
    return [
        Found(
            text.decode("utf-8", "replace"),
            nats,
            score,
            State.holding(after, model.digest, [Position(matched=matched)]),
        )
        for text, nats, score, after, matched in found
    ]
