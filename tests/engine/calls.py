"""Calls of kernels as the tests make them: odd sizes, and NaN wherever a kernel has no business to read or forgets to
write. It stands on NumPy alone, as the engine does.

Axes: T time, B batch (lane), D input, H hidden, V rows of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from throughtime.engine import levels
from throughtime.engine.choice import _native

KERNELS = (
    "elman-relu",
    "elman-tanh",
    "gru",
    "layernorm-gru",
    "layernorm-lstm",
    "lstm",
    "mingru-linear",
    "mingru-positive",
    "minlstm-linear",
    "minlstm-positive",
)
LEVELS = levels()
HALVES = ("avx512fp16",)
"""Those where half floats take the place of bf16: they have more bits, and their sums round a stretch at a time. States
that can outgrow them are bf16 there too."""
MARGIN = 72
"""Bytes around an array: no more than its own type's alignment, and more than a vector."""


class Case(NamedTuple):
    """A layer and a window of it."""

    T: int
    B: int
    D: int
    H: int
    V: int = 0
    """0: the inputs are not rows of a table."""
    marked: bool = False
    """Rows begin anew, gradients are scaled."""
    masked: bool = False
    """Weights and units are left out, where the kernel has a product with its state."""
    ragged: bool = False
    """Lanes are of unequal length: T is that of the longest."""


ODD = (
    Case(1, 1, 7, 1),
    Case(7, 3, 1, 7, marked=True),
    Case(4, 7, 65, 63, marked=True, masked=True),
    Case(3, 17, 63, 64, masked=True),
    Case(5, 1, 130, 65),
    Case(2, 2, 64, 130, marked=True),
    Case(5, 7, 7, 65, V=11, marked=True, masked=True),  # rows that several steps read
    Case(3, 5, 63, 7, V=130),  # rows that none does
)
"""Units that fill no vector, or one more; lanes that are one tile, or none for some threads."""

RAGGED = (
    Case(1, 3, 5, 7, ragged=True),
    Case(9, 1, 7, 33, marked=True, ragged=True),
    Case(7, 5, 63, 65, marked=True, masked=True, ragged=True),
    Case(6, 19, 65, 7, masked=True, ragged=True),
    Case(8, 7, 33, 17, V=11, marked=True, masked=True, ragged=True),
    Case(4, 40, 5, 33, V=130, ragged=True),
)

LONG = Case(19, 65, 5, 130, marked=True)
"""More than one chunk of inputs made ahead, and more than one block of steps in the products for the weights."""
LONG_RAGGED = LONG._replace(T=40, ragged=True)
"""Likewise, and their steps differ in number."""


def draw(kernel, case: Case, seed: int = 1) -> dict[str, np.ndarray]:
    """The inputs of both passes. Masks are powers of two, so that what is multiplied is rounded once."""
    _, B, D, H, V, marked, masked, _ = case
    noise = np.random.default_rng(seed)
    starts = starts_of(case, noise)
    rows = int(starts[-1])

    def normal(*shape, scale=1.0):
        return (scale * noise.standard_normal(shape)).astype(np.float32)

    arrays = {
        "x": normal(V or rows, D),
        "W": normal(kernel.gates * H, D, scale=D**-0.5),
        "vectors": 0.5 + normal(kernel.vectors, H, scale=0.3),
        "hidden0": normal(B, H),
        "dy": normal(*by_row(case, rows), H),
        "dhidden": normal(B, H),
    }
    if kernel.product:
        arrays["U"] = normal(kernel.gates * H, H, scale=H**-0.5)
    if not kernel.carries_hidden:
        arrays["carried0"], arrays["dcarried"] = normal(B, H), normal(B, H)
    if V:
        arrays["ids"] = noise.integers(0, V, by_row(case, rows))
    if marked:
        arrays["fresh"] = (noise.random(by_row(case, rows)) < 0.2).astype(np.uint8)
        arrays["flow"] = noise.choice(np.float32([0, 0.25, 1, 1.7]), by_row(case, rows))
    if masked and kernel.product:
        arrays["U_mask"] = noise.choice(np.float32([0, 1, 2]), (kernel.gates * H, H))
        arrays["state_mask"] = noise.choice(np.float32([0, 1, 2]), (B, H))
    if case.ragged:
        arrays["starts"] = starts
    return arrays


