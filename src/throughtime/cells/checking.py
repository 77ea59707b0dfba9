"""What a call of a cell takes: kinds, shapes and devices, checked once a call, with one line where they do not fit.

The checks cost a call of a small cell a few microseconds: an array is compared with one parameter, and what a cell
expects is found at its first call.

Axes: T time, B batch (lane), D input, H hidden, V rows of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from throughtime.cells import transforms
from throughtime.cells.lengths import Lengths
from throughtime.cells.masks import Masks
from throughtime.cells.state import WHOLE_KINDS, State, leaves, map_state
from throughtime.errors import ThroughtimeError

if TYPE_CHECKING:
    from throughtime.cells.base import Cell

TIME_FIRST = "time comes first: for [B, T, D] use x.transpose(0, 1)"


class Expected(NamedTuple):
    """What a cell expects at every call."""

    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    """Names and shapes; none for a cell without a `Form`, which does not name them."""
    state: type
    """Class of the state."""
    rows: tuple[tuple[int, ...], ...]
    """Shape of a lane's row in each array of the state."""


class Stepped(NamedTuple):
    """Arguments of `step` that were checked: others like them need no more, for a step takes microseconds."""

    state: type | None = None
    x: tuple[int, ...] = ()
    rows: tuple[tuple[int, ...] | None, ...] = ()
    kind: torch.dtype | None = None


def check_call(
    cell: Cell, inputs: Any, ids_TB: Any, state: Any, reset_TB: Any, gradient_scale_TB: Any, masks: Any
) -> tuple[Tensor, Tensor | None, State, int, int]:
    """Check the arguments of `Cell.forward`.

    Args:
        cell: the cell that is called.
        inputs: x_TBD, or the rows of a table.
        ids_TB: the rows that are read; None: the inputs are x_TBD.
        state: the state; None: the initial state.
        reset_TB: as in `Cell.forward`.
        gradient_scale_TB: as in `Cell.forward`.
        masks: as in `Cell.forward`.

    Returns:
        Inputs, ids and state as they are used; steps; lanes.

    Raises:
        ThroughtimeError: where something has the wrong kind, shape or device.
    """
    like = cell.any_parameter()
    wanted = expected(cell)
    check_parameters(cell, wanted, like)
    if ids_TB is None:
        inputs = check_inputs(inputs, cell.input_size, like)
        steps, lanes, _ = inputs.shape
    else:
        inputs, ids_TB = check_table(inputs, cell.input_size, like), check_ids(ids_TB, "ids_TB", 2, like)
        steps, lanes = ids_TB.shape
    state = cell.initial_state(lanes) if state is None else fitting_state(cell, wanted, state, steps, lanes, like)
    if reset_TB is not None:
        _check_mark("reset_TB", reset_TB, steps, lanes, like)
        if reset_TB.dtype != torch.bool:
            raise ThroughtimeError(f"reset_TB should be bool, got {_kind(reset_TB)}; use reset_TB.bool()")
    if gradient_scale_TB is not None:
        _check_mark("gradient_scale_TB", gradient_scale_TB, steps, lanes, like)
        if gradient_scale_TB.requires_grad or gradient_scale_TB.is_complex():
            raise ThroughtimeError(
                "gradient_scale_TB should be real numbers without a gradient; use gradient_scale_TB.detach()"
            )
    if masks is not None:
        check_masks(cell, masks, lanes, like)
    return inputs, ids_TB, state, steps, lanes


def lengths_of(cell: Cell, inputs: tuple[Any, Any], lengths_B: Any) -> Lengths | None:
    """The checked lengths of a batch that several cells read, after a check of its inputs (and ids, or None)."""
    if transforms.is_tracing():
        with transforms.quiet():
            return check_lengths(cell, lengths_B, *sizes_of(cell, *inputs))
    return check_lengths(cell, lengths_B, *sizes_of(cell, *inputs))


