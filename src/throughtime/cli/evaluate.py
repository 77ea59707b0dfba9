"""`throughtime evaluate`: how good a model is on a text."""

from __future__ import annotations

from pathlib import Path

import click

from throughtime.cli.run_argument import (
    encoding_option,
    import_option,
    open_run,
    open_text,
    run_argument,
    text_argument,
    weights_option,
)
from throughtime.cli.streams import say, say_json


@click.command("evaluate", short_help="Measure a model on a text.")
@run_argument
@text_argument
@encoding_option
@click.option("--lanes", metavar="N", type=click.IntRange(min=1), help="Parts read at once; default: by length.")
@weights_option
@import_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(
    run: Path, text: str | None, encoding: str | None, lanes: int | None, weights: str | None, as_json: bool
) -> None:
    """Measure the model in RUN (a run or model folder) on TEXT, or on what the run held out.

    Every token but the first is predicted once, with the state carried through the whole text. The figures do not
    depend on --lanes, only the time does. Bits per byte are of the text, whatever a token is: where the vocabulary
    lacks a token, spelling it is charged.
    """
    opened = open_run(run, weights)
    name, ids = open_text(opened, text, encoding)

    from throughtime.objective.evaluation import evaluate
    from throughtime.runtime.predictor import NetworkPredictor

    found, kind = evaluate(NetworkPredictor(opened.model.network), ids, lanes), opened.tokenizer.kind
    if as_json:
        say_json({"text": name, **found.as_dict()})
        return
    say(f"{name}: {found.tokens:,} tokens of {kind}, {found.bytes:,} bytes, read in {found.reading}")
    say(f"nats per token  {found.nats_per_token:.6f}")
    say(f"perplexity      {found.perplexity:.6f} per {kind}")
    if found.bits_per_char is not None:
        say(f"bits per char   {found.bits_per_char:.6f}")
    say(f"bits per byte   {found.bits_per_byte:.6f}")
    if found.unknown:
        say(f"unknown         {found.unknown / found.tokens:.3%} of the tokens; their spelling is in the bits")
