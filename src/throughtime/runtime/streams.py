"""Many texts from one model at once, each with its own prompt and settings."""

from __future__ import annotations

import codecs
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple, final

import numpy as np

from throughtime.errors import ThroughtimeError
from throughtime.runtime import arguments
from throughtime.runtime.lanes import NOT_DRAWN, STUCK, Choice, Lanes, can_go_on, resumed, written
from throughtime.runtime.model import Model
from throughtime.runtime.network import Int64
from throughtime.runtime.state import State
from throughtime.text.tokenizer import Tokenizer


class _Stream(NamedTuple):
    """A text, but for its lane."""

    key: int
    choice: Choice
    characters: str | None
    text: str = ""
    """Written, and not handed out yet."""
    pending: bytes = b""
    """First bytes of a character that is not complete."""
    stopped: bool = False

    def after(self, drawn_T: Int64, tokenizer: Tokenizer) -> _Stream:
        """The stream with more tokens."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = self.text + decoder.decode(self.pending + tokenizer.decode_bytes(written(drawn_T)))
        return self._replace(text=text, pending=decoder.getstate()[0], stopped=not can_go_on(drawn_T))


@final
class Streams:
    """Texts that begin and end when they like: what one of them says does not depend on the others.

    A batch of 64 reads the weights once for all of them. Threads may share it: its calls wait for one another.
    """

    def __init__(self, model: Model):
        self._model = model
        self._lanes = Lanes(model.network, model.documents)
        self._streams: list[_Stream] = []
        self._drawn: list[Int64] = []
        """Tokens_TB that are not in the streams' texts yet."""
        self._next = 0
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def keys(self) -> list[int]:
        """The numbers of the streams there are."""
        return [stream.key for stream in list(self._streams)]

    @property
    def stopped(self) -> list[int]:
        """The numbers of the streams that cannot go on: no token that they may write has a finite logit."""
        return [stream.key for stream in list(self._streams) if stream.stopped]

    def join(
        self,
        prompt: str = "",
        *,
        characters: str | Iterable[str] | None = None,
        state: State | None = None,
        **choice: Any,
    ) -> int:
        """A new stream, and the number it goes by.

        Args:
            prompt: read first; empty: with a `state` nothing, without one as in `Model.generate`.
            characters: as in `Model.generate`.
            state: what was read before the prompt; None: nothing. From the state of a stream it goes on exactly as that
                one would have, its draws included: if that one was given a seed, and `seed` is the same or left out.
            choice: the settings of `Choice`.

        Raises:
            ThroughtimeError: where an argument is out of range or of a wrong kind, or the prompt cannot be encoded.
        """
        if state is not None:
            self._model.check_state(state, 1)
            if choice.get("seed") is None:
                choice["seed"] = state.position(0).seed
        settings, letters = Choice(**choice).checked(), arguments.characters(characters)
        prompt = arguments.text("prompt", prompt)
        with self._lock:
            self._settle()
            self._join(_Stream(self._next, settings, letters), prompt, state, settings)
            self._next += 1
            return self._next - 1

    def _join(self, stream: _Stream, prompt: str, state: State | None, settings: Choice) -> None:
        model = self._model
        sampler = settings.sampler(model.network, model.allowed(stream.characters))
        if state is not None:
            resumed(sampler, state.position(0), settings.seed, model.vocabulary_size)
        if state is None or prompt:
            ids = model.prompt_ids(prompt)
            sampler.see(ids)
            logits_V, state = model.read(ids, state)
        else:
            logits_V = model.logits(state)[0]
            stream = stream._replace(pending=state.position(0).pending)
        self._lanes.join(logits_V, state.arrays, state.position(0).matched, sampler)
        self._streams.append(stream)

    def write(self, tokens: int = 1) -> dict[int, str]:
        """The next so many tokens of every stream, as text by its number.

        A stream that cannot go on has its text up to there, and is then one of `stopped`. Text that was written before
        Ctrl-C interrupted a call comes with the next one.

        Raises:
            ThroughtimeError: where no stream can go on, or `tokens` is no whole number of at least 0.
        """
        tokens = arguments.whole("tokens", tokens, 0)
        with self._lock:
            if not self._streams:
                return {}
            self._settle()
            if tokens and all(stream.stopped for stream in self._streams):
                raise ThroughtimeError(STUCK)
            for _ in self._lanes.draw(tokens, self._drawn):
                pass
            self._settle()
            texts = {stream.key: stream.text for stream in self._streams}
            if tokens and all(stream.stopped for stream in self._streams) and not any(texts.values()):
                raise ThroughtimeError(STUCK)
            self._streams = [stream._replace(text="") for stream in self._streams]
            return texts

    def _settle(self) -> None:
        """Put what was drawn into the streams' texts; what Ctrl-C left there too."""
        if self._drawn:
            drawn_TB = np.concatenate(self._drawn)
            drawn_TB = drawn_TB[(drawn_TB != NOT_DRAWN).all(1)]
            tokenizer, lanes = self._model.tokenizer, zip(self._streams, drawn_TB.T, strict=True)
            self._streams, self._drawn = [stream.after(drawn_T, tokenizer) for stream, drawn_T in lanes], []

    def state(self, key: int) -> State:
        """What a stream has read and written so far, and how far it has come: `join` goes on from it."""
        with self._lock:
            self._settle()
            return self._state(self._place(key))

    def leave(self, key: int) -> State:
        """End a stream: the state it had."""
        with self._lock:
            place, state = self._place(key), self.state(key)
            self._lanes.leave(place)
            del self._streams[place]
            return state

    def __reduce__(self) -> tuple[Any, ...]:
        with self._lock:
            self._settle()
            states = [self._state(place, as_drawn=True) for place in range(len(self))]
            # The list itself changes with the streams, and is copied or pickled without the lock.
            return _restored, (self._model, self._next, list(self._streams), states)

    def _state(self, place: int, as_drawn: bool = False) -> State:
        """A stream's state; unless `as_drawn`, without draws of a seed that nobody chose."""
        stream = self._streams[place]
        arrays, position = self._lanes.state(place)
        position = position._replace(pending=stream.pending)
        if stream.choice.seed is None and not as_drawn:
            position = position._replace(seed=None, drawn=0)
        return State.holding(arrays, self._model.digest, [position])

    def _place(self, key: int) -> int:
        for place, stream in enumerate(self._streams):
            if stream.key == key:
                return place
        raise ThroughtimeError(f"there is no stream {key}; there are {self.keys}")


def _restored(model: Model, following: int, kept: list[_Stream], states: list[State]) -> Streams:
    streams = Streams(model)
    streams._next = following
    for stream, state in zip(kept, states, strict=True):
        streams._join(stream, "", state, stream.choice._replace(seed=state.position(0).seed))
    return streams