def check_lengths(cell: Cell, lengths_B: Any, steps: int, lanes: int) -> Lengths | None:
    """Check the lengths of a batch's lanes. None where all lanes have every step.

    Raises:
        ThroughtimeError: where they are of another kind, shape or device, or not from 0 to the number of steps.
    """
    if isinstance(lengths_B, Lengths):  # checked by the stack that the cell stands in
        return lengths_B
    if not isinstance(lengths_B, Tensor):
        remedy = "; use torch.tensor(lengths)" if type(lengths_B) in (tuple, list) else ""
        raise ThroughtimeError(
            f"lengths_B should be an int64 tensor of shape [{lanes}], got {_kind(lengths_B)}{remedy}"
        )
    if lengths_B.dtype != torch.int64:
        raise ThroughtimeError(f"lengths_B should be int64, got {_kind(lengths_B)}; use lengths_B.long()")
    if list(lengths_B.shape) != [lanes]:
        raise ThroughtimeError(
            f"lengths_B should have shape [{lanes}], a length for each lane, got {list(lengths_B.shape)}"
        )
    _check_device("lengths_B", lengths_B, cell.any_parameter())
    lengths = Lengths(lengths_B, steps)
    if not lanes:
        return None
    if not lengths.readable():
        return lengths
    low, high = (bound.item() for bound in lengths_B.aminmax())
    if low < 0 or high > steps:
        wrong = low if low < 0 else high
        lane = (lengths_B == wrong).nonzero()[0].item()
        raise ThroughtimeError(f"lengths_B should be from 0 to {steps}, the steps of x, got {wrong} for lane {lane}")
    return None if low == steps else lengths


def sizes_of(cell: Cell, inputs: Any, ids_TB: Any) -> tuple[int, int]:
    """The numbers of steps and of lanes that a call would have, after a check of its inputs."""
    like = cell.any_parameter()
    checked = check_inputs(inputs, cell.input_size, like) if ids_TB is None else check_ids(ids_TB, "ids_TB", 2, like)
    return checked.shape[0], checked.shape[1]


def expected(cell: Cell) -> Expected:
    """What a cell expects at every call, found once."""
    if cell._expected is not None:
        return cell._expected
    like = cell.initial_state(1)
    form = type(cell).form
    shapes = form.shapes(cell.input_size, cell.hidden_size) if form else {}
    rows = tuple([tuple([int(size) for size in leaf.shape[1:]]) for leaf in leaves(like)])
    found = Expected(tuple(shapes.items()), type(like), rows)
    if transforms.active() is None:
        cell._expected = found
    return found


def check_inputs(x: Any, size: int, like: Tensor | None) -> Tensor:
    """The inputs of a sequence, x_TBD: floating point like the parameters."""
    if not isinstance(x, Tensor) or x.layout != torch.strided or x.is_nested:
        remedy = "; use torch.nn.utils.rnn.pad_packed_sequence, time first" if isinstance(x, PackedSequence) else ""
        raise ThroughtimeError(f"x_TBD should be a dense tensor of shape [T, B, {size}], got {_kind(x)}{remedy}")
    if x.dim() != 3 or x.shape[2] != size:
        remedy = "time comes first, lanes second; one lane is x[:, None]"
        raise ThroughtimeError(f"x_TBD should have shape [T, B, {size}], got {list(x.shape)}; {remedy}")
    return _like_parameters("x_TBD", x, like)


def check_table(rows: Any, size: int, like: Tensor | None) -> Tensor:
    """The rows of a table, rows_VD: floating point like the parameters."""
    if not isinstance(rows, Tensor) or rows.layout != torch.strided or rows.is_nested:
        raise ThroughtimeError(f"rows_VD should be a dense tensor of shape [V, {size}], got {_kind(rows)}")
    if rows.dim() != 2 or rows.shape[1] != size:
        raise ThroughtimeError(f"rows_VD should have shape [V, {size}], got {list(rows.shape)}")
    return _like_parameters("rows_VD", rows, like)


def check_ids(array: Any, name: str, dimensions: int | None, like: Tensor | None) -> Tensor:
    """Ids of tokens or of rows of a table, as PyTorch's embedding takes them."""
    if not isinstance(array, Tensor) or array.dtype not in WHOLE_KINDS:
        raise ThroughtimeError(f"{name} should be a tensor of whole numbers such as int64, got {_kind(array)}")
    if dimensions is not None and array.dim() != dimensions:
        axes = {1: "[B]", 2: "[T, B]"}[dimensions]
        raise ThroughtimeError(f"{name} should have shape {axes}, got {list(array.shape)}")
    _check_device(name, array, like)
    return array if array.dtype in (torch.int64, torch.int32) else array.long()


