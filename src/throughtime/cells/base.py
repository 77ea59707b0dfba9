"""The contract of a cell.

A new cell is a class with `initial_state` and `step`, and one line of registration (`registry`); everything else
(sequences, resets inside a window, scaled gradients, stacks, tests, the command line) works from those two.

Axes: T time, B batch (lane), D input, H hidden, G gates, V rows of a table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from throughtime import engine as engines
from throughtime.cells import checking, native, transforms
from throughtime.cells.lengths import Lengths, run_lanes
from throughtime.cells.masks import Masks
from throughtime.cells.registry import Family, create, family, names, register
from throughtime.cells.sequence import Unroll, unroll_steps
from throughtime.cells.state import State
from throughtime.cells.weights import input_matrix, recurrent_matrix, whole_size
from throughtime.engine.forms import Form
from throughtime.errors import SettingError

__all__ = [
    "Cell",
    "Embedded",
    "Family",
    "GatedCell",
    "Unroll",
    "create",
    "family",
    "input_matrix",
    "names",
    "recurrent_matrix",
    "register",
    "unroll_steps",
]


class Embedded(NamedTuple):
    """Inputs that are rows of a table. A kernel multiplies the table instead of the inputs, once a window."""

    rows_VD: Tensor
    ids_TB: Tensor


class Cell(nn.Module, ABC):
    """One layer of recurrence. Time comes first: inputs are [T, B, D]. The state is an argument and a result.

    `step` may be called on its own; its arguments are checked, and its output and state are different arrays.

    Attributes:
        equations: one step, as text.
        recurrent: name of the parameter [G * H, H] that h_(t-1) is multiplied with; None: no such product, no masks.
        form: the parameters as a kernel names them; None: no kernel.
        input_size: D.
        hidden_size: H, the size of the output too.
        precision: of the products of the native form, one of `engine.PRECISIONS`.
    """

    equations: ClassVar[str]
    recurrent: ClassVar[str | None] = None
    form: ClassVar[Form | None] = None
    __jit_unused_properties__: ClassVar[list[str]] = ["engine", "reason"]
    precision: str = "float32"
    _asked: str = "reference"
    _expected: checking.Expected | None = None
    _stepped: checking.Stepped = checking.Stepped()

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.input_size, self.hidden_size = whole_size("input_size", input_size), whole_size("hidden_size", hidden_size)
        if min(self.input_size, self.hidden_size) < 1:
            raise SettingError(f"a cell needs sizes of at least 1, got input {input_size} and hidden {hidden_size}")
        self._unroll: Unroll = unroll_steps
        self._form: Form | None = None

    def __init_subclass__(cls, **arguments: Any):
        super().__init_subclass__(**arguments)
        if "step" in vars(cls):
            cls._plain_step, cls.step = cls.step, _checked(cls.step)  # type: ignore[method-assign]

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As PyTorch's; `step` checks its arguments anew."""
        self._stepped = checking.Stepped()
        super().register_parameter(name, param)

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state before the first input, on the parameters' device."""

    @abstractmethod
    def step(self, x_BD: Tensor, state: State) -> tuple[Tensor, State]:
        """One step, as the equations say it: the reference that every faster form is held against.

        A cell that names its `recurrent` matrix takes `masks: Masks | None = None` too, and hands it to `product`.
        """

    _plain_step: Callable[..., tuple[Tensor, State]]
    """`step` as its class defines it, without the checks."""

    @final  # type: ignore[misc]  # nn.Module declares forward as an attribute
    def forward(
        self,
        x: Tensor | Embedded,
        state: State = None,
        reset_TB: Tensor | None = None,
        gradient_scale_TB: Tensor | None = None,
        lengths_B: Tensor | Lengths | None = None,
        masks: Masks | None = None,
    ) -> tuple[Tensor, State]:
        """Run a sequence. Time comes first, then the lanes of the batch: x_TBD is [T, B, D].

        The native form takes float32 in main memory. Anything else, and any call under a transformation of PyTorch
        (`cells.transforms`), runs on the form that would be used without it.

        Args:
            x: the inputs x_TBD [T, B, D], time first, of the parameters' kind; or the rows of a table.
            state: the state to begin with: the cell's own class, or its arrays in order (PyTorch's [1, B, H] as
                well); None: the initial state.
            reset_TB: bool; true where a row's state is reset before the step reads its input.
            gradient_scale_TB: scale of the gradient that passes from step t back to the state before it: 1 passes it,
                0 cuts it.
            lengths_B: int64, number of steps of each lane, from 0 to T; None: all T. The outputs after a lane's end are
                0, the state returned is the one at its end, and what the other arguments hold after it is ignored.
            masks: what every step leaves out of the product with the state.

        Returns:
            The outputs y_TBH and the state after each lane's last step.

        Raises:
            ThroughtimeError: where an argument or a parameter has the wrong kind, shape or device.
            SettingError: where there are masks and no product with the state.
        """
        transform = transforms.active()
        if transform is transforms.TRACING:
            with transforms.quiet():
                return self._run(x, state, reset_TB, gradient_scale_TB, lengths_B, masks, transform)
        return self._run(x, state, reset_TB, gradient_scale_TB, lengths_B, masks, transform)

    def _run(
        self,
        x: Tensor | Embedded,
        state: State,
        reset_TB: Tensor | None,
        gradient_scale_TB: Tensor | None,
        lengths_B: Tensor | Lengths | None,
        masks: Masks | None,
        transform: transforms.Transform | None,
    ) -> tuple[Tensor, State]:
        inputs, ids_TB = x if isinstance(x, Embedded) else (x, None)
        inputs, ids_TB, state, steps, lanes = checking.check_call(
            self, inputs, ids_TB, state, reset_TB, gradient_scale_TB, masks
        )
        lengths = None if lengths_B is None else checking.check_lengths(self, lengths_B, steps, lanes)
        if self._form and transform is None and engines.level() and steps and lanes:
            own = native.parameters_of(self, self._form)
            if native.takes(own, masks, inputs, state, lengths):
                return native.run(
                    own, self.precision, inputs, ids_TB, state, reset_TB, gradient_scale_TB, lengths, masks
                )
        x_TBD = inputs if ids_TB is None else embedding(ids_TB if lengths is None else lengths.clear(ids_TB), inputs)
        unroll = self._unroll
        if (transform and transform.elementary) or (masks is not None and masks.state_BH is not None):
            # A fused form takes masked weights as it takes any, but no state that is masked in the product alone.
            unroll = unroll_steps
        return run_lanes(self, unroll, x_TBD, state, reset_TB, gradient_scale_TB, lengths, masks)

    @property
    def engine(self) -> str:
        """The form that would run a sequence now: `native`, `torch` or `reference`."""
        return self._running()[0]

    @property
    def reason(self) -> str:
        """Why that form runs, in a few words."""
        return self._running()[1]

    def _running(self) -> tuple[str, str]:
        transform = transforms.active()
        fused = self._unroll is not unroll_steps and not (transform and transform.elementary)
        otherwise = "torch" if fused else "reference"
        if self._form is None:
            why = "the cell has no kernel" if self._asked == "auto" else "asked for"
            return otherwise, f"under {transform.name}" if transform and transform.elementary else why
        obstacle = engines.obstacle() or native.obstacle(self.any_parameter())
        if transform is not None:
            no_kernel = f"under {transform.name} no kernel runs"
            obstacle = f"{obstacle}; {no_kernel}" if obstacle else no_kernel
        if obstacle is None:
            return "native", f"kernels of level {engines.level()}, {self.precision}"
        asked = [*["native"] * (self._asked == "native"), *[self.precision] * (self.precision != "float32")]
        verb = "were" if len(asked) > 1 else "was"
        return otherwise, f"{obstacle}; {' and '.join(asked)} {verb} asked for" if asked else obstacle

    def extra_repr(self) -> str:
        return f"input_size={self.input_size}, hidden_size={self.hidden_size}, engine={self.engine}"

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
        if masks is None and self.recurrent is not None:
            return linear(hidden_BH, getattr(self, self.recurrent))
        if masks is not None and masks.state_BH is not None:
            hidden_BH = hidden_BH * masks.state_BH
        return linear(hidden_BH, self.recurrent_weights(masks))

    @final
    def zeros(self, batch_size: int, row: Sequence[int] | None = None) -> Tensor:
        """Zeros where the parameters are, for an initial state: [B, H], or [B, *row]."""
        shape = (batch_size, *((self.hidden_size,) if row is None else row))
        like = self.any_parameter()  # which may be dealt to several processes; a state never is
        return torch.zeros(shape) if like is None else torch.zeros(shape, dtype=like.dtype, device=like.device)

    @final
    def any_parameter(self) -> Tensor | None:
        """One of the cell's arrays, for their kind and device; None where it has none."""
        for array in self._parameters.values():
            if array is not None:
                return array
        # Parameters may be made by a parametrization, and are plain attributes in the replicas of nn.DataParallel.
        found = [*self.parameters(), *self.buffers(), *(own for own in vars(self).values() if isinstance(own, Tensor))]
        return found[0] if found else None


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


