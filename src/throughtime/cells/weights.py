"""How parameters start, and sizes that no machine holds."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.errors import SettingError
from throughtime.machine import memory

LARGE = 1 << 30
"""Arrays of so many bytes are compared with the memory before they are made."""
MOST_BYTES = (1 << 63) - 1
"""The largest array that PyTorch counts, on any device."""


def whole_size(name: str, size: Any) -> int:
    """A size as an int.

    Raises:
        SettingError: where it is not a whole number.
    """
    try:
        if isinstance(size, bool):
            raise TypeError
        return operator.index(size)
    except (TypeError, ValueError):
        raise SettingError(f"{name} must be a whole number, got {size!r}") from None


def uninitialised(*shape: int) -> Tensor:
    """A parameter's array of PyTorch's default kind on its default device, of undefined content.

    Raises:
        SettingError: where memory does not hold it.
    """
    check_fits(*shape)
    return torch.empty(*shape)


def check_fits(*shape: int) -> None:
    """Check that memory holds an array of this shape: it may be granted and then end the process when it is filled.

    Raises:
        SettingError: where it does not.
    """
    size = math.prod(shape) * torch.get_default_dtype().itemsize
    if size < LARGE:
        return
    held = memory() if torch.get_default_device().type == "cpu" else None
    if size > MOST_BYTES or (held is not None and size > held):
        most = "an array may have" if held is None else f"the {held / 1e9:,.1f} GB of this machine"
        raise SettingError(
            f"a parameter of shape {list(shape)} takes {size / 1e9:,.1f} GB, more than {most}; choose smaller sizes"
        )


def input_matrix(rows: int, columns: int, generator: torch.Generator | None) -> nn.Parameter:
    """Weights on an input: uniform with variance 1 / columns, so that the sum keeps the input's scale."""
    bound = math.sqrt(3 / columns)
    return nn.Parameter(uninitialised(rows, columns).uniform_(-bound, bound, generator=generator))


def recurrent_matrix(gates: int, hidden_size: int, generator: torch.Generator | None) -> nn.Parameter:
    """Weights on the state, [gates * H, H]: an orthogonal matrix a gate, so that a step keeps the state's norm."""
    check_fits(gates * hidden_size, hidden_size)
    default = torch.get_default_dtype()
    if torch.get_default_device().type == "meta":  # where PyTorch would load its compiler, which takes a second
        return nn.Parameter(torch.empty(gates * hidden_size, hidden_size))
    kind = torch.promote_types(default, torch.float32)  # 16-bit matrices have no QR decomposition
    blocks = [
        nn.init.orthogonal_(torch.empty(hidden_size, hidden_size, dtype=kind), generator=generator)
        for _ in range(gates)
    ]
    return nn.Parameter(torch.cat(blocks).to(default))
