"""Beam search: the likeliest texts rather than drawn ones. It runs whole in native code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from throughtime.errors import SettingError
from throughtime.runtime.model import Model
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
    logits_V, state = model.read(model.tokenizer.opening(prompt))
    found = model.network.search(
        logits_V,
        state.array_SBH,
        model.tokenizer.pieces,
        [text.encode() for text in stop],
        model.allowed(characters),
        beams=beams,
        best=best,
        tokens=max_tokens,
        length_penalty=length_penalty,
    )
    return [
        Found(text.decode("utf-8", "replace"), nats, score, State(after, model.digest))
        for text, nats, score, after in found
    ]
