"""Bounds on an exploding gradient."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from throughtime.gradient.settings import Gradient

NORMS = 1000
"""Steps that the quantile is over."""
FEWEST_NORMS = 20
"""Before there are so many, the quantile bounds nothing."""


class Clipped(NamedTuple):
    """What clipping met."""

    norm: float
    """The global norm before; not finite where an entry is not, and then nothing was changed."""
    bound: bool
    """Whether the norm was too large."""


@final
class Clipping:
    """Bounds gradients in place, first each entry, then the global norm (Pascanu et al. 2013).

    The norm has a fixed bound, one that follows the norms themselves (a quantile of those before clipping), or both.

    Attributes:
        norms: of the last steps, before clipping.
    """

    def __init__(self, gradient: Gradient, norms: Sequence[float] = ()):
        self._gradient = gradient
        self.norms = deque(norms, NORMS)

    def __call__(self, parameters: Sequence[Tensor]) -> Clipped:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            return Clipped(norm, False)
        bound = self._bound()
        if self._gradient.clip_quantile:
            self.norms.append(norm)
        if self._gradient.clip_value:
            nn.utils.clip_grad_value_(parameters, self._gradient.clip_value)
        if bound < math.inf:
            left = nn.utils.get_total_norm(gradients) if self._gradient.clip_value else torch.tensor(norm)
            nn.utils.clip_grads_with_norm_(parameters, bound, left)
        return Clipped(norm, norm > bound)

    def _bound(self) -> float:
        bound = self._gradient.clip_norm or math.inf
        if self._gradient.clip_quantile and len(self.norms) >= FEWEST_NORMS:
            bound = min(bound, float(np.quantile(self.norms, self._gradient.clip_quantile)))
        return bound