def _checked(step: Callable[..., tuple[Tensor, State]]) -> Callable[..., tuple[Tensor, State]]:
    """A cell's `step` with its arguments checked, and an output that is not an array of the state."""

    @wraps(step)
    def checked(self: Cell, x_BD: Tensor, state: State, masks: Masks | None = None) -> tuple[Tensor, State]:
        kind_of_state, x_shape, shapes, kind = self._stepped
        fits = type(state) is kind_of_state and type(x_BD) is Tensor and not transforms.is_tracing()
        if fits and x_BD.shape == x_shape and x_BD.dtype is kind:
            for array, shape in zip(state, shapes, strict=False):
                fits &= type(array) is Tensor and array.shape == shape and array.dtype is kind
        else:
            fits = False
        if not fits:
            x_BD, state = checking.check_step(self, x_BD, state)
        try:
            if masks is None:
                y_BH, after = step(self, x_BD, state)
            else:
                checking.check_masks(self, masks, x_BD.shape[0], self.any_parameter())
                y_BH, after = step(self, x_BD, state, masks)
        except RuntimeError:
            checking.check_step(
                self, x_BD, state
            )  # names what is on another device, say, which the quick check let pass
            raise
        for array in after:
            if array is y_BH:
                return y_BH.clone(), after
        return y_BH, after

    return checked