def starts_of(case: Case, noise: np.random.Generator) -> np.ndarray:
    """Rows before each step, [T + 1]. Unequal lanes come longest first; one has all T steps."""
    lengths = noise.integers(1, case.T + 1, case.B) if case.ragged else np.full(case.B, case.T)
    lengths[0] = case.T
    alive = (lengths > np.arange(case.T)[:, None]).sum(1)
    return np.concatenate([[0], alive.cumsum()])


def by_row(case: Case, rows: int) -> tuple[int, ...]:
    """The first axes of an array with an entry for each step of each lane: [T, B], or of unequal lanes [N]."""
    return (rows,) if case.ragged else (case.T, case.B)


GIVEN = ("dy", "dhidden", "dcarried")
"""Inputs of the backward pass alone."""
WANTED = ("dx", "dW", "dU", "dvectors", "dhidden0", "dcarried0")


def call(
    kernel,
    case: Case,
    inputs: dict[str, np.ndarray],
    threads: int = 1,
    wanted: Sequence[str] = WANTED,
    backward_threads: int | None = None,
    spoil: bool = True,
) -> dict[str, np.ndarray]:
    """What the kernel gives: its outputs, and of the gradients those wanted; no way back is kept where none is."""
    B, H = case.B, case.H
    ragged = {"starts": inputs["starts"]} if case.ragged else {}
    rows = inputs["starts"][-1] if case.ragged else case.T * B
    sizes = {"y": (*by_row(case, rows), H), "hidden": (B, H)} | ({} if kernel.carries_hidden else {"carried": (B, H)})
    framed = {name: _Framed(array) for name, array in inputs.items()}
    given = {name: framed[name].array for name in inputs if name not in GIVEN}
    results = {name: _Framed.nan(shape) for name, shape in sizes.items()}
    if wanted:
        saved, read = kernel.sizes(case[:5], **ragged)
        given["saved"] = np.full(saved // 4, np.nan, np.float32)
        given["read"] = np.full(read, 0xFF, np.uint8)
        if not kernel.product:
            del given["read"]
    if spoil:
        spoil_workspace(kernel, case)
    kernel.forward(case[:5], threads, **given, **{name: frame.array for name, frame in results.items()})
    if wanted:
        gradients = {name: _Framed.nan(inputs[name[1:]].shape) for name in wanted if name[1:] in inputs}
        given |= {name: framed[name].array for name in GIVEN if name in inputs}
        if spoil:
            spoil_workspace(kernel, case)
        kernel.backward(
            case[:5], backward_threads or threads, **given, **{name: frame.array for name, frame in gradients.items()}
        )
        results |= gradients
    for name, frame in (framed | results).items():
        frame.check(name, inputs.get(name))
    return {name: frame.array for name, frame in results.items()}


def spoil_workspace(kernel, case: Case) -> None:
    """Fill the memory that calls of this thread share with NaN, as far as a call of this case may reach.

    That is what a table with one row per 32 bytes leaves there; then a long row of weights covers what lay before it.
    """
    T, B, D, H, V = case[:5]
    D, H = (size // 32 * 32 + 32 for size in (D, H))
    gates = kernel.gates
    size = 32 * (T * B + V) * (gates * H + D) + 12 * gates * H * (D + H)
    portable = _native.recurrence("portable", "mingru-linear", False)
    for D, H, V in ((1, 1, size // 32), (4000, 4, 0)):
        shapes = {"x": (V or 1, D), "W": (2 * H, D), "vectors": 2 * H, "hidden0": H, "y": H, "hidden": H}
        arrays = {name: np.full(shape, np.nan, np.float32) for name, shape in shapes.items()}
        ids = {"ids": np.zeros((1, 1), np.int64)} if V else {}
        portable.forward((1, 1, D, H, V), 1, **arrays, **ids)


class _Framed:
    """An array with margins around it that read as NaN, and as an id that is none."""

    def __init__(self, array: np.ndarray):
        self.bytes = np.full(array.nbytes + 2 * MARGIN, 0xFF, np.uint8)
        self.array = self.bytes[MARGIN:-MARGIN].view(array.dtype).reshape(array.shape)
        self.array[...] = array

    @classmethod
    def nan(cls, shape) -> _Framed:
        return cls(np.full(shape, np.nan, np.float32))

    def check(self, name: str, given: np.ndarray | None) -> None:
        margins = np.concatenate([self.bytes[:MARGIN], self.bytes[-MARGIN:]])
        assert (margins == 0xFF).all(), f"the kernel wrote beyond {name}"
        assert given is None or (given.view(np.uint8) == self.array.view(np.uint8)).all(), f"{name} is an input"
