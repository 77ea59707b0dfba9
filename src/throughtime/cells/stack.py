"""Layers of cells: h_t^l = phi(W^l [h_t^(l-1); h_(t-1)^l]), for every kind of cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from throughtime.cells import checking
from throughtime.cells.base import Cell, Embedded
from throughtime.cells.bidirectional import Bidirectional
from throughtime.cells.lengths import Lengths
from throughtime.cells.masks import Masks, check_probability, draw_mask, drop, warn_without_noise
from throughtime.cells.state import State
from throughtime.errors import ThroughtimeError

Layer = Cell | Bidirectional


@final
class Stack(nn.Module):
    """Cells one above the other, used like a single cell. Its state is the tuple of its layers' states.

    Args:
        cells: from the input up; each takes what the one below puts out. One cell alone is a stack of one. A
            `Bidirectional` layer stands where a cell may.
        dropout: probability that a unit is dropped between two layers (Zaremba et al. 2014: not on the recurrence).
        weight_drop: probability that a weight is left out of the product with the state (`Masks.weights`).
        recurrent_dropout: probability that a unit of the state is left out of it (`Masks.state_BH`).

    Raises:
        SettingError: where a probability is not in [0, 1), or something is to be left out of a product that a cell does
            not have.
        ThroughtimeError: where the cells do not fit together.
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["engine", "reason"]

    def __init__(
        self,
        cells: Layer | Iterable[Layer],
        dropout: float = 0.0,
        weight_drop: float = 0.0,
        recurrent_dropout: float = 0.0,
    ):
        super().__init__()
        cells = [cells] if isinstance(cells, Layer) else list(cells)
        if not cells or not all(isinstance(cell, Layer) for cell in cells):
            kinds = ", ".join(type(cell).__name__ for cell in cells) or "none"
            raise ThroughtimeError(f"a stack needs a list of at least one cell of throughtime.cells, got {kinds}")
        for below, above in zip(cells, cells[1:], strict=False):
            if above.input_size != below.hidden_size:
                raise ThroughtimeError(f"a layer of input {above.input_size} cannot stand on {below.hidden_size} units")
        check_probability("dropout", dropout)
        check_probability("weight_drop", weight_drop)
        check_probability("recurrent_dropout", recurrent_dropout)
        if weight_drop or recurrent_dropout:
            for cell in (cell for layer in cells for cell in _directions(layer)):
                cell.recurrent_weights()  # a cell without says so now, not at the first window
        self.cells = nn.ModuleList(cells)
        self.dropout, self.weight_drop, self.recurrent_dropout = dropout, weight_drop, recurrent_dropout
        self.input_size, self.hidden_size = cells[0].input_size, cells[-1].hidden_size

    @property
    def engine(self) -> str:
        """The form that would run a sequence now; the forms, where the layers differ."""
        return ", ".join(dict.fromkeys(engine for engine, _ in self._running()))

    @property
    def reason(self) -> str:
        """Why that form runs, in a few words."""
        return "; ".join(dict.fromkeys(reason for _, reason in self._running()))

    def _running(self) -> list[tuple[str, str]]:
        """Of each layer; with masks where there is dropout."""
        found = [(cell.engine, cell.reason) for cell in self.layers()]
        if self.recurrent_dropout:
            masked = ("reference", "PyTorch's forms leave nothing out of the state")
            found = [masked if engine == "torch" else (engine, reason) for engine, reason in found]
        return found

    @property
    def drops(self) -> bool:
        """Whether something is dropped where there is noise."""
        return bool((self.dropout and len(self.cells) > 1) or self.weight_drop or self.recurrent_dropout)

    def extra_repr(self) -> str:
        sizes = f"input_size={self.input_size}, hidden_size={self.hidden_size}, layers={len(self.cells)}"
        shares = {name: getattr(self, name) for name in ("dropout", "weight_drop", "recurrent_dropout")}
        return ", ".join([sizes, *(f"{name}={share:g}" for name, share in shares.items() if share)])

    def initial_state(self, batch_size: int) -> State:
        return tuple(cell.initial_state(batch_size) for cell in self.layers())

    def step(self, x_BD: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of every layer, with the state after it; arguments as in `Cell.step`. Nothing is dropped."""
        after = []
        for cell, layer_state in zip(self.layers(), self._layer_states(state), strict=True):
            x_BD, layer_state = cell.step(x_BD, layer_state)
            after.append(layer_state)
        return x_BD, tuple(after)

    def forward(
        self,
        x: Tensor | Embedded,
        state: State = None,
        reset_TB: Tensor | None = None,
        gradient_scale_TB: Tensor | None = None,
        lengths_B: Tensor | Lengths | None = None,
        noise: torch.Generator | None = None,
    ) -> tuple[Tensor, State]:
        """Run a sequence through every layer, time first; arguments as in `Cell.forward`.

        Args:
            x: as in `Cell.forward`.
            state: a layer's state each, from the input up; or the arrays [L, B, H] of PyTorch's own layers.
            reset_TB: as in `Cell.forward`.
            gradient_scale_TB: as in `Cell.forward`.
            lengths_B: as in `Cell.forward`.
            noise: where masks are drawn from, once a call. Without it nothing is dropped, in training mode with a
                warning. The order: for each layer, from the input up, its input (not the first's), the weights on its
                state, its state; of a `Bidirectional` layer those of the forward direction first.
        """
        if noise is None and self.drops:
            warn_without_noise(self)
        after = []
        states = [None] * len(self.cells) if state is None else self._layer_states(state)
        y_TBH = torch.empty(0, device="cpu")
        lanes, masked = 0, noise is not None and (self.weight_drop or self.recurrent_dropout)
        first, inputs = _directions(self.layers()[0])[0], x if isinstance(x, Embedded) else (x, None)
        if masked:
            _, lanes = checking.sizes_of(first, *inputs)
        if lengths_B is not None:  # sorted once for all layers
            lengths_B = checking.lengths_of(first, inputs, lengths_B)
        for level, (layer, layer_state) in enumerate(zip(self.layers(), states, strict=True)):
            below = x if level == 0 else drop(y_TBH, self.dropout, noise)
            masks = self._masks(layer, lanes, noise) if masked else None
            y_TBH, layer_state = layer(below, layer_state, reset_TB, gradient_scale_TB, lengths_B, masks)
            after.append(layer_state)
        return y_TBH, tuple(after)

    def _masks(self, layer: Layer, lanes: int, noise: torch.Generator | None) -> Masks | tuple[Masks, ...]:
        drawn = [
            Masks(
                weights=draw_mask(cell.recurrent_weights(), self.weight_drop, noise),
                state_BH=draw_mask(cell.zeros(lanes), self.recurrent_dropout, noise),
            )
            for cell in _directions(layer)
        ]
        return tuple(drawn) if isinstance(layer, Bidirectional) else drawn[0]

    def _layer_states(self, state: Any) -> Sequence[Any]:
        """A state for each layer, which the layer checks."""
        cells = self.layers()
        given = [state] if isinstance(state, Tensor) else state
        if _is_stacked(given, cells):
            return [tuple(array[level] for array in given) for level in range(len(cells))]
        if len(cells) == 1 and not (type(state) in (tuple, list) and len(state) == 1):
            return [state]
        if type(state) not in (tuple, list) or len(state) != len(cells):
            kind = type(state).__name__ + (f" of {len(state)}" if isinstance(state, tuple | list) else "")
            raise ThroughtimeError(
                f"the state of a stack should be a tuple of its {len(cells)} layers' states, got {kind}"
            )
        return state  # type: ignore[no-any-return]

    def layers(self) -> Sequence[Any]:
        """The layers, from the input up: cells, where none is `Bidirectional`."""
        return self.cells  # type: ignore[return-value]


def _directions(layer: Layer) -> tuple[Cell, ...]:
    return (layer.forward_cell, layer.reverse_cell) if isinstance(layer, Bidirectional) else (layer,)


def _is_stacked(given: Any, layers: Sequence[Layer]) -> bool:
    """Whether these are arrays of all layers, each with an axis of layers before that of the batch."""
    if not isinstance(given, tuple | list) or not given or not all(isinstance(array, Tensor) for array in given):
        return False
    if not isinstance(layers[0], Cell):
        return False
    rows = checking.expected(layers[0]).rows
    return len(given) == len(rows) and all(
        array.dim() == len(row) + 2 and len(array) == len(layers) for array, row in zip(given, rows, strict=True)
    )
