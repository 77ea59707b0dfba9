"""`throughtime decompress`: what `compress` wrote, back to what it was."""

from __future__ import annotations

from pathlib import Path

import click

from throughtime.cli.compress import SUFFIX
from throughtime.cli.output import new_file, sum_up


@click.command("decompress", short_help="Bring back what was compressed.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-m", "--model", "run", metavar="RUN", required=True, type=click.Path(path_type=Path), help="The model.")
@click.option("-o", "--out", metavar="OUT", type=click.Path(path_type=Path), help=f"Default: FILE without {SUFFIX}.")
@click.option("--force", is_flag=True, help="Write over OUT.")
def command(file: Path, run: Path, out: Path | None, force: bool) -> None:
    """Bring back what `throughtime compress` made of a file, by the same model.

    Every block is checked; OUT appears when all of them are right, or not at all.
    """
    from throughtime import runtime
    from throughtime.runtime.compression import decompress, read_header
    from throughtime.untrusted import open_regular

    if out is None and file.suffix != SUFFIX:
        raise click.UsageError(f"{file} does not end in {SUFFIX}: name the file to write with --out")
    out, size = out or file.with_suffix(""), 0
    with open_regular(file) as source:
        weights = read_header(source).weights
        source.seek(0)
        with new_file(out, force, [file]) as target:
            for content in decompress(runtime.load(run, weights), source):
                size += target.write(content)
    sum_up(out, [f"{out}: {size:,} bytes"])
