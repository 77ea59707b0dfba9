"""The page and the picture of the benchmark of layers, made from what it measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from timing import in_quartiles, table

OURS, PYTORCH, LIMIT = "throughtime", "PyTorch", "matrix product"
PEERS = ("JAX", "Keras")
PLAIN, PRODUCTS = "without normalisation", "its three matrix products"
MASKED, ODD, TINY, LARGE = "weights masked", "odd size", "denormals", "large gates"
STYLES: dict[str, Literal["-", "--"]] = {"float32": "-", "bf16": "--"}
"""Of lines, by precision."""
COLOURS = {OURS: "#d55e00", PYTORCH: "#0072b2", "JAX": "#009e73", "Keras": "#cc79a7", LIMIT: "#888888"}

Found = dict[str, Any]
"""What layer.json holds, or a part of it."""


class Point(NamedTuple):
    cell: str
    batch: int
    size: int
    kind: str
    """`forward`, `both` (forward and backward), or `variants`: both, of the cell beside itself."""


def point_of(entry: Found) -> Point:
    return Point(*(entry[name] for name in Point._fields))


def gflops(facts: Found) -> float:
    """At the median of a contender's times."""
    rate: float = facts["flops"] / facts["quartiles"][1] / 1e3
    return rate


def limit(entry: Found) -> float:
    """GFLOP/s of the product of two matrices, in the first precision it was timed in."""
    return next(gflops(facts) for name, facts in entry["contenders"].items() if name.startswith(LIMIT))


def disturbed(found: Found) -> list[int]:
    """Places of the points at which the machine had something else to do."""
    best = max(map(limit, found["points"]))
    return [place for place, entry in enumerate(found["points"]) if limit(entry) < found["calm"] * best]


class Measured:
    """Looks up what was measured, by point and contender."""

    def __init__(self, found: Found):
        self._entries = {point_of(entry): entry["contenders"] for entry in found["points"]}

    def points(self, kind: str, cell: str, batches: Iterable[int] = (), sizes: Iterable[int] = ()) -> list[Point]:
        """Those of a kind and a cell; of all B and H where none are named."""
        return [
            point
            for point in self._entries
            if (point.kind, point.cell) == (kind, cell)
            and (not batches or point.batch in batches)
            and (not sizes or point.size in sizes)
        ]

    def cells(self) -> list[str]:
        return list(dict.fromkeys(point.cell for point in self._entries))

    def names(self, cell: str | None = None) -> set[str]:
        """The contenders at the points of a cell, or at all."""
        return {name for point, entry in self._entries.items() if cell in (None, point.cell) for name in entry}

    def all(self, fact: str, name: str) -> list[Any]:
        """A fact on a contender wherever it is known."""
        return [entry[name][fact] for entry in self._entries.values() if fact in entry.get(name, ())]

    def gflops(self, point: Point, name: str) -> float | None:
        return gflops(self._entries[point][name]) if name in self._entries[point] else None

    def faster(self, point: Point, name: str, other: str, by_rate: bool = False) -> list[float]:
        """How many times as fast as the other, in every round; none where one of them was not there.

        `by_rate` compares work by time, for two that do not do as much.
        """
        one, two = (self._entries.get(point, {}).get(who) for who in (name, other))
        if not one or not two:
            return []
        more = one["flops"] / two["flops"] if by_rate else 1.0
        return [more * theirs / ours for ours, theirs in zip(one["microseconds"], two["microseconds"], strict=True)]


def summary(entry: Found) -> str:
    """A point in a line."""
    rates = (f"{name} {gflops(facts):,.1f}" for name, facts in entry["contenders"].items())
    return f"{' '.join(map(str, point_of(entry)))}, GFLOP/s: {', '.join(rates)}"


