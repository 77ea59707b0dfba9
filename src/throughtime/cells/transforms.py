"""The program transformations of PyTorch under which a call is recorded or differentiated instead of only computed.

A kernel reads and writes memory directly, so none of them sees what it does: a trace would hold its result as a
constant, a tangent would be lost. Under a transformation cells run in PyTorch's operations alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.autograd import forward_ad
from torch.jit import is_tracing as is_tracing  # type: ignore[attr-defined]  # PyTorch documents it
from torch.jit._trace import TracerWarning


class Transform(NamedTuple):
    """A transformation that a kernel cannot run under."""

    name: str
    """Its name, for messages."""
    elementary: bool
    """Whether it needs elementary operations: it has no rule for PyTorch's fused recurrences (`torch.lstm`)."""


COMPILATION = Transform("torch.compile or torch.export", False)
FUNCTION = Transform("a transform of torch.func", True)
FORWARD_MODE = Transform("forward-mode differentiation", True)
TRACING = Transform("torch.jit.trace", False)
DISPATCH = Transform("a dispatch mode such as make_fx or FakeTensorMode", False)


def active() -> Transform | None:
    """The transformation that is under way; None in an ordinary call."""
    if torch.compiler.is_compiling():  # first: the compiler does not follow the others
        return COMPILATION
    if torch._C._are_functorch_transforms_active():
        return FUNCTION
    if forward_ad._current_level >= 0:
        return FORWARD_MODE
    if torch._C._is_tracing():
        return TRACING
    if torch._C._len_torch_dispatch_stack():
        return DISPATCH
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """For checks of sizes under `torch.jit.trace`, which warns wherever a size is looked at as a number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)
        yield
