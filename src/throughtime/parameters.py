"""Names and shapes of a language model's parameters: the one description that training and the runtime read."""

from __future__ import annotations

from typing import NamedTuple

from throughtime.models.settings import Model

EMBEDDING, OUTPUT, BIAS = "embedding", "W_o", "b_o"
"""The embedding [V, D], the output layer's matrix [V, H] and its bias [V]."""


class LayerSizes(NamedTuple):
    """A layer of the stack."""

    prefix: str
    """Beginning of its parameters' names."""
    input_size: int
    hidden_size: int


def layers(settings: Model) -> list[LayerSizes]:
    """The layers, from the input up."""
    inputs = [settings.embedding_width, *settings.widths]
    return [
        LayerSizes(f"stack.cells.{level}.", below, width)
        for level, (below, width) in enumerate(zip(inputs, settings.widths, strict=False))
    ]


def outer(settings: Model, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """The parameters outside the stack. Tied, the embedding is the output layer's matrix too."""
    found: dict[str, tuple[int, ...]] = {EMBEDDING: (vocabulary_size, settings.embedding_width)}
    if not settings.tied:
        found[OUTPUT] = (vocabulary_size, settings.widths[-1])
    return found | {BIAS: (vocabulary_size,)}
