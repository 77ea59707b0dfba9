"""Which kernel runs a cell, and which of the cell's arrays it reads: what the cells and the runtime both go by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

EPSILON = 1e-5
"""What layer normalisation adds to the variance, in every form of a cell (in C++: `Moments::EPSILON`)."""


class Form(NamedTuple):
    """A cell as its kernel sees it. H hidden, D input, G gates."""

    kernel: str
    """The kernel's name; options of the cell stand in braces."""
    gates: int
    """G."""
    W: str
    """Name of the matrix [G * H, D] on the input."""
    U: str | None
    """Name of the matrix [G * H, H] on the state; None where there is no product with it."""
    vectors: Mapping[str, int]
    """Biases and gains in the kernel's order, each with its length in units of H."""
    state_arrays: int = 1
    """The output, and where it is 2, what is carried beside it."""
    defaults: Mapping[str, str] = {}
    """The options in `kernel`, as they are where nothing is said."""

    def kernel_of(self, options: Mapping[str, Any]) -> str:
        """The kernel's name under these options of the cell."""
        return self.kernel.format(**{name: options.get(name, usual) for name, usual in self.defaults.items()})

    def shapes(self, input_size: int, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Every array of the cell."""
        rows = self.gates * hidden_size
        matrices = {self.W: (rows, input_size)} | ({self.U: (rows, hidden_size)} if self.U else {})
        return matrices | {name: (length * hidden_size,) for name, length in self.vectors.items()}


FORMS = {
    "elman": Form("elman-{activation}", 1, "W_hx", "W_hh", {"b_h": 1}, defaults={"activation": "tanh"}),
    "gru": Form("gru", 3, "W", "U", {"b": 3, "c_n": 1}),
    "lstm": Form("lstm", 4, "W", "U", {"b": 4}, state_arrays=2),
    "layernorm-gru": Form("layernorm-gru", 3, "W", "U", {"b": 3, "c_n": 1, "gain_x": 3, "gain_h": 3}),
    "layernorm-lstm": Form(
        "layernorm-lstm", 4, "W", "U", {"b": 4, "gain_x": 4, "gain_h": 4, "gain_c": 1, "shift_c": 1}, state_arrays=2
    ),
    "mingru": Form("mingru-{candidate}", 2, "W", None, {"b": 2}, defaults={"candidate": "linear"}),
    "minlstm": Form("minlstm-{candidate}", 3, "W", None, {"b": 3}, defaults={"candidate": "linear"}),
}
"""By the cells' names. A kernel resets a state to zero, so that must be the cell's initial state."""
