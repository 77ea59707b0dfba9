"""The contract of a cell, and the registry that a cell joins.

A new cell is a class with `initial_state` and `step`, and one line of registration; everything else (sequences, resets
inside a window, scaled gradients, stacks, tests, the command line) works from those two.

Axes: T time, B batch (lane), D input, H hidden, G gates, V rows of a table.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from throughtime import engine as engines
from throughtime.cells import native
from throughtime.cells.masks import Masks
from throughtime.cells.state import State, leaves, reset_rows, scale_gradient
from throughtime.engine.forms import FORMS, Form
from throughtime.errors import SettingError

Unroll = Callable[..., tuple[Tensor, State]]
"""`(cell, x_TBD, state) -> (y_TBH, state)`: a whole sequence without resets, gradients flowing freely. T >= 1.

Where weights are masked, and only there, the `Masks` come as a fourth argument."""

ENGINES = ("auto", "native", "torch", "reference")


class Embedded(NamedTuple):
    """Inputs that are rows of a table. A kernel multiplies the table instead of the inputs, once a window."""

    rows_VD: Tensor
    ids_TB: Tensor


class Cell(nn.Module, ABC):
    """One layer of recurrence. The state goes in and comes back; it is never kept on the module.

    Attributes:
        equations: one step, as text.
        recurrent: name of the parameter [G * H, H] that h_(t-1) is multiplied with; None: no such product, no masks.
        input_size: D.
        hidden_size: H, the size of the output too.
        engine: which form runs a sequence: `native`, `torch` or `reference`.
        reason: why that one, in a few words.
        precision: of the products of the native form, one of `engine.PRECISIONS`.
    """

    equations: ClassVar[str]
    recurrent: ClassVar[str | None] = None
    engine: str = "reference"
    reason: str = "asked for"
    precision: str = "float32"

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        if min(input_size, hidden_size) < 1:
            raise SettingError(f"a cell needs sizes of at least 1, got input {input_size} and hidden {hidden_size}")
        self.input_size, self.hidden_size = input_size, hidden_size
        self._unroll: Unroll = unroll_steps
        self._form: Form | None = None

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state before the first input, on the parameters' device."""

    @abstractmethod
    def step(self, x_BD: Tensor, state: State) -> tuple[Tensor, State]:
        """One step, as the equations say it: the reference that every faster form is held against.

        A cell that names its `recurrent` matrix takes `masks: Masks | None = None` too, and hands it to `product`.
        """

    @final  # type: ignore[misc]  # nn.Module declares forward as an attribute
    def forward(
        self,
        x: Tensor | Embedded,
        state: State = None,
        fresh_TB: Tensor | None = None,
        flow_TB: Tensor | None = None,
        masks: Masks | None = None,
    ) -> tuple[Tensor, State]:
        """Run a sequence.

        The native form takes float32 in main memory; anything else runs on the form that would be used without it.

        Args:
            x: the inputs x_TBD, or the rows of a table.
            state: the state to begin with; None: the initial state.
            fresh_TB: true where a row's state is reset before the step reads its input.
            flow_TB: scales the gradient that passes from step t back to the state before it: 1 lets it pass, 0 cuts.
            masks: what every step leaves out of the product with the state.

        Returns:
            The outputs y_TBH and the state after the last step.

        Raises:
            ValueError: where an array has the wrong shape.
            SettingError: where there are masks and no product with the state.
        """
        inputs, ids_TB = x if isinstance(x, Embedded) else (x, None)
        if inputs.dim() != (3 if ids_TB is None else 2) or inputs.shape[-1] != self.input_size:
            axes, name = ("[T, B, ", "x_TBD") if ids_TB is None else ("[V, ", "rows_VD")
            raise ValueError(f"{name} should have shape {axes}{self.input_size}], got {list(inputs.shape)}")
        steps, lanes = (inputs if ids_TB is None else ids_TB).shape[:2]
        shaped = [("fresh_TB", fresh_TB, [steps, lanes]), ("flow_TB", flow_TB, [steps, lanes])]
        if masks is not None:
            shaped.append(("masks.weights", masks.weights, list(self.recurrent_weights().shape)))
            shaped.append(("masks.state_BH", masks.state_BH, [lanes, self.hidden_size]))
        for name, array, shape in shaped:
            if array is not None and list(array.shape) != shape:
                raise ValueError(f"{name} should have shape {shape}, got {list(array.shape)}")
        state = self.initial_state(lanes) if state is None else state
        for array in leaves(state):
            if list(array.shape) != [lanes, self.hidden_size]:
                raise ValueError(
                    f"a state should have shape {[lanes, self.hidden_size]}, got {list(array.shape)}; "
                    "see cells.state.select_rows"
                )
        if self._form and steps and lanes:
            parameters = native.parameters_of(self, self._form)
            if native.takes(parameters, inputs, *leaves(state)):
                return native.run(parameters, self.precision, inputs, ids_TB, state, fresh_TB, flow_TB, masks)
        x_TBD = inputs if ids_TB is None else embedding(ids_TB, inputs)
        # A fused form takes masked weights as it takes any; a state masked in the product alone is nothing it knows.
        unroll = unroll_steps if masks is not None and masks.state_BH is not None else self._unroll
        given = () if masks is None else (masks,)
        outputs, initial = [], self.initial_state(lanes)
        for start, stop in _segments(steps, fresh_TB, flow_TB):
            if flow_TB is not None:
                state = scale_gradient(state, flow_TB[start])
            if fresh_TB is not None:
                state = reset_rows(state, fresh_TB[start], initial)
            y_TBH, state = unroll(self, x_TBD[start:stop], state, *given)
            outputs.append(y_TBH)
        if len(outputs) == 1:
            return outputs[0], state
        return torch.cat(outputs) if outputs else x_TBD.new_zeros(0, lanes, self.hidden_size), state

    @final
    def recurrent_weights(self, masks: Masks | None = None) -> Tensor:
        """The matrix [G * H, H] on the state, without the weights that the masks leave out.

        Raises:
            SettingError: where the cell has none.
        """
        if self.recurrent is None:
            raise SettingError(
                f"a {type(self).__name__} has no product with its state to leave anything out of; "
                "weight_drop and recurrent_dropout must be 0 for it"
            )
        weights: Tensor = getattr(self, self.recurrent)
        return weights if masks is None or masks.weights is None else weights * masks.weights

    @final
    def product(self, hidden_BH: Tensor, masks: Masks | None) -> Tensor:
        """U h_(t-1), [B, G * H], without what the masks leave out."""
        if masks is not None and masks.state_BH is not None:
            hidden_BH = hidden_BH * masks.state_BH
        return linear(hidden_BH, self.recurrent_weights(masks))

    @final
    def zeros(self, batch_size: int) -> Tensor:
        """Zeros of shape [B, H] where the parameters are, for an initial state."""
        like = next(self.parameters())  # which may be dealt to several processes; a state never is
        return torch.zeros(batch_size, self.hidden_size, dtype=like.dtype, device=like.device)


