"""The settings of the gradient."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from throughtime.settings import Natural, NonNegative, Probability, Settings, Share, Whole


class Gradient(Settings):
    """Loss to gradient: how far back it goes and how large it may get."""

    truncation: Literal["none", "fixed", "variable", "random"] = "fixed"
    """`none`: back to the beginning of the epoch, with one update an epoch; `fixed`: over `reach` tokens; `variable`:
    over windows whose length is drawn; `random`: for each lane until a cut that is drawn, reweighted."""
    reach: Whole = 0
    """`fixed`: tokens from the end of a window back to where its gradient ends; 0: as many as the window has."""
    lengths: Literal["normal", "geometric"] = "normal"
    """`variable`: how windows are drawn; what passes within a `geometric` one is reweighted."""
    deviation: NonNegative = 5.0
    """`variable`, `normal`: standard deviation of a window's length, in tokens."""
    halved: Share = 0.05
    """`variable`, `normal`: probability that a window is drawn around half the length."""
    cut: Probability = 0.0
    """`random`: probability of a cut at a step; 0: 1 / `streams.window`."""
    cut_end: Probability | None = None
    """`random`: that probability at the end of the budget, to which it goes evenly; left out: the same."""
    memory: Natural = 1024
    """`none`: MB that may be kept for the way back; what does not fit is made again, in a second pass forwards."""
    clip_norm: NonNegative = 1.0
    """Largest global norm of the gradient of the mean loss; 0: any."""
    clip_value: NonNegative = 0.0
    """Largest absolute value of one entry of the gradient, applied before the norm's bounds; 0: any."""
    clip_quantile: Share = 0.0
    """Largest global norm, as this quantile of the norms of the last 1,000 steps; 0: any. It tightens `clip_norm`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.cut_end == 0:
            raise ValueError("cut_end must be above 0, got 0; without cuts the gradient would go back for ever")
        return self
