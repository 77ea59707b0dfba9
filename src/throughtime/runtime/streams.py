"""Many texts from one model at once, each with its own prompt and settings."""

from __future__ import annotations

import codecs
from typing import Any, NamedTuple, final

import numpy as np

from throughtime.errors import ThroughtimeError
from throughtime.runtime.lanes import Choice, Lanes
from throughtime.runtime.model import Model
from throughtime.runtime.state import State


class _Stream(NamedTuple):
    key: int
    decoder: codecs.IncrementalDecoder


@final
class Streams:
    """Texts that begin and end when they like: what one of them says does not depend on the others.

    A batch of 64 reads the weights once for all of them.
    """

    def __init__(self, model: Model):
        self._model = model
        self._lanes = Lanes(model.network)
        self._streams: list[_Stream] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def keys(self) -> list[int]:
        """The numbers of the streams there are."""
        return [stream.key for stream in self._streams]

    def join(
        self, prompt: str = "", *, characters: str | None = None, state: State | None = None, **choice: Any
    ) -> int:
        """A new stream, and the number it goes by.

        Args:
            prompt: read first; empty: the model begins a line.
            characters: as in `Model.generate`.
            state: what was read before the prompt; None: nothing.
            choice: the settings of `Choice`.

        Raises:
            ThroughtimeError: where a setting is out of range, or the prompt cannot be encoded.
        """
        ids = np.array(self._model.tokenizer.opening(prompt), np.int64)
        sampler = Choice(**choice).sampler(
            self._model.network, self._model.vocabulary_size, self._model.allowed(characters)
        )
        sampler.see(ids)
        logits_V, after = self._model.read(ids, state)
        self._lanes.join(logits_V, after.array_SBH, sampler)
        self._streams.append(_Stream(self._next, codecs.getincrementaldecoder("utf-8")("replace")))
        self._next += 1
        return self._streams[-1].key

    def write(self, tokens: int = 1) -> dict[int, str]:
        """The next so many tokens of every stream, as text by its number."""
        if not self._streams or tokens < 1:
            return {}
        drawn_TB = self._lanes.draw(tokens)
        pieces = (self._model.tokenizer.decode_bytes(ids_T.tolist()) for ids_T in drawn_TB.T)
        return {stream.key: stream.decoder.decode(piece) for stream, piece in zip(self._streams, pieces, strict=True)}

    def state(self, key: int) -> State:
        """What a stream has read and written so far."""
        return State(self._lanes.state(self._place(key)), self._model.digest)

    def leave(self, key: int) -> State:
        """End a stream: the state it had."""
        place = self._place(key)
        del self._streams[place]
        return State(self._lanes.leave(place), self._model.digest)

    def _place(self, key: int) -> int:
        for place, stream in enumerate(self._streams):
            if stream.key == key:
                return place
        raise ThroughtimeError(f"there is no stream {key}; there are {self.keys}")
