"""The binding of cells to the native kernels: a whole sequence in one call, with its gradients.

Axes: T time, B batch (lane), D input, H hidden, G gates, V rows of a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from throughtime import engine
from throughtime.cells.lengths import Lengths, Rows
from throughtime.cells.masks import Masks
from throughtime.cells.state import State

if TYPE_CHECKING:
    from throughtime.engine._native import Recurrence
    from throughtime.engine.forms import Form


LARGE = 1 << 20
"""Arrays from so many bytes on lie in the engine's memory, for PyTorch would fetch theirs from the system each time."""

KINDS = {torch.float32: "float32", torch.int64: "int64", torch.uint8: "uint8"}
"""The names that kernels have for the kinds of entries."""

PLAIN = (Tensor, torch.nn.Parameter)
"""The classes of arrays whose numbers lie in their memory."""

BY_ROW = ("ids", "fresh", "flow", "dy")
"""Arrays [T, B, ...]; so is x where there are no ids."""

BY_LANE = ("hidden0", "carried0", "state_mask", "dhidden", "dcarried")
"""Arrays [B, H]."""

NAMES = ("x", "W", "U", "vectors", "hidden0", "carried0")
"""What gradients are asked of, as the kernels call it."""


class Parameters(NamedTuple):
    """What a cell hands to its kernel."""

    kernel: str
    """Its name."""
    W: Tensor
    """[G * H, D], on the input."""
    U: Tensor | None
    """[G * H, H], on the state; None where the cell has no product with it."""
    vectors: tuple[Tensor, ...]
    """Biases and gains, in the kernel's order."""


class _Fixed(NamedTuple):
    """What no gradient is asked of."""

    kernel: Recurrence
    shape: tuple[int, int, int, int, int]
    arrays: dict[str, Tensor]
    rows: Rows | None
    """What is read of unequal lanes; None: all."""


def parameters_of(cell: torch.nn.Module, form: Form) -> Parameters:
    """A cell's own arrays, as its form names them."""
    own = cell._parameters

    def array(name: str) -> Tensor:
        found = own.get(name)  # quicker than an attribute; a parametrization or a hook makes it one
        return getattr(cell, name) if found is None else found

    return Parameters(
        form.kernel_of(vars(cell)) if form.defaults else form.kernel,
        array(form.W),
        array(form.U) if form.U else None,
        tuple([array(name) for name in form.vectors]),
    )


def obstacle(array: Tensor | None) -> str | None:
    """Why the kernels do not take arrays like this one, in a few words; None where they do.

    Arrays on the meta device hold no numbers: the answer is the one for main memory.
    """
    if array is None:
        return None
    if array.dtype != torch.float32:
        return f"kernels take float32, the parameters are {str(array.dtype).removeprefix('torch.')}"
    if array.device.type not in ("cpu", "meta"):
        return f"kernels run in main memory, the parameters are on {array.device}"
    return None


def takes(parameters: Parameters, masks: Masks | None, x: Tensor, state: State, lengths: Lengths | None) -> bool:
    """Whether the kernels take these arrays, which are of one kind and on one device: float32, in main memory.

    The memory of a subclass, a functional tensor or a lazily negated one does not hold its numbers; a gradient of masks
    is nothing that a kernel has; and a kernel runs at least one step.
    """
    if x.dtype is not torch.float32 or not x.is_cpu or torch._is_functional_tensor(x):
        return False
    if lengths is not None and not (lengths.readable() and lengths.rows.steps):
        return False
    arrays = [x, parameters.W, *parameters.vectors, *state]
    if parameters.U is not None:
        arrays.append(parameters.U)
    if masks is not None:
        given = [mask for mask in masks if mask is not None]
        if any([mask.requires_grad for mask in given]):
            return False
        arrays += given
    return all([type(array) in PLAIN and not array.is_neg() for array in arrays])


def run(
    parameters: Parameters,
    precision: str,
    x: Tensor,
    ids_TB: Tensor | None,
    state: State,
    reset_TB: Tensor | None,
    gradient_scale_TB: Tensor | None,
    lengths: Lengths | None,
    masks: Masks | None,
) -> tuple[Tensor, State]:
    """A sequence of at least one step and one lane.

    Args:
        parameters: the cell's.
        precision: one of `engine.PRECISIONS`.
        x: x_TBD, or x_VD of which `ids_TB` names the rows.
        ids_TB: see there.
        state: one or two arrays [B, H]: the output, and what is carried beside it.
        reset_TB: as in `Cell.forward`.
        gradient_scale_TB: as in `Cell.forward`.
        lengths: those of unequal lanes, of which at least one has a step.
        masks: as in `Cell.forward`.

    Raises:
        RuntimeError: where there are no kernels.
    """
    kernel = engine.kernel(parameters.kernel, precision)
    if kernel is None:
        raise RuntimeError("there are no native kernels here; see `throughtime doctor`")
    steps, lanes = (x if ids_TB is None else ids_TB).shape[:2]
    fixed: dict[str, Tensor | None] = {
        "ids": None if ids_TB is None else ids_TB.to(torch.int64),
        "fresh": None if reset_TB is None else reset_TB.to(torch.bool).contiguous().view(torch.uint8),
        "flow": None if gradient_scale_TB is None else gradient_scale_TB.to(torch.float32),
        "U_mask": None if masks is None else masks.weights,
        "state_mask": None if masks is None else masks.state_BH,
    }
    rows = None if lengths is None else lengths.rows
    arrays = {name: array.detach().contiguous() for name, array in fixed.items() if array is not None}
    if rows is not None:
        steps, lanes = rows.steps, len(rows.lanes)
        arrays = _gathered(arrays, rows) | {"starts": rows.starts}
    shape = (steps, lanes, x.shape[-1], state[0].shape[1], 0 if ids_TB is None else len(x))
    vectors = parameters.vectors[0] if len(parameters.vectors) == 1 else torch.cat(parameters.vectors)
    given = (x, parameters.W, parameters.U, vectors, *state)
    call = _Fixed(kernel, shape, arrays, rows)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in given):
        y_TBH, *after = _Sequence.apply(call, *given)
    else:
        y_TBH, *after = _put(call, given, _forward(call, given, keeps=False)[1])
    return y_TBH, type(state)(*after)


