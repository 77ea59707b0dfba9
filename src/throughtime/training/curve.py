"""The loss curve of a run, from its journal."""

from __future__ import annotations

import io
from pathlib import Path

from throughtime.durable import replace_file
from throughtime.training.journal import Entries

TRAIN, VALID = "#7a7a7a", "#0072b2"  # told apart without colour too: one is thin, the other has dots


def draw_curve(entries: Entries, path: Path) -> None:
    """Draw training and validation loss against what was read, as SVG.

    The settings of matplotlib, its backend among them, stay as the caller has them.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn = io.BytesIO()
    with rc_context({"svg.hashsalt": "throughtime", "path.simplify": True}):  # the same curve gives the same file
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(*_columns(entries.losses), color=TRAIN, lw=1, label="training")
        if entries.validations:
            axes.plot(*_columns(entries.validations), "o-", color=VALID, ms=4, label="validation")
            tokens, least = min(entries.validations, key=lambda point: point[1])
            axes.annotate(f"{least:.3f}", (tokens, least), (0, -14),
                          textcoords="offset points", ha="center", color=VALID)  # fmt: skip
        axes.set(xlabel=f"{entries.unit.items} read", ylabel=f"{entries.unit.quantity} per {entries.unit.item}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.legend(frameon=False)
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    replace_file(path, drawn.getvalue())


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
