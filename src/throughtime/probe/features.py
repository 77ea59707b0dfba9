"""What can be said of each character of a text without a network: what units are compared with.

A feature's value at a character is what holds once that character has been read. Two look one character ahead: a unit
that follows them foresees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
"""One for each character; 0 and 1 where the feature holds or not."""

OPENING, CLOSING = "([{", ")]}"


def _each(holds: Callable[[str], bool]) -> Callable[[str], Values]:
    """A feature of the character alone."""
    return lambda text: np.array([holds(character) for character in text], np.float32)


def _walk(walk: Callable[[str], Iterator[int]]) -> Callable[[str], Values]:
    """A feature that depends on what came before."""
    return lambda text: np.fromiter(walk(text), np.float32, len(text))


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _quotes(text: str) -> Iterator[int]:
    """1 from an opening to its closing mark; an empty line ends what was left open."""
    inside, before = 0, ""
    for character in text:
        if character == '"':
            inside = 1 - inside
        elif character in "“”":
            inside = int(character == "“")
        elif character == before == "\n":
            inside = 0
        before = character
        yield inside


def _depth(text: str) -> Iterator[int]:
    """Brackets that are open; an empty line ends what was left open."""
    depth, before = 0, ""
    for character in text:
        if character in OPENING:
            depth += 1
        elif character in CLOSING:
            depth = max(depth - 1, 0)
        elif character == before == "\n":
            depth = 0
        before = character
        yield depth


def _column(text: str) -> Iterator[int]:
    column = 0
    for character in text:
        column = 0 if character == "\n" else column + 1
        yield column


def _into_word(text: str) -> Iterator[int]:
    place = 0
    for character in text:
        place = place + 1 if _in_word(character) else 0
        yield place


def _indentation(text: str) -> Iterator[int]:
    """Spaces that the line began with, so far."""
    spaces, leading = 0, True
    for character in text:
        if character == "\n":
            spaces, leading = 0, True
        elif leading and character == " ":
            spaces += 1
        else:
            leading = False
        yield spaces


def _in_indentation(text: str) -> Iterator[int]:
    leading = True
    for character in text:
        leading = character == "\n" or (leading and character == " ")
        yield int(leading)


def _into_sentence(text: str) -> Iterator[int]:
    place, before = 0, ""
    for character in text:
        ends = (character.isspace() and before in tuple(".!?:")) or character == before == "\n"
        place = 0 if ends else place + 1
        before = character
        yield place


def _word_ends(text: str) -> Iterator[int]:
    for character, following in zip(text, text[1:] + " ", strict=True):
        yield int(_in_word(character) and not _in_word(following))


def _line_ends(text: str) -> Iterator[int]:
    return (int(following == "\n") for following in text[1:] + " ")


FEATURES: dict[str, Callable[[str], Values]] = {
    "inside quotes": _walk(_quotes),
    "depth of brackets": _walk(_depth),
    "position in the line": _walk(_column),
    "position in the word": _walk(_into_word),
    "position in the sentence": _walk(_into_sentence),
    "indentation of the line": _walk(_indentation),
    "at a line's leading spaces": _walk(_in_indentation),
    "the word ends here": _walk(_word_ends),
    "a line end follows": _walk(_line_ends),
    "space": _each(lambda character: character == " "),
    "line end": _each(lambda character: character == "\n"),
    "letter": _each(str.isalpha),
    "vowel": _each(lambda character: character.lower() in "aeiouäöüáéíóúàèìòùâêîôûåæø"),
    "upper case": _each(str.isupper),
    "digit": _each(str.isdigit),
    "mark": _each(lambda character: not character.isalnum() and not character.isspace()),
}


def follow(tokens: list[str]) -> dict[str, Values]:
    """The features of a text by token: their values at the last character that each has completed.

    Args:
        tokens: the text of each token; together, the text. It may be empty (a token of bytes that complete nothing).
    """
    text = "".join(tokens)
    if not text:
        return {}
    last = np.maximum(np.cumsum([len(token) for token in tokens]) - 1, 0)
    return {name: values(text)[last] for name, values in FEATURES.items()}
