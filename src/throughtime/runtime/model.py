"""A trained language model, running without PyTorch: step, feed, score, generate.

Axes: T time, B batch (lane), V vocabulary.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from throughtime.errors import ThroughtimeError
from throughtime.models.settings import Model as Settings
from throughtime.runtime import arguments
from throughtime.runtime.lanes import STUCK, Choice, Lanes, can_go_on, written
from throughtime.runtime.network import Network
from throughtime.runtime.parts import built, read_parts
from throughtime.runtime.state import Position, State
from throughtime.runtime.vocabulary import allowed_tokens
from throughtime.text.prompt import encode_documents
from throughtime.text.tokenizer import Tokenizer
from throughtime.untrusted import printable

STEPS_AT_ONCE = 512


class Score(NamedTuple):
    """How much a text surprises a model."""

    ids: NDArray[np.int64]
    """The text's tokens."""
    bits: NDArray[np.float64]
    """-log2 P of every token but the first, which nothing predicts."""

    @property
    def total_bits(self) -> float:
        return float(self.bits.sum())

    @property
    def perplexity(self) -> float:
        """Per token; NaN where nothing is predicted, infinite where float64 cannot hold it."""
        if not len(self.bits):
            return math.nan
        mean = float(self.bits.mean())
        return 2**mean if mean < 1024 else math.inf


def load(run: str | Path, weights: str | None = None, threads: int = 0) -> Model:
    """The best model of a run folder, or the model of a model folder.

    Args:
        run: the folder.
        weights: `float32`, `bf16` or `int8`, of four, two and one byte each; None: as they are in the folder.
        threads: at most; 0: as many as the process may use.

    Raises:
        ThroughtimeError: where a part is missing, damaged, or does not belong to the others.
    """
    parts = read_parts(run)
    network = Network(*built(parts.settings, parts.weights.arrays), weights or parts.weights.held, threads)
    return Model(
        parts.settings,
        network,
        parts.tokenizer,
        parts.weights.digest,
        separator=parts.separator,
        home=Path(run).absolute(),
    )