class GatedCell(Cell):
    """A cell whose step lets through shares of what it reads and remembers, and can show them."""

    @abstractmethod
    def gates(self, x_BD: Tensor, state: State) -> dict[str, Tensor]:
        """What `step` finds for these arguments, by name and in the order of the parameters' rows; each is [B, H].

        Gates are shares from 0 to 1; `candidate` is what they let in. It takes `masks` too where `step` does.
        """

    @final
    def shares(self, x_BD: Tensor, state: State) -> dict[str, Tensor]:
        """The gates without the candidate."""
        return {name: values for name, values in self.gates(x_BD, state).items() if name != "candidate"}


def unroll_steps(cell: Cell, x_TBD: Tensor, state: State, *masks: Masks) -> tuple[Tensor, State]:
    """The reference: `step` after `step`."""
    outputs = []
    for x_BD in x_TBD.unbind():
        y_BH, state = cell.step(x_BD, state, *masks)
        outputs.append(y_BH)
    return torch.stack(outputs), state


def _segments(steps: int, fresh_TB: Tensor | None, flow_TB: Tensor | None) -> Iterator[tuple[int, int]]:
    """Stretches between the steps before which a state is touched: each can run in one piece."""
    touched = torch.zeros(steps, dtype=torch.bool)
    if fresh_TB is not None:
        touched |= fresh_TB.any(1).cpu()
    if flow_TB is not None:
        touched |= (flow_TB != 1).any(1).cpu()
    cuts = [0, *(step for step in touched.nonzero().flatten().tolist() if step), steps]
    return ((start, stop) for start, stop in zip(cuts, cuts[1:], strict=False) if start < stop)


