"""Pictures of the run that trained the network, from its journal."""

from __future__ import annotations

from throughtime.probe.report.figures import Figure, Part, Series
from throughtime.training.journal import Journal


def training(journal: Journal) -> Part | None:
    """The loss curve and the gradient norm of a run; None where its journal has neither."""
    steps, valid = list(journal.read("train")), list(journal.read("valid"))
    if not steps:
        return None
    tokens = [float(entry["tokens"]) for entry in steps]
    losses = [Series("training", tokens, [entry["nats_per_token"] for entry in steps], faint=True, colour=5, dash=0)]
    if valid:
        at = [float(entry["tokens"]) for entry in valid]
        nats = [entry["valid"]["nats_per_token"] for entry in valid]
        losses.append(Series("validation", at, nats, points=True, colour=0, dash=0, shape="circle"))
    measured = [entry for entry in steps if entry["gradient_norm"]]
    norms = Series("gradient norm", [float(e["tokens"]) for e in measured], [e["gradient_norm"] for e in measured])
    shares = Series("share of steps clipped", norms.x, [e["clipped_share"] for e in measured], colour=1, dash=0)
    figures = [
        Figure(
            "loss",
            "Loss",
            "The loss on what the network is trained on, and on text that is kept from it. "
            "Where the second stops falling while the first goes on, it learns its text by heart.",
            "tokens read",
            "nats per token",
            losses,
        ),
        Figure(
            "norm",
            "Gradient norm",
            "The length of the gradient before it was clipped, mean of the steps since the entry before. "
            "Spikes are where gradients explode for a moment; a fall to nothing is where they vanish.",
            "tokens read",
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
                "tokens read",
                "share",
                [shares],
                y_range=(0, 1),
            )
        )
    return Part("training", "How it was trained", "From the journal of the run.", figures)