@final
class Model:
    """A language model and its tokeniser. It keeps no state: that goes in and comes back. Threads may share it.

    Attributes:
        settings: the branch of the recipe it was built by.
        network: its layers.
        tokenizer: text to ids and back.
        vocabulary_size: V.
        digest: the hash of its weights, which its states carry.
        separator: text after which a document ends and the state is reset before the next token; empty: none.
        documents: what finds the separator in ids (`Network.separator`).
    """

    def __init__(
        self,
        settings: Settings,
        network: Network,
        tokenizer: Tokenizer,
        digest: str,
        *,
        separator: str = "",
        home: Path | None = None,
    ):
        self.settings, self.network, self.tokenizer, self.digest = settings, network, tokenizer, digest
        self.vocabulary_size = tokenizer.vocabulary_size
        self.separator = separator
        self.documents = network.separator(tokenizer.pieces, separator.encode())
        self._home = home

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same one: nothing changes it."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """With the weights as they are in its folder, which has to be there still."""
        if self._home is None:
            raise ThroughtimeError("only a model that `runtime.load` read from a folder can be pickled")
        parts = read_parts(self._home)
        if parts.weights.digest != self.digest:
            raise ThroughtimeError(f"the model cannot be pickled: {self._home} holds other weights by now")
        return _unpickled, (
            self.settings,
            parts.weights.arrays,
            self.tokenizer,
            self.digest,
            self.network.weights,
            self.network.wanted_threads,
            self.separator,
            self._home,
        )

    def initial_state(self, batch_size: int = 1) -> State:
        """The state before any text, where a document begins."""
        return State.holding(self.network.initial_state(arguments.whole("batch_size", batch_size, 0)), self.digest)

    def step(self, ids_B: ArrayLike, state: State) -> tuple[NDArray[np.float32], State]:
        """One token a lane: the logits_BV of the token that follows, and the state.

        Raises:
            ThroughtimeError: where the state is another model's or of another number of lanes, or an id is unknown.
        """
        ids = _whole(ids_B)
        if ids.ndim != 1 or not ids.size:
            raise ThroughtimeError(f"ids should have shape [B], at least one, got {list(ids.shape)}")
        self.check_state(state, len(ids))
        if self.separator or state.positions:
            logits_TBV, after = self.feed(ids[None], state)
            return logits_TBV[0], after
        try:
            logits_BV, arrays = self.network.step(ids, state.arrays)
        except IndexError as error:
            raise ThroughtimeError(str(error)) from None
        return logits_BV, State.holding(arrays, self.digest)

    def feed(self, ids_TB: ArrayLike, state: State, wanted: int | None = None) -> tuple[NDArray[np.float32], State]:
        """A chunk: the logits_TBV of the token that follows each, and the state after the last.

        Where a document has ended (`separator`), the state is reset before the next token is read.

        Args:
            ids_TB: token ids, at least one step and one lane.
            state: where the lanes stand.
            wanted: return the logits of so many steps at the end only.

        Raises:
            ThroughtimeError: as `step`.
        """
        ids = _whole(ids_TB)
        if ids.ndim != 2 or not ids.size:
            raise ThroughtimeError(f"ids should have shape [T, B], at least one of each, got {list(ids.shape)}")
        self.check_state(state, ids.shape[1])
        if wanted is not None and not 0 <= arguments.whole("wanted", wanted, 0) <= len(ids):
            raise ThroughtimeError(f"wanted must be 0 to {len(ids)}, the steps there are, got {wanted}")
        try:
            reset_TB, positions = self._documents_in(ids, state) if self.separator or state.positions else (None, [])
            logits_TBV, arrays = self.network.feed(ids, state.arrays, wanted, reset_TB)
        except IndexError as error:
            raise ThroughtimeError(str(error)) from None
        return logits_TBV, State.holding(arrays, self.digest, positions)

    def _documents_in(self, ids: NDArray[np.int64], state: State) -> tuple[NDArray[np.bool_], list[Position]]:
        """Where documents begin in ids_TB, and how far the lanes come by them."""
        before = [state.position(lane) for lane in range(state.batch_size)]
        matched_B = np.array([position.matched for position in before])
        starts_TB = self.documents.starts(ids, matched_B)
        return starts_TB.view(np.bool_), [
            position._replace(
                matched=matched,
                pending=b"",
                seen=tuple(sorted({*position.seen, *ids_T})) if position.seen else (),
            )
            for position, matched, ids_T in zip(before, matched_B.tolist(), ids.T.tolist(), strict=True)
        ]

    def check_state(self, state: State, lanes: int) -> None:
        """Refuse a state of another model or of another number of lanes (ThroughtimeError)."""
        if not isinstance(state, State):
            raise ThroughtimeError(f"a state that `initial_state` or `feed` gave is needed, got {type(state).__name__}")
        if state.model != self.digest:
            raise ThroughtimeError(f"the state is of model {printable(state.model[:12])}, this is {self.digest[:12]}")
        arrays = state.arrays
        if len(arrays[0]) != lanes or [array.shape[1:] for array in arrays] != self.network.state_shapes:
            shapes = ", ".join(str(list(array.shape)) for array in arrays)
            raise ThroughtimeError(f"a state of {lanes} lanes is needed, got {shapes:.200}; see State.select")
        most = len(self.separator.encode()) if state.positions else 0
        if state.positions and any(position.matched > most for position in state.positions):
            raise ThroughtimeError("the state is of a model with another separator of documents")

    def logits(self, state: State) -> NDArray[np.float32]:
        """The logits_BV of the token that follows a state, from what the network put out last."""
        self.check_state(state, state.batch_size)
        return self.network.outputs_after(state.arrays)

    def prompt_ids(self, prompt: str) -> NDArray[np.int64]:
        """The tokens that are read before a text is written (`text.prompt.opening_of`)."""
        return np.array(self.tokenizer.opening(arguments.text("prompt", prompt), self.separator), np.int64)

    def read(self, ids: ArrayLike, state: State | None = None) -> tuple[NDArray[np.float32], State]:
        """A whole text of one lane, in bounded memory: the logits_V of what follows it, and the state."""
        ids_T = _whole(ids)
        state = self.initial_state() if state is None else state
        logits_V = np.empty(0, np.float32)
        for start in range(0, len(ids_T), STEPS_AT_ONCE):
            logits_TBV, state = self.feed(ids_T[start : start + STEPS_AT_ONCE, None], state, 1)
            logits_V = logits_TBV[0, 0]
        return logits_V, state

    def score(self, text: str) -> Score:
        """The surprise of every token of a text, the state carried through it.

        Raises:
            ThroughtimeError: where the text cannot be encoded.
        """
        documents = encode_documents(self.tokenizer, arguments.text("text", text), self.separator)
        ids = np.array([index for document in documents for index in document], np.int64)
        fresh = np.zeros(len(ids), np.bool_)
        fresh[np.cumsum([len(document) for document in documents[:-1]], dtype=np.int64)] = True
        return Score(ids, np.concatenate([np.empty(0), *self.surprise([(ids, fresh)])]))

    def surprise(
        self, blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.bool_] | None]]
    ) -> Iterator[NDArray[np.float64]]:
        """-log2 P of every token but the first of a text, block by block.

        Args:
            blocks: ids of the text in order, and true where a document begins (None: after each separator): there the
                state is reset before the token is read.
        """
        state, last, matched_1 = self.network.initial_state(1), None, np.zeros(1, np.int64)
        for given, fresh in blocks:
            ids = _whole(given)
            fresh = self.documents.starts(ids[:, None], matched_1)[:, 0].view(np.bool_) if fresh is None else fresh
            if last is not None:
                ids, fresh = np.concatenate([last[0], ids]), np.concatenate([last[1], fresh])
            bits = np.empty(max(len(ids) - 1, 0))
            for start in range(0, len(bits), STEPS_AT_ONCE):
                stop = min(start + STEPS_AT_ONCE, len(bits))
                nats_TB, state = self.network.nats(
                    ids[start:stop, None], ids[start + 1 : stop + 1, None], fresh[start:stop, None], state
                )
                bits[start:stop] = nats_TB[:, 0] / math.log(2)
            last = ids[-1:], fresh[-1:]
            yield bits

    def generate(
        self,
        prompt: str = "",
        max_tokens: int = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        stop: str | Iterable[str] = (),
        characters: str | Iterable[str] | None = None,
        words: Iterable[str] | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Text that follows the prompt, as it comes; the prompt itself is not repeated.

        Args:
            prompt: read first, where a document begins; empty: the model begins a document if it has a separator, else
                a line, else it goes on after the first token of its vocabulary.
            max_tokens: how many to draw.
            temperature: the logits are divided by it; 0 takes the likeliest token.
            top_k: draw from the k likeliest tokens only.
            top_p: draw from the fewest likeliest tokens whose probabilities sum to p.
            min_p: draw from tokens at least so probable as this share of the likeliest.
            repetition_penalty: logits of tokens that have been read or written are divided by it where they are
                positive, multiplied where negative (Keskar et al. 2019).
            stop: the text ends before the first of these: a string, or several.
            characters: write with these only: a string, or several; None: with all.
            words: write with these tokens only, a word's with or without the space before it; None: with all.
            seed: same seed, same text; None: another text each time.

        Raises:
            ThroughtimeError: where an argument is out of range or of a wrong kind, or the prompt cannot be encoded.
        """
        max_tokens = arguments.whole("max_tokens", max_tokens, 0)
        choice = Choice(temperature, top_k, top_p, min_p, repetition_penalty, seed).checked()
        stops, ids = arguments.stops(stop), self.prompt_ids(prompt)
        sampler = choice.sampler(self.network, self.allowed(characters, words))
        return self._write(ids, max_tokens, sampler, stops)

    def _write(self, ids: NDArray[np.int64], tokens: int, sampler: Any, stops: Sequence[bytes]) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        held, longest = b"", max(map(len, stops), default=1) - 1
        for chunk in self._draw(ids, tokens, sampler):
            held += self.tokenizer.decode_bytes(chunk)
            ends = [place for place in (held.find(text) for text in stops) if place >= 0]
            if ends:
                yield decoder.decode(held[: min(ends)], final=True)
                return
            # The beginning of a stop string may be at the end.
            ready = max(len(held) - longest, 0)
            yield decoder.decode(held[:ready])
            held = held[ready:]
        yield decoder.decode(held, final=True)

    def _draw(self, ids: NDArray[np.int64], tokens: int, sampler: Any) -> Iterator[list[int]]:
        sampler.see(ids)
        logits_V, state = self.read(ids)
        lanes = Lanes(self.network, self.documents)
        lanes.join(logits_V, state.arrays, state.position(0).matched, sampler)
        for drawn_TB in lanes.draw(tokens):
            chunk = written(drawn_TB[:, 0])
            yield chunk
            if not can_go_on(drawn_TB):
                raise ThroughtimeError(STUCK)

    def allowed(
        self, characters: str | Iterable[str] | None = None, words: Iterable[str] | None = None
    ) -> NDArray[np.uint8] | None:
        """Which tokens may be written (mask_V; None: all): not the unknown one, of which there is no text.

        Raises:
            SettingError: where there is none, or the model can write one of the characters in parts only.
        """
        return allowed_tokens(self.tokenizer, arguments.characters(characters), words)


def _unpickled(
    settings: Settings,
    arrays: Mapping[str, NDArray[np.float32]],
    tokenizer: Tokenizer,
    digest: str,
    weights: str,
    threads: int,
    separator: str,
    home: Path,
) -> Model:
    network = Network(*built(settings, arrays), weights, threads)
    return Model(settings, network, tokenizer, digest, separator=separator, home=home)


def _whole(ids: ArrayLike) -> NDArray[np.int64]:
    """Ids as the kernels take them."""
    try:
        array = np.asarray(ids)
    except ValueError:
        raise ThroughtimeError("ids should be an array, all rows of one length") from None
    if array.size and array.dtype.kind not in "iu":
        raise ThroughtimeError(f"ids should be whole numbers, got {array.dtype}")
    return np.ascontiguousarray(array, np.int64)
