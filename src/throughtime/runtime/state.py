"""The state of a network as a value: keep it, copy it, go back to it, send it elsewhere.

Axes: S arrays, B batch (lane), H hidden.
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
from throughtime.untrusted import parse_json, printable, to_json

FORMAT = "2"
OLDER = "1"
"""The format without positions, and with a hash of the array alone."""
ABOUT = "throughtime state"

Floats = NDArray[np.float32]


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
        array_SBH: float32, read-only; for each layer, from the input up, its output and, where the cell has one, what
            it carries beside it.
        model: the hash of the model it belongs to.
        positions: one for each lane; empty where each is `Position()`.
    """

    __slots__ = ("array_SBH", "model", "positions")

    array_SBH: Floats
    model: str
    positions: tuple[Position, ...]

    def __init__(self, array_SBH: Floats, model: str, positions: Sequence[Position] = ()):
        array = np.asarray(array_SBH, np.float32)
        if array.ndim != 3 or len(positions) not in (0, array.shape[1]):
            raise ThroughtimeError(
                f"a state has shape [S, B, H] and B positions or none, got {list(array.shape)} and {len(positions)}"
            )
        if array.flags.writeable:
            array = array.copy()
            array.setflags(write=False)
        self.array_SBH, self.model, self.positions = array, model, _told(positions)

    @classmethod
    def holding(cls, array_SBH: Floats, model: str, positions: Sequence[Position] = ()) -> Self:
        """The state with an array [S, B, H] that nobody else holds: it is made read-only, not copied."""
        array_SBH.setflags(write=False)
        state = cls.__new__(cls)
        state.array_SBH, state.model, state.positions = array_SBH, model, _told(positions) if positions else ()
        return state

    def __reduce__(self) -> tuple[Any, ...]:
        return State, (self.array_SBH, self.model, self.positions)

    @property
    def batch_size(self) -> int:
        return int(self.array_SBH.shape[1])

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
        return State.holding(np.ascontiguousarray(self.array_SBH[:, places.astype(np.intp)]), self.model, picked)

    @staticmethod
    def join(states: Sequence[State]) -> State:
        """The lanes of all states, side by side.

        Raises:
            ThroughtimeError: where they belong to different models, or there is none.
        """
        if len({state.model for state in states}) != 1:
            raise ThroughtimeError("states to be joined should be of one model" if states else "no state to join")
        try:
            array_SBH = np.concatenate([state.array_SBH for state in states], 1)
        except ValueError as error:
            raise ThroughtimeError(f"states to be joined should be of one size: {error}") from None
        positions = [state.position(lane) for state in states for lane in range(state.batch_size)]
        return State.holding(array_SBH, states[0].model, positions)

    def to_bytes(self) -> bytes:
        """For `from_bytes`, in another process or on another machine."""
        positions = [
            [position.matched, position.pending.hex(), position.seed, position.drawn, list(position.seen)]
            for position in self.positions
        ]
        digest = _hash(self.array_SBH, self.model, positions)
        about = {"format": FORMAT, "model": self.model, "sha256": digest, "positions": positions}
        return save({"state": np.ascontiguousarray(self.array_SBH)}, {ABOUT: to_json(about)})

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
            array = load(blob)["state"]
            header = parse_json(blob[8 : 8 + int.from_bytes(blob[:8], "little")], "the header")
            about = parse_json(header["__metadata__"][ABOUT], "the description")
            positions = about["positions"] if about["format"] == FORMAT else []
            if about["format"] not in (OLDER, FORMAT) or array.dtype != np.float32 or array.ndim != 3:
                raise ValueError(f"format {about['format']}, {array.dtype} of shape {list(array.shape)}")
            told = _hash(array) if about["format"] == OLDER else _hash(array, str(about["model"]), positions)
            if array.shape[1] and not array.size:
                raise ValueError(f"an array of shape {list(array.shape)}, with lanes and without numbers")
            if about["sha256"] != told:
                raise ValueError("SHA-256 mismatch")
            if not np.isfinite(array).all():
                raise ValueError("it holds numbers that are not finite")
            return State(array, str(about["model"]), [_position(*entry) for entry in positions])
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


def _hash(array: Floats, *about: Any) -> str:
    digest = hashlib.sha256(array.tobytes())
    if about:
        digest.update(json.dumps([list(array.shape), *about]).encode())
    return digest.hexdigest()
