"""Pictures of the run that trained the network, from its journal."""

from __future__ import annotations

from typing import Any

from throughtime.probe.report.figures import Figure, Part, Series
from throughtime.training.journal import Curve, Entries
from throughtime.untrusted import printable


def training(found: Entries) -> Part | None:
    """The loss curve and the gradient norm of a run; None where its journal has neither."""
    if not found.losses:
        return None
    read = f"{found.unit.items} read"
    losses = [_series("training", found.losses, faint=True, colour=5, dash=0)]
    if found.validations:
        losses.append(_series("validation", found.validations, points=True, colour=0, dash=0, shape="circle"))
    norms = _series("gradient norm", found.norms)
    shares = _series("share of steps clipped", found.clipped, colour=1, dash=0)
    figures = [
        Figure(
            "loss",
            "Loss",
            "The loss on what the network is trained on, and on text that is kept from it. "
            "Where the second stops falling while the first goes on, it learns its text by heart.",
            read,
            f"{found.unit.quantity} per {found.unit.item}",
            losses,
        ),
        Figure(
            "norm",
            "Gradient norm",
            "The length of the gradient before it was clipped, mean of the steps since the entry before. "
            "Spikes are where gradients explode for a moment; a fall to nothing is where they vanish.",
            read,
            "norm",
            [norms],
            log_y=True,
        ),
    ]
    if any(shares.y):
        figures.append(
            Figure(
                "clipped",
                "Clipped steps",
                "The share of steps whose gradient was longer than gradient.clip_norm and was shortened to it. "
                "Near 1 throughout, clipping has become part of the learning rate.",
                read,
                "share",
                [shares],
                y_range=(0, 1),
            )
        )
    lead = " ".join(["From the journal of the run.", *(f"{printable(note)}." for note in found.notes)])
    return Part("training", "How it was trained", lead, figures)


def _series(name: str, curve: Curve, **look: Any) -> Series:
    return Series(name, [tokens for tokens, _ in curve], [value for _, value in curve], **look)
