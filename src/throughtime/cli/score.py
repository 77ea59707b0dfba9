"""`throughtime score`: what surprised a model, token by token."""

from __future__ import annotations

import json
from pathlib import Path

import click

from throughtime.cli.run_argument import open_run, open_text, run_argument, text_argument


@click.command("score", short_help="Show how much each token surprises a model.")
@run_argument
@text_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(run: Path, text: str | None, as_json: bool) -> None:
    """Show the surprise of every token of TEXT (or of what the run held out) to the model in RUN, in bits.

    The first token has none: nothing precedes it.
    """
    loaded = open_run(run)
    name, ids = open_text(loaded, text)

    from throughtime.training.evaluation import surprise

    bits = surprise(loaded.model, ids)
    tokens = [loaded.tokenizer.decode([index]) for index in ids.read(0, len(ids)).tolist()]
    if as_json:
        scores = [None, *(round(value, 6) for value in bits.tolist())]
        click.echo(json.dumps({"text": name, "tokens": tokens, "bits": scores, "total_bits": float(bits.sum())}))
        return
    for token, score in zip(tokens, ["-", *(f"{value:.3f}" for value in bits.tolist())], strict=True):
        click.echo(f"{score:>8}  {token!r}")
    click.echo(f"{bits.sum():.3f} bits in {len(bits):,} tokens, {bits.mean():.3f} a token", err=True)
