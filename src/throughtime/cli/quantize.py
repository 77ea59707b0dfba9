"""`throughtime quantize`: a smaller model folder."""

from __future__ import annotations

from pathlib import Path

import click

from throughtime.cli.run_argument import encoding_option, open_run, open_text, run_argument, text_argument


@click.command("quantize", short_help="Make a smaller model folder.")
@run_argument
@text_argument
@encoding_option
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Default: RUN/int8.")
def command(run: Path, text: str | None, encoding: str | None, out: Path | None) -> None:
    """Write the model in RUN with int8 weights, a quarter of the size.

    Both are measured on TEXT, or on what the run held out.

    The new folder has a tokeniser and a recipe of its own: it is all that another machine needs.
    """
    from throughtime import folder as folders
    from throughtime.durable import new_folder, write_file
    from throughtime.errors import ThroughtimeError
    from throughtime.objective.evaluation import evaluate
    from throughtime.runtime.model import read_parts

    out = out or run / "int8"
    if out.exists():
        raise ThroughtimeError(f"{out} is there already; name another folder with --out")
    place, _, _, found = read_parts(run)
    before = open_run(run)
    name, ids = open_text(before, text, encoding)
    copied = [place.folder / folders.DESCRIPTION, place.home / folders.TOKENIZER, place.home / folders.RECIPE]
    with new_folder(out) as partial:
        folders.write_weights(partial, found.arrays, "int8")
        for path in copied:
            if path.exists():
                write_file(partial / path.name, [path.read_bytes()])
    after = open_run(out)
    perplexities = [evaluate(opened.model.network, ids).perplexity for opened in (before, after)]
    for what, opened, perplexity in zip((found.held, "int8"), (before, after), perplexities, strict=True):
        size = (opened.folder / folders.WEIGHTS).stat().st_size
        click.echo(f"{what:<8}{size:>14,} bytes   perplexity {perplexity:.4f} on {name}")
    click.echo(f"{'':<8}{perplexities[1] / perplexities[0] - 1:>+14.3%}")
    click.echo(f"model:  {out}")
