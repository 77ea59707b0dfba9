"""A prompt in the tokens of a model: as it is, or as the model's text spelled it; else what is unknown about it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from throughtime.errors import ThroughtimeError

if TYPE_CHECKING:
    from throughtime.text.tokenizer import Tokenizer

MOST_NAMED = 5
"""Parts of a prompt that an error names."""


def opening_of(tokenizer: Tokenizer, prompt: str, separator: str = "") -> list[int]:
    """The ids a model reads first.

    Where the vocabulary lacks a part of the prompt, it is read in the other normal form (NFC or NFD), or with the space
    before its first word that the vocabulary has there, or without it. An empty prompt is the separator, after which a
    document begins, else a line end, else the first token of the vocabulary.

    Raises:
        ThroughtimeError: where the vocabulary lacks a part of the prompt.
    """
    if not isinstance(prompt, str):
        raise ThroughtimeError(f"the prompt must be a string, got {type(prompt).__name__}")
    try:
        found = next((ids for ids in _readings(tokenizer, prompt, separator) if tokenizer.unknown not in ids), None)
    except UnicodeEncodeError as error:
        raise ThroughtimeError(f"the prompt is no text at character {error.start}: {error.reason}") from None
    if found is not None:
        return found
    if prompt:
        raise ThroughtimeError(
            f"the model's vocabulary lacks a part of the prompt: {_unknown_parts(tokenizer, prompt)}"
        )
    if found := [index for index in range(tokenizer.vocabulary_size) if index != tokenizer.unknown][:1]:
        return found
    raise ThroughtimeError("the model's vocabulary holds no token but the unknown one: there is nothing to write")


def encode_documents(tokenizer: Tokenizer, text: str, separator: str = "") -> list[list[int]]:
    """The ids of each document of a text, as training makes them: none stands for text of two documents."""
    parts = text.split(separator) if separator else [text]
    texts = [part + separator for part in parts[:-1]] + parts[-1:]
    return [ids.tolist() for ids in tokenizer.encode_many([part.encode() for part in texts if part])]


def described(characters: str) -> str:
    """Characters with their code points, for letters that look alike."""
    names = [f"{character!r} (U+{ord(character):04X}{_name(character)})" for character in characters[:MOST_NAMED]]
    return ", ".join(names) + (f" and {len(characters) - MOST_NAMED} more" if len(characters) > MOST_NAMED else "")


def _readings(tokenizer: Tokenizer, prompt: str, separator: str) -> Iterator[list[int]]:
    if not prompt:
        yield from (tokenizer.encode(text).tolist() for text in (separator, "\n") if text)
        return
    for form in dict.fromkeys((prompt, *(unicodedata.normalize(name, prompt) for name in ("NFC", "NFD")))):
        for spaced in (form, " " + form, form.removeprefix(" ")):
            if ids := [index for part in encode_documents(tokenizer, spaced, separator) for index in part]:
                yield ids


def _unknown_parts(tokenizer: Tokenizer, prompt: str) -> str:
    if tokenizer.kind == "char":
        known = set(tokenizer.pieces)
        return described("".join(dict.fromkeys(c for c in prompt if c.encode() not in known)))
    found = tokenizer.library.encode(prompt, add_special_tokens=False)
    spans = np.array(found.offsets)[np.array(found.ids) == tokenizer.unknown].tolist()
    words = list(dict.fromkeys(prompt[start:stop] for start, stop in spans))
    near = {_plain(piece.decode("utf-8", "replace")): piece.decode("utf-8", "replace") for piece in tokenizer.pieces}
    named = []
    for word in words[:MOST_NAMED]:
        marks = "" if word.isascii() else f" ({' '.join(f'U+{ord(c):04X}' for c in word.strip())})"
        named.append(f"{word!r}{marks}" + (f" (it has {near[_plain(word)]!r})" if _plain(word) in near else ""))
    return ", ".join(named) + (f" and {len(words) - MOST_NAMED} more" if len(words) > MOST_NAMED else "")


def _plain(word: str) -> str:
    """What spellings of a word have in common."""
    return unicodedata.normalize("NFKC", word.strip()).casefold()


def _name(character: str) -> str:
    name = unicodedata.name(character, "")
    return f" {name}" if name and not character.isascii() else ""
