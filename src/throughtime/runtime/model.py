"""A trained language model, running without PyTorch: step, feed, score, generate.

Axes: T time, B batch (lane), V vocabulary.
"""

from __future__ import annotations

import codecs
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from throughtime import folder as folders
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.recipe import Model as Settings
from throughtime.runtime.lanes import Choice, Lanes
from throughtime.runtime.network import Floats, Layer, Network, form_of
from throughtime.runtime.state import State
from throughtime.text import tokenizer as tokenizers
from throughtime.text.tokenizer import Tokenizer

STEPS_AT_ONCE = 512
LONGEST_CHUNK = 64
"""Tokens drawn before text is handed out: a chunk grows while it takes less than PATIENCE seconds."""
PATIENCE = 0.02


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
        """Per token; NaN where nothing is predicted."""
        return 2 ** float(self.bits.mean()) if len(self.bits) else math.nan


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
    held = weights or parts.weights.held
    return Model(parts.settings, parts.weights.arrays, parts.tokenizer, parts.weights.digest, held, threads)


class Parts(NamedTuple):
    """What lies in a model folder."""

    place: folders.Place
    tokenizer: Tokenizer
    settings: Settings
    weights: folders.Weights


def read_parts(run: str | Path) -> Parts:
    """The parts of a run's best model, or of a model folder, each checked against the others.

    Raises:
        ThroughtimeError: as `load`.
    """
    place = folders.find(run)
    tokenizer = tokenizers.load(place.home / folders.TOKENIZER)
    settings = folders.read_description(place.folder, tokenizer.vocabulary_size).settings
    weights = folders.read_weights(place.folder, shapes(settings, tokenizer.vocabulary_size))
    return Parts(place, tokenizer, settings, weights)


