"""The state of a network as a value: keep it, copy it, go back to it, send it elsewhere.

Axes: B batch (lane).
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Self, final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from throughtime.errors import SettingError, ThroughtimeError
from throughtime.states import States, join, select
from throughtime.untrusted import parse_json, printable, to_json

FORMAT = "3"
STACKED = "2"
"""The format with one array [S, B, H] for the S arrays of a state, all of them [B, H]."""
OLDEST = "1"
"""That format without positions, and with a hash of the array alone."""
ABOUT = "throughtime state"
ARRAY = "state.{}"
"""Names of the arrays, by their places in the state."""


class Position(NamedTuple):
    """How far a lane has come, beside what its network remembers: all that it takes to go on exactly."""

    matched: int = 0
    """Bytes of the model's separator that the text ends with; all of them: the document has ended."""
    pending: bytes = b""
    """First bytes of a character that is not complete."""
    seed: int | None = None
    """Seed of the draws; None: it was not chosen, and nothing has to be drawn again."""
    drawn: int = 0
    """Draws by that seed."""
    seen: tuple[int, ...] = ()
    """Tokens read and written, ascending, where their repetition is penalised."""


@final
class State:
    """What a network remembers of what it has read, for each lane. Nothing changes it: a step gives a new one.

    Attributes:
        arrays: float32, read-only, the batch as first axis; for each layer, from the input up, its output and, where
            the cell has one, what it carries beside it.
        model: the hash of the model it belongs to.
        positions: one for each lane; empty where each is `Position()`.
    """

    __slots__ = ("arrays", "model", "positions")

    arrays: States
    model: str
    positions: tuple[Position, ...]

    def __init__(self, arrays: Sequence[NDArray[np.float32]], model: str, positions: Sequence[Position] = ()):
        found = [np.asarray(array, np.float32) for array in arrays]
        shapes = [list(array.shape) for array in found]
        if not found or any(not shape or shape[0] != shapes[0][0] for shape in shapes):
            raise ThroughtimeError(f"a state has arrays [B, ...] of one batch size, got shapes {shapes}")
        if len(positions) not in (0, shapes[0][0]):
            raise ThroughtimeError(f"a state has B positions or none, got {shapes[0][0]} lanes, {len(positions)}")
        found = [array.copy() if array.flags.writeable else array for array in found]
        for array in found:
            array.setflags(write=False)
        self.arrays, self.model, self.positions = tuple(found), model, _told(positions)

    @classmethod
    def holding(cls, arrays: States, model: str, positions: Sequence[Position] = ()) -> Self:
        """The state with arrays that nobody else holds: they are made read-only, not copied."""
        for array in arrays:
            array.setflags(write=False)
        state = cls.__new__(cls)
        state.arrays, state.model, state.positions = arrays, model, _told(positions) if positions else ()
        return state

    def __reduce__(self) -> tuple[Any, ...]:
        return State, (self.arrays, self.model, self.positions)

    @property
    def batch_size(self) -> int:
        return len(self.arrays[0])

    def position(self, lane: int) -> Position:
        """How far a lane has come."""
        return self.positions[lane] if self.positions else Position()

    def select(self, lanes: Sequence[int] | NDArray[np.integer]) -> State:
        """The lanes named, in that order; one may be named twice.

        Raises:
            SettingError: where `lanes` is no sequence of whole numbers, or names a lane that there is not.
        """
        places = np.asarray(lanes)
        if places.ndim != 1 or (places.size and places.dtype.kind not in "iu"):
            raise SettingError(f"lanes must be a sequence of whole numbers, got {places.dtype} {list(places.shape)}")
        if places.size and not (-self.batch_size <= places.min() and places.max() < self.batch_size):
            raise SettingError(f"lanes must be 0 to {self.batch_size - 1}, got {places.tolist()}")
        picked = tuple(self.positions[place] for place in places.tolist()) if self.positions else ()
        return State.holding(select(self.arrays, places.astype(np.intp)), self.model, picked)

    @staticmethod
    def join(states: Sequence[State]) -> State:
        """The lanes of all states, side by side.

        Raises:
            ThroughtimeError: where they belong to different models, or there is none.
        """
        if len({state.model for state in states}) != 1:
            raise ThroughtimeError("states to be joined should be of one model" if states else "no state to join")
        try:
            arrays = join([state.arrays for state in states])
        except ValueError as error:
            raise ThroughtimeError(f"states to be joined should be of one size: {error}") from None
        positions = [state.position(lane) for state in states for lane in range(state.batch_size)]
        return State.holding(arrays, states[0].model, positions)

    def to_bytes(self) -> bytes:
        """For `from_bytes`, in another process or on another machine."""
        positions = [
            [position.matched, position.pending.hex(), position.seed, position.drawn, list(position.seen)]
            for position in self.positions
        ]
        arrays = [np.ascontiguousarray(array) for array in self.arrays]
        digest = _hash(arrays, [list(array.shape) for array in arrays], self.model, positions)
        about = {"format": FORMAT, "model": self.model, "sha256": digest, "positions": positions}
        return save({ARRAY.format(place): array for place, array in enumerate(arrays)}, {ABOUT: to_json(about)})

    @staticmethod
    def from_bytes(blob: bytes) -> State:
        """What `to_bytes` wrote.

        Raises:
            ThroughtimeError: where it is damaged or something else, or holds numbers that are not finite.
        """
        if not isinstance(blob, bytes | bytearray | memoryview):
            raise ThroughtimeError(f"a state is read from bytes, got {type(blob).__name__}")
        blob = bytes(blob)
        try:
            named = load(blob)
            header = parse_json(blob[8 : 8 + int.from_bytes(blob[:8], "little")], "the header")
            about = parse_json(header["__metadata__"][ABOUT], "the description")
            form, model = about["format"], str(about["model"])
            if form not in (OLDEST, STACKED, FORMAT):
                raise ValueError(f"format {form}")
            positions = [] if form == OLDEST else about["positions"]
            arrays, shapes = _arrays_in(named, form)
            told = _hash(arrays) if form == OLDEST else _hash(arrays, shapes, model, positions)
            if about["sha256"] != told:
                raise ValueError("SHA-256 mismatch")
            if not all(np.isfinite(array).all() for array in arrays):
                raise ValueError("it holds numbers that are not finite")
            return State(arrays, model, [_position(*entry) for entry in positions])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            line = printable(" ".join(str(error).split()))
            raise ThroughtimeError(f"{len(blob)} bytes are no state of a model, or damaged: {line:.200}") from None


