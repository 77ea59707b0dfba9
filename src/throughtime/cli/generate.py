"""`throughtime generate`: text from a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from throughtime.cli.run_argument import import_option, load_model, run_argument, utf8, weights_option
from throughtime.cli.streams import say, say_text


@click.command("generate", short_help="Write text with a model.")
@run_argument
@click.option(
    "--prompt", metavar="P", callback=utf8, default="", help="Text to go on from; default: the beginning of a line."
)
@click.option("--tokens", metavar="N", default=500, show_default=True, help="How many tokens to write.")
@click.option("--temperature", metavar="X", default=1.0, show_default=True, help="Below 1 is safer; 0 the likeliest.")
@click.option("--top-k", metavar="K", type=int, help="Draw from the K likeliest tokens only.")
@click.option("--top-p", metavar="P", type=float, help="Draw from the likeliest tokens that sum to P only.")
@click.option(
    "--min-p", metavar="P", type=float, help="Draw from tokens of at least P times the likeliest one's share."
)
@click.option("--repetition-penalty", metavar="X", default=1.0, show_default=True, help="Above 1: repeat less.")
@click.option("--stop", metavar="TEXT", callback=utf8, multiple=True, help="End before this text; may be repeated.")
@click.option("--characters", metavar="SET", callback=utf8, help="Write with these characters only.")
@click.option("--seed", metavar="S", type=int, help="Same seed, same text.")
@weights_option
@import_option
def command(run: Path, prompt: str, tokens: int, weights: str | None, **choice: Any) -> None:
    """Write text with the model in RUN (a run or model folder), as it comes."""
    pieces = load_model(run, weights).generate(prompt, tokens, **choice)
    say_text(prompt)
    for piece in pieces:
        say_text(piece)
    say()
