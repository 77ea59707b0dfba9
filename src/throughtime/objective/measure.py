"""How good a model is on a text: sums and counts in float64, divided once.

Perplexity depends on what a token is. Bits per byte of the original text does not: it stands beside every perplexity
here. What a tokeniser hides behind its unknown token is not free: each unknown token is charged what it would take to
spell it, 8 bits for each byte it hides and 8 for the end. So the bits per byte always belong to the whole text.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from throughtime.text.ids import Facts

SPELLING_BITS = 8


class Measure(NamedTuple):
    """A measured text. Lengths leave out the first token, which nothing predicts."""

    nats: float
    """Sum of -log P over the predicted tokens."""
    tokens: int
    """Predicted tokens."""
    bytes: int
    """Bytes of text that they stand for."""
    characters: int | None
    """Characters of text that they stand for; None where the text is not UTF-8."""
    spelled_bits: int
    """Bits charged for what unknown tokens hide."""
    unknown: int
    """Predicted tokens that the vocabulary lacks."""
    reading: str = ""
    """How the text was read, such as `64 lanes`; empty for an estimate."""
    kind: str = "token"
    """What a token is, such as `char`."""

    @property
    def score(self) -> float:
        return self.nats_per_token

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """The exponential of the nats per token; infinite where float64 cannot hold it."""
        return math.exp(self.nats_per_token) if self.nats_per_token < 709 else math.inf

    @property
    def bits(self) -> float:
        """Bits that the predicted text takes."""
        return self.nats / math.log(2) + self.spelled_bits

    @property
    def bits_per_char(self) -> float | None:
        return None if self.characters is None else self.bits / self.characters

    @property
    def bits_per_byte(self) -> float:
        return self.bits / self.bytes

    def as_dict(self) -> dict[str, Any]:
        """The figures by their names."""
        figures = ("tokens", "bytes", "nats_per_token", "perplexity", "bits_per_char", "bits_per_byte")
        found = {name: getattr(self, name) for name in figures} | {"unknown_share": self.unknown / self.tokens}
        return found | ({"reading": self.reading} if self.reading else {})

    def line(self) -> str:
        """The figures in a line."""
        return (
            f"{self.nats_per_token:.4f} nats/token, perplexity {self.perplexity:.3f} per {self.kind}, "
            f"{self.bits_per_byte:.4f} bits per byte"
        )


def measure(nats: float, tokens: int, facts: Facts) -> Measure:
    """The measure of a whole tokenised text, from the sum of -log P (nats) over its `tokens` predicted tokens."""
    unknown = facts.unknown - facts.first_unknown
    hidden = facts.hidden_bytes - (facts.first_bytes if facts.first_unknown else 0)
    return Measure(
        nats=nats,
        tokens=tokens,
        bytes=facts.bytes - facts.first_bytes,
        characters=None if facts.characters is None else facts.characters - facts.first_characters,
        spelled_bits=SPELLING_BITS * (hidden + unknown),
        unknown=unknown,
    )
