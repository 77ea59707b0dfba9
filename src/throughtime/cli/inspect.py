"""`throughtime inspect`: what a network does with a text, in a page to look at."""

from __future__ import annotations

from pathlib import Path

import click

from throughtime.cli.output import new_file, sum_up
from throughtime.cli.run_argument import encoding_option, import_option, open_text, run_argument, text_argument
from throughtime.cli.streams import say_error, say_json

REPORT = "report.html"


@click.command("inspect", short_help="Show what a network does with a text.")
@run_argument
@text_argument
@encoding_option
@import_option
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="The page; default: RUN/report.html.")
@click.option("--force", is_flag=True, help="Write over whatever FILE is, not over an older report alone.")
@click.option("--json", "as_json", is_flag=True, help="The figures as one JSON object on standard output.")
def command(run: Path, text: str | None, encoding: str | None, out: Path | None, force: bool, as_json: bool) -> None:
    """Let the model in RUN (a run or model folder) read TEXT, or what the run held out, and show what it does.

    The report is one HTML file, to be read offline: what surprises the network, which past tokens it goes by, what its
    units follow, how far back its gradients reach, and what its state does when left to itself.
    """
    import torch

    from throughtime.folder import WEIGHTS
    from throughtime.models.saved import load
    from throughtime.probe import summary
    from throughtime.probe.inspection import inspect
    from throughtime.probe.report.html import is_report, journal_of, render

    # Most of the work is many small products, which gain little from a second thread; and threads that wait for one
    # another lose much where they have to share the processor.
    torch.set_num_threads(1)
    loaded = load(run)
    name, ids = open_text(loaded, text, encoding)
    out = out or run / REPORT
    sources: list[Path | str] = [loaded.folder / WEIGHTS, *([text] if text else [])]
    with new_file(out, force or is_report(out), sources) as file:
        found = inspect(loaded, name, ids)
        page = render(found).encode()
        file.write(page)
    journal = journal_of(found)
    for note in [*(journal.notes if journal else ()), *([found.omission] if found.omission else [])]:
        say_error(note)
    if as_json:
        say_json(summary.as_json(found))
        return
    sum_up(out, [*summary.lines(found), f"report: {out} ({len(page) / 1e6:.1f} MB)"])
