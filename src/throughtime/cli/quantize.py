"""`throughtime quantize`: a smaller model folder."""

from __future__ import annotations

import os
from pathlib import Path

import click

from throughtime.cli.output import permissions
from throughtime.cli.run_argument import encoding_option, open_run, open_text, run_argument, text_argument
from throughtime.cli.streams import say_in_the_end


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
    from throughtime.runtime.parts import read_parts
    from throughtime.runtime.predictor import NetworkPredictor
    from throughtime.untrusted import read_file

    out = out or run / "int8"
    taken = ThroughtimeError(f"{out} is there already; name another folder with --out")
    if os.path.lexists(out):
        raise taken
    parts = read_parts(run)
    place, found = parts.place, parts.weights
    before = open_run(run)
    name, ids = open_text(before, text, encoding)
    copied = [place.folder / folders.DESCRIPTION, place.home / folders.TOKENIZER, place.home / folders.RECIPE]
    try:
        with new_folder(out) as partial:
            folders.write_weights(partial, found.arrays, "int8", permissions([place.folder / folders.WEIGHTS]))
            for path in copied:
                if path.exists():
                    write_file(partial / path.name, [read_file(path)], permissions([path]))
    except (FileExistsError, NotADirectoryError):
        raise taken from None
    except OSError as error:
        if os.path.lexists(out):  # somebody else made it meanwhile
            raise taken from None
        raise ThroughtimeError(f"cannot write {out}: {error.strerror}") from None
    after = open_run(out)
    perplexities = [evaluate(NetworkPredictor(opened.model.network), ids).perplexity for opened in (before, after)]
    lines = []
    for what, opened, perplexity in zip((found.held, "int8"), (before, after), perplexities, strict=True):
        size = (opened.folder / folders.WEIGHTS).stat().st_size
        lines.append(f"{what:<8}{size:>14,} bytes   perplexity {perplexity:.4f} on {name}")
    say_in_the_end([*lines, f"{'':<8}{perplexities[1] / perplexities[0] - 1:>+14.3%}", f"model:  {out}"])