def check_parameters(cell: Cell, wanted: Expected, like: Tensor | None) -> None:
    """Every parameter has the shape that the cell was made with, and all are of one kind and on one device."""
    if like is None or not wanted.parameters:
        return
    own, dtype, device = cell._parameters, like.dtype, like.device
    for name, shape in wanted.parameters:
        array = own.get(name)
        if array is None:  # by a parametrization or a hook, or missing
            array = getattr(cell, name, None)
            if not isinstance(array, Tensor):
                raise ThroughtimeError(f"{name} should be a tensor of shape {list(shape)}, got {_kind(array)}")
        if array.shape != shape:
            raise ThroughtimeError(f"{name} should have shape {list(shape)}, got {list(array.shape)}")
        if array.dtype is not dtype or array.device != device:
            first = next((known for known, parameter in own.items() if parameter is like), "another")
            raise ThroughtimeError(
                f"parameters should be of one kind on one device: {first} is {_kind(like)} on {device}, "
                f"{name} {_kind(array)} on {array.device}"
            )


def fitting_state(
    cell: Cell, wanted: Expected, given: Any, steps: int | None, lanes: int, like: Tensor | None
) -> State:
    """A state as the cell's own class, from what plainly is one: the arrays in order, PyTorch's [1, B, H] too."""
    if type(given) is wanted.state and isinstance(given, tuple) and like is not None:
        dtype, device = like.dtype, like.device
        for array, row in zip(given, wanted.rows, strict=False):
            fits = isinstance(array, Tensor) and array.shape == (lanes, *row) and array.dtype is dtype
            if not fits or array.device != device:
                break
        else:
            return given
    return _fit(cell, wanted, given, steps, lanes, like)


def check_step(cell: Cell, x_BD: Any, given: Any) -> tuple[Tensor, State]:
    """Check the arguments of `Cell.step`, and give them as they are used.

    Raises:
        ThroughtimeError: where something has the wrong kind, shape or device; PyTorch would broadcast some of it.
    """
    if transforms.is_tracing():
        with transforms.quiet():
            return _check_step(cell, x_BD, given)
    return _check_step(cell, x_BD, given)


def _check_step(cell: Cell, x_BD: Any, given: Any) -> tuple[Tensor, State]:
    like = cell.any_parameter()
    wanted = expected(cell)
    check_parameters(cell, wanted, like)
    if not isinstance(x_BD, Tensor):
        raise ThroughtimeError(f"x_BD should be a tensor of shape [B, {cell.input_size}], got {_kind(x_BD)}")
    if x_BD.dim() != 2 or x_BD.shape[1] != cell.input_size:
        raise ThroughtimeError(f"x_BD should have shape [B, {cell.input_size}], got {list(x_BD.shape)}")
    x_BD = _like_parameters("x_BD", x_BD, like)
    state = fitting_state(cell, wanted, given, None, x_BD.shape[0], like)
    if isinstance(state, tuple) and transforms.active() is None:
        shapes = tuple([tuple(array.shape) if isinstance(array, Tensor) else None for array in state])
        cell._stepped = Stepped(wanted.state, tuple(x_BD.shape), shapes, x_BD.dtype)
    return x_BD, state


def check_masks(cell: Cell, masks: Any, lanes: int, like: Tensor | None) -> None:
    """Masks are of the parameters' kind: an entry is 0 or 1 / (1 - p)."""
    if not isinstance(masks, Masks):
        raise ThroughtimeError(f"masks should be a cells.Masks, got {_kind(masks)}")
    for name, array, shape in (
        ("masks.weights", masks.weights, list(cell.recurrent_weights().shape)),
        ("masks.state_BH", masks.state_BH, [lanes, cell.hidden_size]),
    ):
        if array is None:
            continue
        if not isinstance(array, Tensor):
            raise ThroughtimeError(f"{name} should be a tensor of shape {shape}, got {_kind(array)}")
        if list(array.shape) != shape:
            raise ThroughtimeError(f"{name} should have shape {shape}, got {list(array.shape)}")
        _check_device(name, array, like)
        if like is not None and array.dtype != like.dtype:
            raise ThroughtimeError(
                f"{name} should be {_kind(like)} like the parameters, an entry 0 or 1 / (1 - p), got {_kind(array)}"
            )