@dataclass(frozen=True)
class Family:
    """A registered cell: its class, and the faster forms of its equations, where there are any."""

    cell: type[Cell]
    fused: Unroll | None = None
    """PyTorch's."""
    native: Form | None = None
    """A kernel's."""


_FAMILIES: dict[str, Family] = {}


def register(name: str, fused: Unroll | None = None, native: bool = False) -> Callable[[type[Cell]], type[Cell]]:
    """Class decorator: make a cell known by a name to recipes, the command line and the tests.

    Args:
        name: what it is called.
        fused: PyTorch's form of its equations, if any.
        native: whether there is a kernel; `engine.forms` then says which, under this name.
    """

    def enter(cell: type[Cell]) -> type[Cell]:
        if name in _FAMILIES:
            raise ValueError(f"there is a cell {name!r} already: {_FAMILIES[name].cell.__qualname__}")
        _FAMILIES[name] = Family(cell, fused, FORMS[name] if native else None)
        return cell

    return enter


def names() -> list[str]:
    """The registered cells."""
    return sorted(_FAMILIES)


def family(name: str) -> Family:
    """The registration under a name.

    Raises:
        SettingError: where there is none.
    """
    if name not in _FAMILIES:
        raise SettingError(f"there is no cell {name!r}; there are {', '.join(names())}")
    return _FAMILIES[name]


def create(
    name: str,
    input_size: int,
    hidden_size: int,
    *,
    engine: str = "auto",
    precision: str = "float32",
    **options: Any,
) -> Cell:
    """A cell by its registered name.

    Args:
        name: one of `names()`.
        input_size: D.
        hidden_size: H.
        engine: `native` the kernel, `torch` PyTorch's fused form, `reference` the cell's own step, `auto` the first of
            these that there is.
        precision: `float32`, or `bf16` for the products of the native form.
        options: what the cell's class takes, such as `forget_bias`; `generator` seeds the initial parameters.

    Raises:
        SettingError: where the name, the engine or an option is unknown.
    """
    registered = family(name)
    known = [option for option in inspect.signature(registered.cell).parameters if not option.endswith("_size")]
    for option in options:
        if option not in known:
            raise SettingError(f"the cell {name} has no option {option!r}; it has {', '.join(known)}")
    if engine not in ENGINES:
        raise SettingError(f"engine must be {', '.join(ENGINES[:-1])} or {ENGINES[-1]}, got {engine!r}")
    if precision not in engines.PRECISIONS:
        raise SettingError(f"precision must be {' or '.join(engines.PRECISIONS)}, got {precision!r}")
    there = registered.native is not None and engines.level() is not None
    if engine == "native" and not there:
        why = "the package was installed without kernels" if registered.native else "it has no kernel"
        raise SettingError(f"the cell {name} cannot run native: {why}; use engine auto")
    if engine == "torch" and registered.fused is None:
        raise SettingError(f"PyTorch has no fused form of the cell {name}; use engine auto or reference")
    cell = registered.cell(input_size, hidden_size, **options)
    if registered.fused is not None and engine != "reference":
        cell._unroll, cell.engine = registered.fused, "torch"
    if there and engine in ("auto", "native"):
        cell._form, cell.engine, cell.precision = registered.native, "native", precision
        cell.reason = f"kernels of level {engines.level()}, {precision}"
        return cell
    if precision != "float32":
        raise SettingError(f"precision {precision} needs the native engine, and the cell {name} runs on {cell.engine}")
    if engine == "auto":
        cell.reason = "the cell has no kernel" if registered.native is None else "installed without kernels"
    return cell


def input_matrix(rows: int, columns: int, generator: torch.Generator | None) -> nn.Parameter:
    """Weights on an input: uniform with variance 1 / columns, so that the sum keeps the input's scale."""
    bound = math.sqrt(3 / columns)
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound, generator=generator))


def recurrent_matrix(gates: int, hidden_size: int, generator: torch.Generator | None) -> nn.Parameter:
    """Weights on the state, [gates * H, H]: an orthogonal matrix a gate, so that a step keeps the state's norm."""
    blocks = [nn.init.orthogonal_(torch.empty(hidden_size, hidden_size), generator=generator) for _ in range(gates)]
    return nn.Parameter(torch.cat(blocks))
