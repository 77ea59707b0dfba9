"""The state of a network as a value: keep it, copy it, go back to it, send it elsewhere.

Axes: S arrays, B batch (lane), H hidden.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from throughtime.errors import ThroughtimeError

FORMAT = "1"


@final
class State:
    """What a network remembers of what it has read, for each lane. Nothing changes it: a step gives a new one.

    Attributes:
        array_SBH: float32; for each layer, from the input up, its output and, where the cell has one, what it carries
            beside it.
        model: the hash of the model it belongs to.
    """

    __slots__ = ("array_SBH", "model")

    def __init__(self, array_SBH: NDArray[np.float32], model: str):
        self.array_SBH, self.model = array_SBH, model

    @property
    def batch_size(self) -> int:
        return int(self.array_SBH.shape[1])

    def select(self, lanes: Sequence[int] | NDArray[np.integer]) -> State:
        """The lanes named, in that order; one may be named twice."""
        return State(np.ascontiguousarray(self.array_SBH[:, np.asarray(lanes, np.intp)]), self.model)

    @staticmethod
    def join(states: Sequence[State]) -> State:
        """The lanes of all states, side by side.

        Raises:
            ThroughtimeError: where they belong to different models, or there is none.
        """
        if len({state.model for state in states}) != 1:
            raise ThroughtimeError("states to be joined should be of one model" if states else "no state to join")
        return State(np.concatenate([state.array_SBH for state in states], 1), states[0].model)

    def to_bytes(self) -> bytes:
        """For `from_bytes`, in another process or on another machine."""
        about = {"format": FORMAT, "model": self.model, "sha256": _hash(self.array_SBH)}
        return save({"state": np.ascontiguousarray(self.array_SBH)}, {"throughtime state": json.dumps(about)})

    @staticmethod
    def from_bytes(blob: bytes) -> State:
        """What `to_bytes` wrote.

        Raises:
            ThroughtimeError: where it is damaged or something else.
        """
        try:
            array = load(blob)["state"]
            header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
            about = json.loads(header["__metadata__"]["throughtime state"])
            if about["format"] != FORMAT or array.dtype != np.float32 or array.ndim != 3:
                raise ValueError(f"format {about['format']}, {array.dtype} of shape {list(array.shape)}")
            if about["sha256"] != _hash(array):
                raise ValueError("its hash is another")
            return State(array, str(about["model"]))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            line = " ".join(str(error).split())
            raise ThroughtimeError(f"{len(blob)} bytes are no state of a model, or damaged: {line}") from None


def _hash(array: NDArray[np.float32]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