def page(found: Found) -> list[str]:
    measured = Measured(found)
    versions = ", ".join(f"{library} {version}" for library, version in found["versions"].items())
    return [
        "# A layer",
        "",
        f"A window of {found['steps']} steps through one layer: B lanes, H units and as many inputs. *Backward* is",
        "forward and backward, to the gradients of the input and of all parameters; *forward* is without gradients.",
        "",
        "- **GFLOP/s** count the matrix products alone: 2 T B G H (D + H) forward, three times that backward (G gates;",
        "  for a minimal cell without the H in the bracket). The **share** is that of the rate at which the machine",
        "  multiplies two matrices of 1024 x 1024 in the same precision.",
        "- **PyTorch** is `nn.RNN`, `nn.GRU` and `nn.LSTM`; for bf16 the module and its input are bfloat16. It has no",
        "  such module for the other cells: there it is their equations as a loop of its functions.",
        "- **JAX** is a compiled `lax.scan` of the same equations, what needs no state computed before the scan.",
        "- **Keras** is its layers on TensorFlow, in a `tf.function` as in `fit`; bf16 is the policy `mixed_bfloat16`.",
        "- Ours in **bf16** takes, keeps and gives float32; what is multiplied is rounded.",
        "",
        f"That rate also tells whether the machine was at rest. Where it was under {found['calm']:.0%} of its best,",
        f"{max(map(limit, found['points'])):.0f} GFLOP/s, a point counts as disturbed, and can be measured again;",
        f"the measurement with the fastest product counts. {sum('attempts' in entry for entry in found['points'])} of "
        f"{len(found['points'])} points were, and {len(disturbed(found))} are disturbed.",
        "",
        "Every ratio is one of two turns in one round; quoted are the median over the rounds and, in brackets, between",
        "what lies their middle half. Above 1x we are faster.",
        "",
        "![GFLOP/s by size, for every cell](layer.svg)",
        "",
        "## In short",
        "",
        *table(["medians of the points", "points", "geometric mean", "smallest", "largest"], list(_bars(measured))),
        "",
        "## A cell beside itself",
        "",
        *_variants(measured),
        *(line for cell in measured.cells() for line in _cell(measured, cell)),
        "## Spread, and do all compute the same?",
        "",
        *_spread(measured),
        "",
        f"All times: [layer.json](layer.json). {found['threads']} threads; engine: {found['engine']}; {versions}.",
        "",
        f"Made by `{found['command']}` on {found['machine']}.",
    ]


def _bars(measured: Measured) -> Iterator[list[str]]:
    """What is asked of the engine, a row each: geometric mean, smallest and largest over points."""

    def row(
        what: str, points: Sequence[Point], name: str, other: str, form: str = ".2f", by_rate: bool = False
    ) -> Iterator[list[str]]:
        ratios = [measured.faster(point, name, other, by_rate) for point in points]
        medians = [statistics.median(rounds) for rounds in ratios if rounds]
        if medians:
            figures = statistics.geometric_mean(medians), min(medians), max(medians)
            unit = "" if form.endswith("%") else "x"
            yield [what, f"{len(medians)}", *(f"{figure:{form}}{unit}" for figure in figures)]

    lanes: dict[str, tuple[int, ...]] = {"B 16 to 64": (16, 32, 64), "B 1": (1,), "any B": ()}
    for cell, module in {"elman": "nn.RNN", "gru": "nn.GRU", "lstm": "nn.LSTM"}.items():
        for kind, title in {"both": "backward", "forward": "forward"}.items():
            for ours, theirs in (("float32", "float32"), ("bf16", "float32"), ("bf16", "bf16")):
                for where, batches in lanes.items():
                    what = f"{title}, {where}: {cell} {ours} beside `{module}` {theirs}"
                    points = measured.points(kind, cell, batches)
                    yield from row(what, points, f"{OURS} {ours}", f"{PYTORCH} {theirs}")
    points = measured.points("both", "lstm", (1,), (512, 1024))
    what = "backward, B 1, H 512 and 1024: lstm float32 beside `nn.LSTM` float32"
    yield from row(what, points, f"{OURS} float32", f"{PYTORCH} float32")
    for precision in STYLES:
        ours = f"{OURS} {precision}"
        for cell in ("layernorm-gru", "layernorm-lstm"):
            what = f"backward, B 1 to 32, H 128 to 512: {cell} {precision} beside"
            points = measured.points("both", cell, (1, 16, 32), (128, 256, 512))
            yield from row(f"{what} the loop", points, ours, f"{PYTORCH} {precision}")
            yield from row(f"{what} our own cell without normalisation", points, ours, f"{PLAIN} {precision}")
        for cell in ("gru", "lstm"):
            points = measured.points("both", cell, (32, 64), (512, 1024))
            for limit in dict.fromkeys((precision, "float32")):  # bf16 products need not be the faster ones
                what = f"backward, B 32 and 64, H 512 and 1024: {cell} {precision}, share of the {limit} product's rate"
                yield from row(what, points, ours, f"{LIMIT} {limit}", ".0%", by_rate=True)
        for cell in ("mingru", "minlstm"):
            what = f"backward: time of {cell} {precision} beside {PRODUCTS} alone"
            yield from row(what, measured.points("both", cell), f"{PRODUCTS} {precision}", ours)