def _lent(arrays: dict[str, Tensor]) -> dict[str, tuple[int, int, str]]:
    """Where dense tensors lie, how many entries they have, and of what kind: all that a kernel asks of an array.

    To make NumPy's arrays of them would take as long as a small layer does. It also would forbid for ever to resize
    them, as those do who deal parameters to several processes (FSDP2).
    """
    return {name: (array.data_ptr(), array.numel(), KINDS[array.dtype]) for name, array in arrays.items()}


def _empty(*shape: int) -> Tensor:
    """float32 in main memory, whatever PyTorch's defaults are, of undefined content."""
    size = 4 * math.prod(shape)
    if size < LARGE:
        return torch.empty(shape, dtype=torch.float32, device="cpu")
    return torch.from_numpy(engine.memory(size)).view(torch.float32).view(shape)


def _gathered(arrays: dict[str, Tensor], rows: Rows, by_row: Sequence[str] = BY_ROW) -> dict[str, Tensor]:
    """The arrays with the rows and the lanes alone that are read."""
    return {
        name: rows.take(array) if name in by_row else rows.take_lanes(array) if name in BY_LANE else array
        for name, array in arrays.items()
    }


def _put(fixed: _Fixed, given: tuple[Tensor | None, ...], results: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Outputs and state in the caller's order; a lane without a step keeps the state that it had."""
    if fixed.rows is None:
        return tuple(results.values())
    y, *after = results.values()
    states = [state.detach() for state in given[NAMES.index("hidden0") :] if state is not None]
    lanes = zip(after, states, strict=True)
    return fixed.rows.put(y, _empty), *(fixed.rows.put_lanes(array, before) for array, before in lanes)


def _forward(
    fixed: _Fixed, given: tuple[Tensor | None, ...], keeps: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The arrays that the kernel read, with those it kept for the way back; outputs and state."""
    kernel, shape, others, rows = fixed
    steps, lanes, _, units, tokens = shape
    named = dict(zip(NAMES, given, strict=False))
    arrays = {name: array.contiguous() for name, array in named.items() if array is not None}
    if rows is not None:
        arrays = _gathered(arrays, rows, by_row=() if tokens else ("x",))
    arrays |= others
    y_shape = (steps, lanes, units) if rows is None else (len(rows.places), units)
    results = {"y": _empty(*y_shape), "hidden": _empty(lanes, units)}
    if not kernel.carries_hidden:
        results["carried"] = _empty(lanes, units)
    if keeps:
        starts = {} if rows is None else {"starts": rows.starts}
        saved, read = kernel.sizes(shape, **_lent(starts))
        kept = torch.from_numpy(engine.memory(saved + read))
        arrays["saved"] = kept[:saved].view(torch.float32)
        if kernel.product:
            arrays["read"] = kept[saved:]
    kernel.forward(shape, torch.get_num_threads(), **_lent(arrays | results))
    return arrays, results


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fixed: _Fixed, *given: Tensor | None) -> tuple[Tensor, ...]:
        arrays, results = _forward(fixed, given, keeps=True)
        ctx.fixed, ctx.names = fixed._replace(arrays={}), list(arrays)
        ctx.save_for_backward(*arrays.values())
        ctx.set_materialize_grads(False)
        return _put(fixed, given, results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        # PyTorch's `once_differentiable` would refuse later, and never where another path leads on to what is asked.
        if torch.is_grad_enabled():
            raise RuntimeError("a kernel has no second derivative (create_graph); use engine torch or reference")
        if not all(gradient is None or torch._C._has_storage(gradient) for gradient in gradients):
            raise RuntimeError("a kernel's gradient cannot be batched (vmap, is_grads_batched); use engine reference")
        # A hook on saved tensors may have given them another order in memory.
        arrays = {name: array.contiguous() for name, array in zip(ctx.names, ctx.saved_tensors, strict=True)}
        given = dict(zip(("dy", "dhidden", "dcarried"), gradients, strict=False))
        found = {name: array.contiguous() for name, array in given.items() if array is not None}
        asked = [name for name, needed in zip(NAMES, ctx.needs_input_grad[1:], strict=False) if needed]
        results = {"d" + name: _empty(*arrays[name].shape) for name in asked}
        kernel, shape, _, rows = ctx.fixed
        read = found if rows is None else _gathered(found, rows)
        kernel.backward(shape, torch.get_num_threads(), **_lent(arrays | read | results))
        if rows is not None:
            results |= _put_gradients(results, found, rows, bool(shape[4]))
        return None, *(results.get("d" + name) for name in NAMES[: len(ctx.needs_input_grad) - 1])


def _put_gradients(results: dict[str, Tensor], given: dict[str, Tensor], rows: Rows, tokens: bool) -> dict[str, Tensor]:
    """The gradients of rows and lanes, in the caller's order. Padding has none; a lane without a step hands on what
    the state after it was given."""
    found = {}
    if "dx" in results and not tokens:
        found["dx"] = rows.put(results["dx"], _empty)
    for name, after in (("dhidden0", "dhidden"), ("dcarried0", "dcarried")):
        if name in results:
            units = results[name].shape[1]
            before = given[after] if after in given else torch.zeros(rows.batch[1], units, device="cpu")
            found[name] = rows.put_lanes(results[name], before)
    return found