def shapes(settings: Settings, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """The arrays of a language model by the names they have in its file."""
    hidden, size = settings.hidden_size, settings.embedding_size or settings.hidden_size
    found: dict[str, tuple[int, ...]] = {"embedding": (vocabulary_size, size), "b_o": (vocabulary_size,)}
    if not settings.tied:
        found["W_o"] = (vocabulary_size, hidden)
    for level in range(settings.layers):
        of_cell = form_of(settings.cell).shapes(hidden if level else size, hidden)
        found |= {f"stack.cells.{level}.{name}": shape for name, shape in of_cell.items()}
    return found


class Built(NamedTuple):
    """What a `Network` is made of."""

    layers: list[Layer]
    embedding: Floats
    head: tuple[Floats, Floats]


def built(settings: Settings, arrays: Mapping[str, Floats]) -> Built:
    """The network of a language model. Tied, one matrix is both: what is read from it is multiplied by H^1/2."""
    names = form_of(settings.cell).shapes(1, 1)
    layers = [
        Layer(settings.cell, {name: arrays[f"stack.cells.{level}.{name}"] for name in names}, settings.cell_options)
        for level in range(settings.layers)
    ]
    rows_VD = arrays["embedding"]
    if settings.tied:
        return Built(layers, rows_VD * np.float32(settings.hidden_size**0.5), (rows_VD, arrays["b_o"]))
    return Built(layers, rows_VD, (arrays["W_o"], arrays["b_o"]))


@final
class Model:
    """A language model and its tokeniser. It keeps no state: that goes in and comes back.

    Attributes:
        settings: the branch of the recipe it was built by.
        tokenizer: text to ids and back.
        vocabulary_size: V.
        network: its layers.
        digest: the hash of its weights, which its states carry.
    """

    def __init__(
        self,
        settings: Settings,
        arrays: Mapping[str, NDArray[np.float32]],
        tokenizer: Tokenizer,
        digest: str,
        weights: str = "float32",
        threads: int = 0,
    ):
        self.settings, self.tokenizer, self.digest = settings, tokenizer, digest
        self.vocabulary_size = tokenizer.vocabulary_size
        self.network = Network(*built(settings, arrays), weights, threads)

    def initial_state(self, batch_size: int = 1) -> State:
        """The state before any text."""
        return State(self.network.initial_state(batch_size), self.digest)

    def step(self, ids_B: ArrayLike, state: State) -> tuple[NDArray[np.float32], State]:
        """One token a lane: the logits_BV of the token that follows, and the state.

        Raises:
            ThroughtimeError: where the state is another model's or of another number of lanes, or an id is unknown.
        """
        logits_TBV, state = self.feed(np.asarray(ids_B)[None], state)
        return logits_TBV[0], state

    def feed(self, ids_TB: ArrayLike, state: State, wanted: int | None = None) -> tuple[NDArray[np.float32], State]:
        """A chunk: the logits_TBV of the token that follows each, and the state after the last.

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
        if state.model != self.digest:
            raise ThroughtimeError(f"the state is of model {state.model[:12]}, this is {self.digest[:12]}")
        if state.array_SBH.shape != (self.network.state_arrays, ids.shape[1], self.network.hidden_size):
            raise ThroughtimeError(
                f"a state of {ids.shape[1]} lanes is needed, got {list(state.array_SBH.shape)}; see State.select"
            )
        if not 0 <= (wanted or 0) <= len(ids):
            raise ThroughtimeError(f"wanted must be 0 to {len(ids)}, the steps there are, got {wanted}")
        try:
            logits_TBV, array_SBH = self.network.feed(ids, state.array_SBH, wanted)
        except IndexError as error:
            raise ThroughtimeError(str(error)) from None
        return logits_TBV, State(array_SBH, self.digest)

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
        ids = self.tokenizer.encode(text).astype(np.int64)
        return Score(ids, np.concatenate([np.empty(0), *self.surprise([(ids, None)])]))

    def surprise(
        self, blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.bool_] | None]]
    ) -> Iterator[NDArray[np.float64]]:
        """-log2 P of every token but the first of a text, block by block.

        Args:
            blocks: ids of the text in order, and true where a document begins (None: nowhere): there the state is reset
                before the token is read.
        """
        array_SBH, last = self.network.initial_state(1), None
        for ids, fresh in blocks:
            fresh = np.zeros(len(ids), np.bool_) if fresh is None else fresh
            if last is not None:
                ids, fresh = np.concatenate([last[0], ids]), np.concatenate([last[1], fresh])
            bits = np.empty(max(len(ids) - 1, 0))
            for start in range(0, len(bits), STEPS_AT_ONCE):
                stop = min(start + STEPS_AT_ONCE, len(bits))
                nats_TB, array_SBH = self.network.nats(
                    ids[start:stop, None], ids[start + 1 : stop + 1, None], fresh[start:stop, None], array_SBH
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
        stop: Sequence[str] = (),
        characters: str | None = None,
        words: Iterable[str] | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Text that follows the prompt, as it comes; the prompt itself is not repeated.

        Args:
            prompt: read first; empty: the model begins a line.
            max_tokens: how many to draw.
            temperature: the logits are divided by it; 0 takes the likeliest token.
            top_k: draw from the k likeliest tokens only.
            top_p: draw from the fewest likeliest tokens whose probabilities sum to p.
            min_p: draw from tokens at least so probable as this share of the likeliest.
            repetition_penalty: logits of tokens that have been read or written are divided by it where they are
                positive, multiplied where negative (Keskar et al. 2019).
            stop: the text ends before the first of these.
            characters: write with these only; None: with all.
            words: write with these tokens only, a word's with or without the space before it; None: with all.
            seed: same seed, same text; None: another text each time.

        Raises:
            ThroughtimeError: where a setting is out of range or the prompt cannot be encoded.
        """
        if max_tokens < 0:
            raise SettingError(f"max_tokens must not be negative, got {max_tokens}")
        if any(not text for text in stop):
            raise SettingError("a stop string must not be empty")
        ids = np.array(self.tokenizer.opening(prompt), np.int64)
        choice = Choice(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        sampler = choice.sampler(self.network, self.vocabulary_size, self.allowed(characters, words))
        return self._write(ids, max_tokens, sampler, [text.encode() for text in stop])

    def _write(self, ids: NDArray[np.int64], tokens: int, sampler: Any, stops: Sequence[bytes]) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        held, longest = b"", max(map(len, stops), default=1) - 1
        for chunk in self._draw(ids, tokens, sampler):
            held += self.tokenizer.decode_bytes(chunk.tolist())
            ends = [place for place in (held.find(text) for text in stops) if place >= 0]
            if ends:
                yield decoder.decode(held[: min(ends)], final=True)
                return
            # The beginning of a stop string may be at the end.
            ready = max(len(held) - longest, 0)
            yield decoder.decode(held[:ready])
            held = held[ready:]
        yield decoder.decode(held, final=True)

    def _draw(self, ids: NDArray[np.int64], tokens: int, sampler: Any) -> Iterator[NDArray[np.int64]]:
        sampler.see(ids)
        logits_V, state = self.read(ids)
        lanes = Lanes(self.network)
        lanes.join(logits_V, state.array_SBH, sampler)
        chunk = 1
        while tokens:
            chunk = min(chunk, tokens)
            began = time.perf_counter()
            yield lanes.draw(chunk)[:, 0]
            tokens -= chunk
            if time.perf_counter() - began < PATIENCE:
                chunk = min(2 * chunk, LONGEST_CHUNK)

    def allowed(self, characters: str | None = None, words: Iterable[str] | None = None) -> NDArray[np.uint8] | None:
        """Which tokens may be written (mask_V; None: all): not the unknown one, of which there is no text.

        Raises:
            SettingError: where there is none.
        """
        if isinstance(words, str):
            raise SettingError(f"words should be several strings, got the string {words!r}")
        unknown = self.tokenizer.unknown
        if unknown is None and characters is None and words is None:
            return None
        allowed = np.ones(self.vocabulary_size, np.uint8)
        if unknown is not None:
            allowed[unknown] = 0
        known = None if words is None else {word.encode() for word in words}
        of = None if characters is None else set(characters)
        for index, piece in enumerate(self.tokenizer.pieces):
            if known is not None and piece not in known and piece.removeprefix(b" ") not in known:
                allowed[index] = 0
            if of is not None and not of.issuperset(piece.decode("utf-8", "replace")):
                allowed[index] = 0
        if not allowed.any():
            raise SettingError("no token of the model is made of what is allowed")
        return allowed


def _whole(ids: ArrayLike) -> NDArray[np.int64]:
    """Ids as the kernels take them."""
    array = np.asarray(ids)
    if array.size and array.dtype.kind not in "iu":
        raise ThroughtimeError(f"ids should be whole numbers, got {array.dtype}")
    return np.ascontiguousarray(array, np.int64)
