"""Which tokens may be written."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from throughtime.errors import SettingError
from throughtime.runtime import arguments
from throughtime.text.prompt import described
from throughtime.text.tokenizer import Tokenizer


def allowed_tokens(
    tokenizer: Tokenizer, characters: str | None, words: Iterable[str] | None
) -> NDArray[np.uint8] | None:
    """The tokens that are made of these characters and are one of these words (mask_V; None: all tokens).

    The unknown token is never allowed: there is no text of it.

    Raises:
        SettingError: where there is none, or the model can write one of the characters in parts only.
    """
    if isinstance(words, str):
        raise SettingError(f"words should be several strings, got the string {words!r}")
    unknown = tokenizer.unknown
    if unknown is None and characters is None and words is None:
        return None
    allowed_V = np.ones(tokenizer.vocabulary_size, np.uint8)
    if unknown is not None:
        allowed_V[unknown] = 0
    known = None if words is None else {word.encode() for word in arguments.texts("words", words)}
    letters = None if characters is None else set(characters)
    covered: set[str] = set()
    for index, piece in enumerate(tokenizer.pieces):
        if known is not None and piece not in known and piece.removeprefix(b" ") not in known:
            allowed_V[index] = 0
        if letters is not None and letters.issuperset(text := piece.decode("utf-8", "replace")):
            covered.update(text)
        elif letters is not None:
            allowed_V[index] = 0
    _check_covered(tokenizer, letters or set(), covered)
    if not allowed_V.any():
        wanted = "" if letters is None else f" (characters: {described(''.join(sorted(letters))) or 'none'})"
        raise SettingError(f"no token of the model is made of what is allowed{wanted}")
    return allowed_V


def _check_covered(tokenizer: Tokenizer, letters: set[str], covered: set[str]) -> None:
    """Refuse characters that only several tokens can write, one for some of the bytes each."""
    parted = sorted(letters - covered)
    if parted and tokenizer.unknown is None:
        raise SettingError(
            f"characters cannot have {described(''.join(parted))}: a model of {tokenizer.kind} tokens writes it in "
            "several tokens, which other characters share; leave it out, or train with --tokens char"
        )
