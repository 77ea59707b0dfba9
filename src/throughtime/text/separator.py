"""Where documents end in a sequence of tokens: after the separator, a text that stands between them.

A lane is described by one number: how many bytes of the separator its text ends with. 0: none; all of them: a document
has ended, and the state is reset before the next token is read. Axes: T time, B batch (lane).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


@final
class Separator:
    """The twin of the native one (`engine/native/separator.cpp`), in Python.

    Args:
        pieces: for each token the bytes it stands for.
        text: the separator; empty: no document ends.

    Attributes:
        pieces: the same.
    """

    def __init__(self, pieces: Sequence[bytes], text: bytes):
        self.pieces, self._text = tuple(pieces), text

    def starts(self, ids: Int64, matched: Int64) -> NDArray[np.uint8]:
        """Where documents begin in ids_TB (1, else 0), of lanes that have matched so many bytes before.

        `matched` (one number a lane) is then what the lanes match at the end.

        Raises:
            IndexError: where an id is not in the vocabulary.
        """
        fresh = np.empty(ids.shape, np.uint8)
        if not self._text:
            fresh[:] = 0
            return fresh
        if ids.size and (ids.min() < 0 or ids.max() >= len(self.pieces)):
            raise IndexError(f"an id is not in a vocabulary of {len(self.pieces)}")
        for lane, ids_T in enumerate(ids.T.tolist()):
            for t, token in enumerate(ids_T):
                fresh[t, lane] = self._ended(int(matched[lane]))
                matched[lane] = self._after(int(matched[lane]), token)
        return fresh

    def _ended(self, matched: int) -> bool:
        return matched == len(self._text)

    def _after(self, matched: int, token: int) -> int:
        """A separator that ends inside a token ends no document: no state can be reset there."""
        held = b"" if self._ended(matched) else self._text[:matched]
        held += self.pieces[token]
        while 0 <= (place := held.find(self._text)) < len(held) - len(self._text):
            held = held[place + len(self._text) :]
        return max(size for size in range(min(len(self._text), len(held)) + 1) if held.endswith(self._text[:size]))