def _variants(measured: Measured) -> list[str]:
    """Times beside the ordinary cell's, but for the odd size, which has less to do."""
    rows = []
    for cell in measured.cells():
        for point in measured.points("variants", cell):
            for precision in STYLES:
                ours = f"{OURS} {precision}"
                slower = [measured.faster(point, ours, f"{name} {precision}") for name in (MASKED, TINY, LARGE)]
                rate = measured.faster(point, f"{ODD} {precision}", ours, by_rate=True)
                if rate:
                    rows.append([f"{cell} {precision}", *map(_times, (*slower, rate))])
    header = ["", "weight drop: time", "inputs and state of 1e-39: time", "inputs x 100: time", "500 units: GFLOP/s"]
    sentence = "Backward at B 32 and H 512, beside the same cell with ordinary inputs, all weights and 512 units."
    return [*table(header, rows), "", sentence, ""]


def _cell(measured: Measured, cell: str) -> list[str]:
    """A table with a row for each B, H and precision."""
    peers = [name for name in PEERS if any(known.startswith(name) for known in measured.names(cell))]
    titles = ["GFLOP/s", *(f"beside {name}" for name in (PYTORCH, *peers))]
    header = ["", *(f"{kind}: {title}" for kind in ("forward", "backward") for title in titles), "share"]
    rows = []
    for precision in STYLES:
        ours = f"{OURS} {precision}"
        for point in measured.points("both", cell):
            row = []
            for place in (point._replace(kind="forward"), point):
                rate = measured.gflops(place, ours)
                row.append("" if rate is None else f"{rate:,.1f}")
                ratios = [measured.faster(place, ours, f"{name} {precision}") for name in (PYTORCH, *peers)]
                row += [_times(ratios[0]), *(_times(rounds, spread=False) for rounds in ratios[1:])]
            share = measured.faster(point, ours, f"{LIMIT} {precision}", by_rate=True)
            if share:
                rows.append([f"{precision}, B {point.batch}, H {point.size}", *row, f"{statistics.median(share):.0%}"])
    return [f"## {cell}", "", *table(header, rows), ""]


def _times(ratios: Sequence[float], spread: bool = True) -> str:
    if not ratios:
        return ""
    return f"{in_quartiles(ratios, '.2f', 'x')}" if spread else f"{statistics.median(ratios):.2f}x"


def _spread(measured: Measured) -> list[str]:
    rows = []
    for name in (OURS, PYTORCH, *PEERS, LIMIT):
        for precision in STYLES:
            known = measured.all("quartiles", f"{name} {precision}")
            if known:
                widths = [(high - low) / middle for low, middle, high in known]
                apart = measured.all("apart", f"{name} {precision}")
                told = [f"{statistics.median(apart):.0e}", f"{max(apart):.0e}"] if apart else ["", ""]
                row = [f"{name} {precision}", f"{len(known)}", f"{statistics.median(widths):.1%}", f"{max(widths):.1%}"]
                rows.append([*row, *told])
    return [
        *table(["", "points", "spread, median", "largest", "apart, median", "largest"], rows),
        "",
        "Spread: how wide the middle half of the rounds' times is, beside their median. Apart: how far the lengths of",
        "the output, of the gradient of the input and of those of the matrices are from ours in float32. Where",
        "gradients grow on their way back, so does what bf16 has rounded.",
    ]


def draw(found: Found, file: Path) -> None:
    """GFLOP/s over H at the batch nearest to 32, forward and backward: a panel for each cell."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    measured = Measured(found)
    cells = measured.cells()
    drawn, panels = pyplot.subplots(2, 4, figsize=(12, 6), layout="constrained", squeeze=False)
    for axes, cell in zip(panels.flat, cells, strict=False):
        batch = min((point.batch for point in measured.points("both", cell)), key=lambda batch: abs(batch - 32))
        points = sorted(measured.points("both", cell, (batch,)))
        for name, colour in COLOURS.items():
            for precision, style in STYLES.items():
                known = [(point.size, measured.gflops(point, f"{name} {precision}")) for point in points]
                sizes, rates = [size for size, rate in known if rate], [rate for _, rate in known if rate]
                axes.plot(sizes, rates, style, color=colour, marker="" if name == LIMIT else ".")
        axes.set_title(f"{cell}, B {batch}")
        axes.set_xscale("log", base=2)
        axes.set_xticks([point.size for point in points], [str(point.size) for point in points])
        axes.set(xlabel="H", ylabel="GFLOP/s")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(panels.flat)[len(cells) :]:
        axes.set_axis_off()
    known_names = measured.names()
    lines = [
        Line2D([], [], color=colour, linestyle=style, label=f"{name} {precision}")
        for name, colour in COLOURS.items()
        for precision, style in STYLES.items()
        if f"{name} {precision}" in known_names
    ]
    panels.flat[-1].legend(handles=lines, loc="center", frameon=False)
    drawn.savefig(file, metadata={"Date": None})
