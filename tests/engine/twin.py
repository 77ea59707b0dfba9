"""What a kernel should give: the cell's own step in float64, with bfloat16 products where the kernel has them.

Axes: T time, B batch (lane), D input, H hidden, G gates, V rows of a table.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from throughtime import cells
from throughtime.cells import native
from throughtime.cells.masks import Masks
from throughtime.cells.state import leaves, map_state, reset_rows, scale_gradient


def rounded(array: Tensor) -> Tensor:
    """The nearest bfloat16 numbers, ties to even. From float32, as the kernel has them: float64 might round twice."""
    return array.float().bfloat16().double()


class _Product(torch.autograd.Function):
    """A product of bfloat16 numbers, x W^T, summed in float64; on the way back, too, both sides are rounded."""

    @staticmethod
    def forward(ctx, x, weights):
        x, weights = rounded(x), rounded(weights)
        ctx.save_for_backward(x, weights)
        return x @ weights.T

    @staticmethod
    def backward(ctx, *gradients):
        x, weights = ctx.saved_tensors
        gradient = rounded(gradients[0])
        return gradient @ weights, gradient.T @ x


class _Looked(torch.autograd.Function):
    """Rows of a table of products. The gradients of steps that read the same row are rounded, then added."""

    @staticmethod
    def forward(ctx, table_VG, ids_B):
        ctx.save_for_backward(ids_B)
        ctx.rows = len(table_VG)
        return table_VG[ids_B]

    @staticmethod
    def backward(ctx, *gradients):
        (ids_B,) = ctx.saved_tensors
        gradient = rounded(gradients[0])
        return gradient.new_zeros(ctx.rows, gradient.shape[1]).index_add_(0, ids_B, gradient), None


class Bfloat16(TorchFunctionMode):
    """In here the products of a step, all written with `linear`, are of bfloat16 numbers. All else stays as it is.

    Args:
        table_VG: the products of a table's rows with W, where the inputs are ids of rows.
    """

    def __init__(self, table_VG: Tensor | None = None):
        super().__init__()
        self.table_VG = table_VG

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not linear:
            return func(*args, **(kwargs or {}))
        x, weights, *bias = args
        product = _Looked.apply(self.table_VG, x) if x.dtype == torch.int64 else _Product.apply(x, weights)
        return product + bias[0] if bias and bias[0] is not None else product


def cell_of(kernel: str, D: int, H: int):
    """The cell of a kernel, in float64, and its parameters in the kernel's order: W, U (None: without), vectors."""
    name, _, option = kernel.rpartition("-")
    options = {"elman": "activation", "mingru": "candidate", "minlstm": "candidate"}
    name, given = (name, {options[name]: option}) if name in options else (kernel, {})
    cell = cells.create(name, D, H, engine="reference", **given).double()
    parameters = native.parameters_of(cell, cells.family(name).native)
    assert parameters.kernel == kernel
    return cell, parameters


def everything(kernel: str, case, inputs, bf16: bool = False, y=None) -> dict[str, Tensor]:
    """Outputs and gradients, by the names of the kernel's arrays.

    Args:
        kernel: its name.
        case: its sizes.
        inputs: of both passes, as NumPy arrays.
        bf16: whether products are rounded.
        y: outputs, in the kernel's order, that the product of each next step shall read instead of its own. A value
            that lies just between two bfloat16 numbers may be rounded to either, and what follows would differ by 2^-9
            of it.
    """
    T, B, D, H, V = case[:5]
    given = {name: torch.from_numpy(array) for name, array in inputs.items()}
    cell, parameters = cell_of(kernel, D, H)
    split = given["vectors"].flatten().split([len(vector) for vector in parameters.vectors])
    with torch.no_grad():
        for parameter, array in zip(
            (parameters.W, parameters.U, *parameters.vectors), (given["W"], given.get("U"), *split), strict=True
        ):
            if parameter is not None:
                parameter.copy_(array)
    x, *before = (given[name].double().requires_grad_() for name in ("x", "hidden0", "carried0") if name in given)
    state = type(cell.initial_state(B))(*before)
    masks = Masks(*(None if array is None else array.double() for array in map(given.get, ("U_mask", "state_mask"))))
    with Bfloat16() if bf16 else nullcontext():
        table_VG = linear(x, parameters.W) if V else None
    alive = given["starts"].diff().tolist() if "starts" in given else [B] * T
    x_T = (x.view(-1, D) if not V else given["ids"].flatten() if bf16 else x[given["ids"].flatten()]).split(alive)
    y_T = None if y is None else torch.from_numpy(y).view(-1, H).split(alive)
    flow_T, fresh_T = (given[name].flatten().split(alive) if name in given else None for name in ("flow", "fresh"))
    outputs, ended = [], []
    with Bfloat16(table_VG) if bf16 else nullcontext():
        for t, lanes in enumerate(alive):
            ended.append(map_state(lambda array, lanes=lanes: array[lanes:], state))
            state = map_state(lambda array, lanes=lanes: array[:lanes], state)
            if flow_T:
                state = scale_gradient(state, flow_T[t])
            if fresh_T:
                state = reset_rows(state, fresh_T[t].bool(), cell.initial_state(lanes))
            masked = Masks(masks.weights, None if masks.state_BH is None else masks.state_BH[:lanes])
            # Without its checks: ids may stand in for the rows that they name.
            y_BH, state = cell._plain_step(x_T[t], state, *([masked] if cell.recurrent else []))
            outputs.append(y_BH)
            if y_T:
                state = state._replace(hidden_BH=_with_values(state.hidden_BH, y_T[t]))
    state = map_state(lambda *rows: torch.cat(rows), state, *reversed(ended))
    results = {"y": torch.cat(outputs)} | dict(zip(("hidden", "carried"), leaves(state), strict=False))
    loss = sum((results[name] * given["d" + name].view_as(results[name])).sum() for name in results)
    wanted = {"x": x, "W": parameters.W, "U": parameters.U}
    wanted |= {f"vectors.{i}": vector for i, vector in enumerate(parameters.vectors)}
    wanted |= dict(zip(("hidden0", "carried0"), before, strict=False))
    wanted = {name: array for name, array in wanted.items() if array is not None}
    gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True, materialize_grads=True)
    found = {f"d{name}": array for name, array in zip(wanted, gradients, strict=True)}
    vectors = [found.pop(f"dvectors.{i}") for i in range(len(parameters.vectors))]
    results |= found | {"dvectors": torch.cat(vectors).view(-1, H)}
    return {name: array.detach().numpy().reshape(-1) for name, array in results.items()}


def _with_values(array: Tensor, values: Tensor) -> Tensor:
    """Other values; gradients pass as if they were its own."""
    return array + (values - array).detach()
