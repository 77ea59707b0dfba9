"""What the experiments share: runs that are made once, tables, and the page they are written into.

An experiment's page in docs/experiments is prose by hand around one block that its script writes, between two comment
lines. The runs lie in runs/experiments/; a run that is there is not made again, so an experiment can be broken off.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import throughtime
from throughtime.durable import make_folder, replace_file
from throughtime.machine import processor, usable_threads
from throughtime.training.display import Lines
from throughtime.training.journal import Journal

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "experiments"
RUNS = ROOT / "runs" / "experiments"
VALID, TEST = 20_000, 50_000
"""Bytes at the end of Tiny Shakespeare."""
BEGIN, END = "<!-- written by the script: begin -->", "<!-- written by the script: end -->"


def arguments(description: str | None, reads_data: bool = True, **defaults: Any) -> argparse.Namespace:
    """The command line of an experiment: an option for each default, and where the data lie, if it reads any."""
    parser = argparse.ArgumentParser(description=description)
    if reads_data:
        parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the data folder")
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"default: {value}")
    parsed = parser.parse_args()
    if reads_data and not parsed.data.is_dir():
        sys.exit(f"there is no data folder {parsed.data}; name it with --data")
    return parsed


def shakespeare(options: argparse.Namespace) -> tuple[bytes, bytes, bytes]:
    """Tiny Shakespeare: what there is to train on, and small texts from its end to validate and to test on."""
    text: bytes = (options.data / "text" / "shakespeare.txt").read_bytes()
    held_out = VALID + TEST
    return text[:-held_out], text[-held_out:-TEST], text[-TEST:]


def excerpt(name: str, text: bytes) -> str:
    """A file of that text, for a recipe."""
    path = RUNS / "texts" / f"{name}.txt"
    make_folder(path.parent)
    replace_file(path, text)
    return str(path)


def outcome(name: str, recipe: Mapping[str, Any], train: Callable[..., object] = throughtime.train) -> dict[str, Any]:
    """Train a recipe, unless it was before; how the run ended, by the names of its journal."""
    folder = RUNS / name
    journal = Journal(folder / "journal.jsonl")
    if not (folder / "card.md").exists():
        if folder.exists():
            sys.exit(f"{folder} was broken off; remove it and start again")
        print(f"== {name}", flush=True)
        train(recipe, folder, Lines())
    begin, end = next(journal.read("begin")), next(journal.read("end"))
    read = list(journal.read("train"))[-1]["tokens"]
    return {**end, "parameters": begin["parameters"], "tokens_read": read, "journal": journal}


def once(name: str, make: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    """The figures that `make` finds for what it is given, unless they were found before."""
    path = RUNS / f"{name}.json"
    if not path.exists():
        print(f"== {name}", flush=True)
        found = json.dumps(make(*given))
        make_folder(path.parent)
        replace_file(path, found.encode())
    figures: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return figures


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, its first column to the left."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]


@contextmanager
def figure(page: str, xlabel: str, ylabel: str) -> Iterator[Any]:
    """The axes of a page's picture, which is saved at the end of the block."""
    with panels(page, 1, xlabel, ylabel) as (axes,):
        yield axes


@contextmanager
def panels(name: str, count: int, xlabel: str, ylabel: str) -> Iterator[list[Any]]:
    """The axes of a picture, three abreast, with one legend beside them; it is saved at the end of the block."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    rows, columns = -(-count // 3), min(count, 3)
    size = (7, 4) if count == 1 else (3.2 * columns + 1, 2.8 * rows)
    drawn, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for each in axes.flat[count:]:
        each.set_visible(False)
    yield list(axes.flat[:count])
    for number, each in enumerate(axes.flat):
        each.spines[["top", "right"]].set_visible(False)
        each.set(xlabel=xlabel if number // columns == rows - 1 else "", ylabel="" if number % columns else ylabel)
    if count == 1:
        axes.flat[0].legend(frameon=False)
    else:
        drawn.legend(*axes.flat[0].get_legend_handles_labels(), frameon=False, loc="outside right upper")
    drawn.savefig(PAGES / f"{name}.svg")
    pyplot.close(drawn)


def publish(page: str, lines: Sequence[str]) -> None:
    """Put the lines into the page's block."""
    path = PAGES / f"{page}.md"
    before, _, rest = path.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    command = f"python experiments/{Path(sys.argv[0]).name}"
    block = [BEGIN, "", *lines, "", f"Made by `{command}` on {processor()[0]}, {usable_threads()} cores.", "", END]
    path.write_text(before + "\n".join(block) + after, "utf-8")
    print(f"written: {path}")
