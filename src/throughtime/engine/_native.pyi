"""The compiled part, in C++: see native/module.cpp."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int, int, int]
"""T, B, D, H and V; V is 0 where the inputs are not rows of a table."""

Floats = NDArray[np.float32]
Int64 = NDArray[np.int64]
Marks = NDArray[np.uint8]

def levels() -> list[str]: ...
def thread_source() -> str: ...
def memory(bytes: int) -> NDArray[np.uint8]: ...
def recurrence(level: str, cell: str, bf16: bool) -> Recurrence: ...

class Recurrence:
    gates: int
    vectors: int
    product: bool
    carries_hidden: bool
    def sizes(self, shape: Shape) -> tuple[int, int]: ...
    def forward(self, shape: Shape, threads: int, **arrays: Any) -> None: ...
    def backward(self, shape: Shape, threads: int, **arrays: Any) -> None: ...

class Sampler:
    def __init__(
        self,
        vocabulary: int,
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        repetition_penalty: float,
        seed: int,
        allowed: NDArray[np.uint8] | None,
    ) -> None: ...
    def see(self, tokens: Int64) -> None: ...
    def skip(self, drawn: int) -> None: ...
    @property
    def seed(self) -> int: ...
    @property
    def drawn(self) -> int: ...
    @property
    def seen(self) -> list[int]: ...

class Separator:
    def __init__(self, pieces: Sequence[bytes], text: bytes) -> None: ...
    def starts(self, ids: Int64, matched: Int64) -> Marks: ...
    @property
    def pieces(self) -> tuple[bytes, ...]: ...

class Network:
    def __init__(self, level: str, table_bytes: int) -> None: ...
    def embed(self, rows: Floats) -> None: ...
    def add(self, cell: str, weights: str, W: Floats, U: Floats | None, vectors: Floats, threads: int) -> None: ...
    def head(self, weights: str, W: Floats, b: Floats, threads: int) -> None: ...
    def feed_ids(
        self, ids: Int64, fresh: Marks | None, before: Floats, wanted: int, threads: int
    ) -> tuple[Floats, Floats]: ...
    def feed_vectors(
        self, x: Floats, fresh: Marks | None, before: Floats, wanted: int, threads: int
    ) -> tuple[Floats, Floats]: ...
    def nats(self, logits_NV: Floats, targets_N: Int64, nats_N: NDArray[np.float64]) -> None: ...
    def outputs_after(self, state: Floats, threads: int) -> Floats: ...
    def generate(
        self,
        logits: Floats,
        state: Floats,
        samplers: list[Sampler],
        separator: Separator,
        matched: Int64,
        tokens: Int64,
        threads: int,
    ) -> None: ...
    def search(
        self,
        logits: Floats,
        state: Floats,
        separator: Separator,
        matched: int,
        stops: Sequence[bytes],
        allowed: NDArray[np.uint8] | None,
        beams: int,
        best: int,
        tokens: int,
        length_penalty: float,
        threads: int,
    ) -> list[tuple[bytes, float, float, Floats, int]]: ...