def _fit(cell: Cell, wanted: Expected, given: Any, steps: int | None, lanes: int, like: Tensor | None) -> State:
    if type(given) in (tuple, list) and len(given) == 1 and type(given[0]) is wanted.state:
        given = given[0]
    template = cell.initial_state(1)
    exact = type(given) is wanted.state
    if exact:
        arrays = _entries(given)
    elif isinstance(given, Tensor):
        arrays = [given]
    else:
        arrays = list(given) if type(given) in (tuple, list) else []
    if len(arrays) != len(wanted.rows) or not all(isinstance(array, Tensor) for array in arrays):
        shapes = ", ".join(f"{name} {[lanes, *row]}" for name, row in zip(_names(template), wanted.rows, strict=True))
        held = ", ".join(map(_kind, arrays))
        raise ThroughtimeError(
            f"the state of {type(cell).__name__} should be {wanted.state.__name__} of {shapes}, got "
            f"{f'a tensor of shape {list(given.shape)}' if isinstance(given, Tensor) else _kind(given)}"
            f"{f' of {held}' if exact else ''}"
        )
    for index, (array, row) in enumerate(zip(arrays, wanted.rows, strict=True)):
        if not exact and array.dim() == len(row) + 2 and len(array) == 1:
            array = array[0]  # PyTorch's own layers have an axis of layers
        if list(array.shape) != [lanes, *row]:
            mixed = steps is not None and steps != lanes and list(array.shape) == [steps, *row]
            raise ThroughtimeError(
                f"a state should have shape {[lanes, *row]}, got {list(array.shape)}; "
                f"{TIME_FIRST if mixed else 'see cells.state.select_rows'}"
            )
        arrays[index] = _like_parameters(f"{_names(template)[index]} of the state", array, like)
    found = iter(arrays)
    return map_state(lambda _: next(found), template)


def _entries(state: Any) -> list[Any]:
    """The arrays of a state, or what stands in their place."""
    if not isinstance(state, tuple):
        return [state]
    return [entry for part in state for entry in _entries(part)]


def _names(template: State) -> Sequence[str]:
    names = getattr(template, "_fields", ())
    return names if len(names) == len(leaves(template)) else ["an array"] * len(leaves(template))


def _check_mark(name: str, array: Any, steps: int, lanes: int, like: Tensor | None) -> None:
    if not isinstance(array, Tensor):
        raise ThroughtimeError(f"{name} should be a tensor of shape {[steps, lanes]}, got {_kind(array)}")
    if list(array.shape) != [steps, lanes]:
        remedy = f"; {TIME_FIRST}" if list(array.shape) == [lanes, steps] else ""
        raise ThroughtimeError(f"{name} should have shape {[steps, lanes]}, got {list(array.shape)}{remedy}")
    _check_device(name, array, like)


def _check_device(name: str, array: Tensor, like: Tensor | None) -> None:
    if like is not None and array.device != like.device:
        raise ThroughtimeError(
            f"{name} is on {array.device} and the parameters are on {like.device}; use .to({str(like.device)!r})"
        )


def _like_parameters(name: str, array: Tensor, like: Tensor | None) -> Tensor:
    """The array, which should be of the parameters' kind and on their device. Under autocast it is made so."""
    if like is None or (array.dtype is like.dtype and array.device == like.device):
        return array
    _check_device(name, array, like)
    if array.is_floating_point() and torch.is_autocast_enabled(like.device.type):
        return array.to(like.dtype)
    raise ThroughtimeError(
        f"{name} should be {_kind(like)} like the parameters, got {_kind(array)}; use .to(torch.{_kind(like)})"
    )


def _kind(value: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_nested:
            return "a sparse or nested tensor"
        return str(value.dtype).removeprefix("torch.")
    if type(value) in (tuple, list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"
