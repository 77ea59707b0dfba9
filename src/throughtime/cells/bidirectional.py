"""Both directions of time: one cell reads a lane from its start, another one from its end.

Axes: T time, B batch (lane), D input, H hidden.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn

from throughtime.cells import checking, transforms
from throughtime.cells.base import Cell, Embedded
from throughtime.cells.lengths import Lengths
from throughtime.cells.masks import Masks
from throughtime.cells.state import State
from throughtime.errors import ThroughtimeError


class BidirectionalState(NamedTuple):
    """The states that the two directions begin with: before a lane's first step, and after its last one."""

    forward: State
    reverse: State


class FinalStates(NamedTuple):
    """The states that the two directions end with: after a lane's last step, and after its first one."""

    forward: State
    reverse: State


@final
class Bidirectional(nn.Module):
    """A layer of two cells (Schuster & Paliwal 1997), which stands in a `Stack` like any cell.

    The outputs are those of both, [T, B, H_forward + H_reverse], at the same step of the sequence. With `lengths_B` the
    reverse direction begins at each lane's own end. Windows of a longer sequence cannot be joined: what a reverse
    direction needs first lies in the window that comes next. So there are no resets, no scaled gradients, and no state
    is carried; the final states are for reading.

    Args:
        forward_cell: reads from the first step to the last.
        reverse_cell: reads from the last step to the first.

    Raises:
        ThroughtimeError: where the cells have inputs of different sizes.

    Example:
        >>> layers = [Bidirectional(create("gru", size, 8), create("gru", size, 8)) for size in (5, 16)]
        >>> y_TBH, (_, final) = Stack(layers)(torch.randn(7, 3, 5), lengths_B=torch.tensor([7, 2, 4]))
        >>> y_TBH.shape, final.reverse.hidden_BH.shape
        (torch.Size([7, 3, 16]), torch.Size([3, 8]))
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["engine", "reason"]

    def __init__(self, forward_cell: Cell, reverse_cell: Cell):
        super().__init__()
        for given in (forward_cell, reverse_cell):
            _check_cell(given)
        if forward_cell.input_size != reverse_cell.input_size:
            raise ThroughtimeError(
                "both cells of a Bidirectional layer read the same inputs: their input_size must be equal, got "
                f"{forward_cell.input_size} and {reverse_cell.input_size}"
            )
        self.forward_cell, self.reverse_cell = forward_cell, reverse_cell
        self.input_size = forward_cell.input_size
        self.hidden_size = forward_cell.hidden_size + reverse_cell.hidden_size

    @property
    def engine(self) -> str:
        """The form that would run a sequence now; both forms, where the directions differ."""
        return ", ".join(dict.fromkeys([self.forward_cell.engine, self.reverse_cell.engine]))

    @property
    def reason(self) -> str:
        """Why that form runs, in a few words."""
        return "; ".join(dict.fromkeys([self.forward_cell.reason, self.reverse_cell.reason]))

    def extra_repr(self) -> str:
        return f"input_size={self.input_size}, hidden_size={self.hidden_size}, engine={self.engine}"

    def initial_state(self, batch_size: int) -> BidirectionalState:
        return BidirectionalState(
            self.forward_cell.initial_state(batch_size), self.reverse_cell.initial_state(batch_size)
        )

    def step(self, x_BD: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: ARG002
        """Refused: there is no order in which one step after another could be read.

        Raises:
            ThroughtimeError: always.
        """
        raise ThroughtimeError("a Bidirectional layer has no step: it needs the whole sequence; call the layer itself")

    def forward(
        self,
        x: Tensor | Embedded,
        state: State = None,
        reset_TB: Tensor | None = None,
        gradient_scale_TB: Tensor | None = None,
        lengths_B: Tensor | Lengths | None = None,
        masks: tuple[Masks | None, Masks | None] | None = None,
    ) -> tuple[Tensor, FinalStates]:
        """Run whole sequences.

        Args:
            x: as in `Cell.forward`.
            state: what each direction begins with, a `BidirectionalState` or a pair; None: the initial states.
            reset_TB: must be None.
            gradient_scale_TB: must be None.
            lengths_B: as in `Cell.forward`.
            masks: those of each direction.

        Returns:
            The outputs, those of the forward direction first, and the final states.

        Raises:
            ThroughtimeError: where there are resets, scaled gradients or a state of the window before; or as in
                `Cell.forward`.
        """
        for name, given in (("reset_TB", reset_TB), ("gradient_scale_TB", gradient_scale_TB)):
            if given is not None:
                raise ThroughtimeError(
                    f"a Bidirectional layer takes no {name}, for its reverse direction reads against time; give each "
                    "sequence a lane of its own, and lengths_B"
                )
        before = _both(state)
        lengths = None
        if lengths_B is not None:
            inputs = x if isinstance(x, Embedded) else (x, None)
            lengths = checking.lengths_of(self.forward_cell, inputs, lengths_B)
        onward, reverse = (None, None) if masks is None else masks
        y_TBH, after = self.forward_cell(x, before[0], lengths_B=lengths, masks=onward)
        turned_TBH, before_first = self.reverse_cell(_turned(x, lengths), before[1], lengths_B=lengths, masks=reverse)
        return torch.cat([y_TBH, _turned(turned_TBH, lengths)], dim=2), FinalStates(after, before_first)


def _check_cell(given: Any) -> None:
    if not isinstance(given, Cell):
        kind = type(given).__name__
        raise ThroughtimeError(f"a Bidirectional layer needs two cells of throughtime.cells, got a {kind}")


def _both(state: Any) -> tuple[State, State]:
    if isinstance(state, FinalStates):
        raise ThroughtimeError(
            "the final states of a Bidirectional layer cannot begin its next window: its reverse direction begins "
            "after a sequence's last step; pass state=None and the whole sequence, or a BidirectionalState of your own"
        )
    if state is None:
        return None, None
    if not isinstance(state, tuple | list) or len(state) != 2:
        raise ThroughtimeError(
            "the state of a Bidirectional layer should be a BidirectionalState, one state for each direction, got a "
            f"{type(state).__name__}"
        )
    return state[0], state[1]


def _turned(x: Any, lengths: Lengths | None) -> Any:
    """Each lane from its end to its start. The padding stays where it is. Turned twice it is what it was."""
    if isinstance(x, Embedded):
        return x._replace(ids_TB=_turned(x.ids_TB, lengths))
    if lengths is None:
        return x.flip(0)
    if transforms.active() or not x.requires_grad:
        return _take(x, lengths.turned())
    return _Turned.apply(x, lengths.turned())


def _take(x: Tensor, places: Tensor) -> Tensor:
    return x.flatten(0, 1).index_select(0, places).view(x.shape)


class _Turned(torch.autograd.Function):
    """PyTorch would add the gradients up, row by row, for it does not know that each comes from one place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return _take(x, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return _Turned.apply(gradients[0], places), None