def _told(positions: Sequence[Position]) -> tuple[Position, ...]:
    """The positions, or none where no lane's says anything."""
    return tuple(positions) if any(position != Position() for position in positions) else ()


def _position(matched: Any, pending: Any, seed: Any, drawn: Any, seen: Any) -> Position:
    """A position from a state's description. ValueError or TypeError: it is none."""
    whole = [matched, drawn, 0 if seed is None else seed, *seen]
    if any(type(number) is not int or not 0 <= number < 1 << 64 for number in whole):
        raise ValueError("a position holds what is no whole number of 64 bits")
    if list(seen) != sorted(set(seen)):
        raise ValueError("the tokens of a position are not ascending")
    begun = bytes.fromhex(pending)
    if len(begun) > 3 or codecs.getincrementaldecoder("utf-8")().decode(begun):
        raise ValueError("the pending bytes of a position are not the beginning of a character")
    return Position(matched, begun, seed, drawn, tuple(seen))


def _arrays_in(named: dict[str, NDArray[Any]], form: str) -> tuple[list[NDArray[np.float32]], list[Any]]:
    """The arrays of a state from a file of such a format, and their shapes as its hash has them.

    Raises:
        KeyError, ValueError: where they are not those of a state.
    """
    if form == FORMAT:
        arrays = [named.pop(ARRAY.format(place)) for place in range(len(named))]
        shapes: list[Any] = [list(array.shape) for array in arrays]
    else:
        stacked = named.pop("state")
        if stacked.ndim != 3:
            raise ValueError(f"an array of shape {list(stacked.shape)}")
        arrays, shapes = list(stacked), list(stacked.shape)
    if named or not arrays or any(array.dtype != np.float32 or not array.ndim for array in arrays):
        raise ValueError("its arrays are not those of a state")
    if any(len(array) and not array.size for array in arrays):
        raise ValueError("an array with lanes and without numbers")
    return arrays, shapes


def _hash(arrays: Sequence[NDArray[np.float32]], *about: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    if about:
        digest.update(json.dumps(about).encode())
    return digest.hexdigest()
