"""`throughtime generate`: text from a model."""

from __future__ import annotations

from pathlib import Path

import click

from throughtime.cli.run_argument import open_run, run_argument


@click.command("generate", short_help="Write text with a model.")
@run_argument
@click.option("--prompt", metavar="P", default="", help="Text to go on from; default: the beginning of a line.")
@click.option("--tokens", metavar="N", default=500, show_default=True, help="How many tokens to write.")
@click.option("--temperature", metavar="X", default=1.0, show_default=True, help="Below 1 is safer; 0 the likeliest.")
@click.option("--top-k", metavar="K", type=int, help="Draw from the K likeliest tokens only.")
@click.option("--top-p", metavar="P", type=float, help="Draw from the likeliest tokens that sum to P only.")
@click.option("--seed", metavar="S", type=int, help="Same seed, same text.")
def command(
    run: Path,
    prompt: str,
    tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
) -> None:
    """Write text with the model in RUN (a run or model folder), as it comes."""
    loaded = open_run(run)

    from throughtime.models.decoding import generate

    pieces = generate(
        loaded.model,
        loaded.tokenizer,
        prompt,
        tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    click.echo(prompt, nl=False)
    for piece in pieces:
        click.echo(piece, nl=False)
    click.echo()
