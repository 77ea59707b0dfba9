"""`throughtime score`: what surprised a model, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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
from throughtime.cli.streams import say, say_error, say_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from throughtime.text.ids import TokenIds

BLOCK = 1 << 16
"""Tokens read at once."""


@click.command("score", short_help="Show how much each token surprises a model.")
@run_argument
@text_argument
@encoding_option
@weights_option
@import_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(run: Path, text: str | None, encoding: str | None, weights: str | None, as_json: bool) -> None:
    """Show the surprise of every token of TEXT (or of what the run held out) to the model in RUN, in bits.

    The first token has none: nothing precedes it. With --json the tokens joined are the text; where a character is
    made of several, all of it is with the last of them.
    """
    opened = open_run(run, weights)
    name, ids = open_text(opened, text, encoding)

    import numpy as np

    bits = np.concatenate(list(opened.model.surprise(_blocks(ids))))
    indices = ids.read(0, len(ids)).tolist()
    if as_json:
        *tokens, rest = opened.model.tokenizer.decode_stream(indices)
        tokens[-1] += rest
        scores = [None, *(round(value, 6) for value in bits.tolist())]
        say_json({"text": name, "tokens": tokens, "bits": scores, "total_bits": float(bits.sum())})
        return
    pieces = [opened.model.tokenizer.pieces[index] for index in indices]
    for piece, score in zip(pieces, ["-", *(f"{value:.3f}" for value in bits.tolist())], strict=True):
        say(f"{score:>8}  {_shown(piece)}")
    say_error(f"{bits.sum():.3f} bits in {len(bits):,} tokens, {bits.mean():.3f} a token")


def _shown(piece: bytes) -> str:
    """A token as Python would write it: as text, or as bytes where it is a part of a character."""
    try:
        return repr(piece.decode())
    except UnicodeDecodeError:
        return repr(piece)


def _blocks(ids: TokenIds) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """The ids, and where documents begin."""
    import numpy as np

    for start in range(0, len(ids), BLOCK):
        block = ids.read(start, min(start + BLOCK, len(ids)))
        fresh = np.zeros(len(block), np.bool_)
        fresh[ids.documents_within(start, start + len(block))] = True
        yield block, fresh
