"""`throughtime generate`: text from a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from throughtime.cli.run_argument import run_argument, utf8, weights_option
from throughtime.cli.streams import say, say_text

ONLY_BY_KERNELS = ("min_p", "repetition_penalty", "stop", "characters")


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
def command(run: Path, prompt: str, tokens: int, weights: str | None, **choice: Any) -> None:
    """Write text with the model in RUN (a run or model folder), as it comes."""
    from throughtime import runtime
    from throughtime.runtime.network import NoKernelError

    try:
        pieces = runtime.load(run, weights).generate(prompt, tokens, **choice)
    except NoKernelError:
        if weights is not None:
            raise
        pieces = _by_pytorch(run, prompt, tokens, choice)
    say_text(prompt)
    for piece in pieces:
        say_text(piece)
    say()


def _by_pytorch(run: Path, prompt: str, tokens: int, choice: dict[str, Any]) -> Iterator[str]:
    """What a model writes whose cell has no kernel."""
    from throughtime import folder as folders
    from throughtime.errors import SettingError
    from throughtime.models.decoding import generate
    from throughtime.text import tokenizer as tokenizers
    from throughtime.training.run import load_model

    place = folders.find(run)
    tokenizer = tokenizers.load(place.home / folders.TOKENIZER)
    model = load_model(place.folder, tokenizer.vocabulary_size, tokenizer.fingerprint)
    described = folders.read_description(place.folder, tokenizer.vocabulary_size)
    usual = {option.name: option.default for option in command.params}
    for name in ONLY_BY_KERNELS:
        if (given := choice.pop(name)) and given != usual[name]:
            raise SettingError(
                f"the cell {model.settings.cell!r} has no kernel; PyTorch writes without --{name.replace('_', '-')}; "
                "leave it out"
            )
    return generate(model, tokenizer, prompt, tokens, separator=folders.separator_of(place, described), **choice)
