"""Dropping: the masks of a cell's product with its state, and of the arrays between layers.

Axes: B batch (lane), H hidden, G gates.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from throughtime.errors import SettingError

_LEVELS = 1 << 16
"""A mask is drawn in steps of probability this fine: four entries from a number of 64 bits."""


class Masks(NamedTuple):
    """What is left out of a cell's product with its state, the same at every step of a window. None: nothing.

    An entry is 0, or 1 / (1 - p) where p is the probability of a 0, so that the product stays what it is on average.
    """

    weights: Tensor | None = None
    """[G * H, H], on the recurrent matrix: DropConnect (Wan et al. 2013), the weight drop of Merity et al. 2017."""
    state_BH: Tensor | None = None
    """On h_(t-1) in the product, and nowhere else: variational dropout (Gal & Ghahramani 2016)."""


def draw_mask(like: Tensor, probability: float, noise: torch.Generator | None) -> Tensor | None:
    """A mask in the shape of `like`, drawn from `noise`; None where there is no noise or nothing to drop.

    PyTorch's generator gives the seed of a quicker one: `bernoulli_` takes several times as long.

    Raises:
        SettingError: where the probability is not in [0, 1).
    """
    check_probability("the probability of a mask", probability)
    if noise is None or not probability:
        return None
    seed = int(torch.randint(1 << 62, (), generator=noise, device=noise.device))
    words = np.random.SFC64(seed).random_raw(-(-like.numel() // 4))
    most = max(round((1 - probability) * _LEVELS), 1) - 1
    kept = torch.from_numpy(words.view(np.uint16)[: like.numel()] <= most)
    return kept.to(like.device, like.dtype).div_(1 - probability).view(like.shape)


def check_probability(name: str, probability: Any) -> None:
    """Check that a probability lies in [0, 1).

    Raises:
        SettingError: where it does not.
    """
    number = isinstance(probability, int | float | np.floating) and type(probability) is not bool
    if not number or not 0 <= probability < 1:
        raise SettingError(f"{name} must be at least 0 and below 1, got {probability!r}")


def warn_without_noise(module: nn.Module) -> None:
    """Say that nothing is dropped, where a module is in training mode and gradients are made."""
    if module.training and torch.is_grad_enabled():
        warnings.warn(
            f"{type(module).__name__} is in training mode and drops nothing, for it got no noise; pass "
            "noise=torch.Generator(), or call .eval()",
            stacklevel=3,
        )


def drop(array: Tensor, probability: float, noise: torch.Generator | None) -> Tensor:
    """Inverted dropout: the array times a mask of its own."""
    mask = draw_mask(array, probability, noise)
    return array if mask is None else array * mask
