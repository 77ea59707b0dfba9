"""Bounds on an exploding gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from throughtime.recipe import Gradient


def clip(parameters: Sequence[Tensor], gradient: Gradient) -> float:
    """Bound the gradient in place, first each entry, then the global norm.

    Returns:
        The global norm before clipping; not finite where an entry is not, and then nothing was changed.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = float(nn.utils.get_total_norm(gradients))
    if norm != norm or norm == float("inf"):
        return norm
    if gradient.clip_value:
        nn.utils.clip_grad_value_(parameters, gradient.clip_value)
    if gradient.clip_norm:
        left = nn.utils.get_total_norm(gradients) if gradient.clip_value else torch.tensor(norm)
        nn.utils.clip_grads_with_norm_(parameters, gradient.clip_norm, left)
    return norm
