"""`throughtime compress`: a file by a model's own predictions."""

from __future__ import annotations

import time
from pathlib import Path

import click

from throughtime.cli.output import new_file, sum_up
from throughtime.cli.run_argument import weights_option

SUFFIX = ".tt"


@click.command("compress", short_help="Compress a file by a model's predictions.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-m", "--model", "run", metavar="RUN", required=True, type=click.Path(path_type=Path), help="The model.")
@click.option("-o", "--out", metavar="OUT", type=click.Path(path_type=Path), help=f"Default: FILE with {SUFFIX} added.")
@click.option("--adapt/--no-adapt", default=True, show_default=True, help="Learn from the file while it is read.")
@click.option("--force", is_flag=True, help="Write over OUT.")
@weights_option
def command(file: Path, run: Path, out: Path | None, adapt: bool, force: bool, weights: str | None) -> None:
    """Compress FILE, without loss, by what the model in RUN predicts.

    The model should be one of bytes or byte pairs (train --tokens byte or bpe). `throughtime decompress` needs the same
    model, and kernels of the same level.
    """
    from throughtime import runtime
    from throughtime.runtime.compression import compress

    model = runtime.load(run, weights)
    out = out or file.with_name(file.name + SUFFIX)
    began = time.perf_counter()
    with file.open("rb") as source, new_file(out, force, [file]) as target:
        sizes = compress(model, source, target, adapt)
    seconds = time.perf_counter() - began
    bits = 8 * sizes.compressed / sizes.content if sizes.content else 0.0
    speed = sizes.content / seconds / 1e3
    line = f"{out}: {sizes.content:,} to {sizes.compressed:,} bytes, {bits:.3f} bits a byte, {speed:,.0f} kB/s"
    sum_up(out, [line])
