"""The loss curve of a run, from its journal."""

from __future__ import annotations

from pathlib import Path

from throughtime.training.journal import Journal

TRAIN, VALID = "#7a7a7a", "#0072b2"  # told apart without colour too: one is thin, the other has dots


def draw_curve(journal: Journal, path: Path) -> None:
    """Training and validation loss (nats per token) against tokens read, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    train, valid = list(journal.read("train")), list(journal.read("valid"))
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot([e["tokens"] for e in train], [e["nats_per_token"] for e in train], color=TRAIN, lw=1, label="training")
    if valid:
        losses = [entry["valid"]["nats_per_token"] for entry in valid]
        axes.plot([entry["tokens"] for entry in valid], losses, "o-", color=VALID, ms=4, label="validation")
        axes.annotate(f"{min(losses):.3f}", (valid[losses.index(min(losses))]["tokens"], min(losses)), (0, -14),
                      textcoords="offset points", ha="center", color=VALID)  # fmt: skip
    axes.set(xlabel="tokens read", ylabel="nats per token")
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(frameon=False)
    figure.savefig(path)
    pyplot.close(figure)
