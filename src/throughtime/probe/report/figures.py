"""What a picture of the report is, before it is drawn: lines or points, axes, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from typing import Any, NamedTuple


class Series(NamedTuple):
    """Values that belong together."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    line: bool = True
    points: bool = False
    bars: bool = False
    hollow: bool = False
    """Points are drawn as outlines."""
    faint: bool = False
    """The line is drawn thin."""
    silent: bool = False
    """Its values are not shown on hover."""
    colour: int | None = None
    """Of the palette, from 0; None: by its place in the figure."""
    dash: int | None = None
    """Of the dashes, from 0, which is an unbroken line; None: by its place in the figure."""
    shape: str | None = None
    """`circle`, `cross`, `diamond`, `triangle` or `square`; None: by its place in the figure."""
    size: float | None = None
    """Of points, in pixels; None: by their number."""
    notes: Sequence[str] | None = None
    """What is said of each point on hover."""


class Mark(NamedTuple):
    """A place on the x axis."""

    x: float
    label: str


class Figure(NamedTuple):
    """A picture."""

    id: str
    title: str
    meaning: str
    """What it shows, in two sentences."""
    x_label: str
    y_label: str
    series: Sequence[Series]
    kind: str = "lines"
    """`lines`: all values at one x are read together; `points`: each for itself."""
    log_x: bool = False
    log_y: bool = False
    x_names: Sequence[str] | None = None
    """What stands at x = 0, 1, ... in place of numbers."""
    x_range: tuple[float | None, float | None] = (None, None)
    y_range: tuple[float | None, float | None] = (None, None)
    equal: bool = False
    """One unit is as long on either axis."""
    circle: bool = False
    """The unit circle is drawn."""
    marks: Sequence[Mark] = ()


class Part(NamedTuple):
    """Pictures under one heading."""

    id: str
    title: str
    lead: str
    figures: Sequence[Figure]


def counted(values: Sized) -> list[float]:
    """1, 2, ... for as many as there are."""
    return [float(number) for number in range(1, len(values) + 1)]


def of_layer(name: str, level: int, layers: int) -> str:
    """What a series is called: by its layer too, where there are several."""
    return ": ".join(filter(None, (f"layer {level + 1}" if layers > 1 else "", name)))


def as_json(value: Any) -> Any:
    """Named tuples as objects, numbers to four digits, what is not finite as null."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, tuple) and getattr(value, "_fields", None):
        return {name: as_json(part) for name, part in zip(value._fields, value, strict=True)}  # type: ignore[attr-defined]
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    return value
