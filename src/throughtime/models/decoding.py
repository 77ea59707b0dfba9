"""From a model to text: P(y | o) = exp(o[y]) / sum exp(o), one token after the other, the state carried."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from throughtime.errors import ThroughtimeError
from throughtime.models.language import LanguageModel
from throughtime.text.separator import Separator
from throughtime.text.tokenizer import Tokenizer


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str = "",
    tokens: int = 200,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    separator: str = "",
) -> Iterator[str]:
    """Text that follows the prompt, as it comes; the prompt itself is not repeated.

    Args:
        model: predicts.
        tokenizer: the one the model was trained with.
        prompt: read first; empty: the model begins a document or a line (`text.prompt.opening_of`).
        tokens: how many to draw.
        temperature: the logits are divided by it; 0 takes the likeliest token.
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the fewest likeliest tokens whose probabilities sum to p.
        seed: same seed, same text; None: another text each time.
        separator: text after which a document ends and the state is reset; empty: none.

    Raises:
        ThroughtimeError: where a setting is out of range, the prompt cannot be encoded, or the model has diverged.
    """
    if tokens < 0 or temperature < 0:
        raise ThroughtimeError(f"tokens and temperature must not be negative, got {tokens} and {temperature:g}")
    if top_k is not None and top_k < 1:
        raise ThroughtimeError(f"top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ThroughtimeError(f"top_p must be above 0 and at most 1, got {top_p:g}")
    ids = tokenizer.opening(prompt, separator)
    documents = Separator(tokenizer.pieces, separator.encode())
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    drawn = _draw(model, ids, documents, tokens, tokenizer.unknown, generator, temperature, top_k, top_p)
    return tokenizer.decode_stream(drawn)


@torch.no_grad()
def _draw(
    model: LanguageModel,
    ids: list[int],
    documents: Separator,
    tokens: int,
    unknown: int | None,
    generator: torch.Generator,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> Iterator[int]:
    matched = np.zeros(1, np.int64)
    reset_TB = torch.from_numpy(documents.starts(np.array(ids)[:, None], matched)).bool()
    logits_TBV, state = model(torch.tensor(ids)[:, None], None, reset_TB)
    logits_V = logits_TBV[-1, 0]
    for left in range(tokens, 0, -1):
        if unknown is not None:
            logits_V[unknown] = -torch.inf  # there is no text for it
        if logits_V.isnan().any() or logits_V.max() == torch.inf:
            raise ThroughtimeError("the model gives logits that are not finite; nothing can be drawn from them")
        drawn = _choose(logits_V, generator, temperature, top_k, top_p)
        yield drawn
        if left > 1:
            if documents.starts(np.array([[drawn]]), matched).any():
                state = model.initial_state(1)
            logits_BV, state = model.step(torch.tensor([drawn]), state)
            logits_V = logits_BV[0]


def _choose(
    logits_V: Tensor, generator: torch.Generator, temperature: float, top_k: int | None, top_p: float | None
) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    likely, order = torch.sort((logits_V.double() / temperature).softmax(0), descending=True)
    if top_k is not None:
        likely = likely[:top_k]
    if top_p is not None:
        before = likely.cumsum(0) / likely.sum() - likely / likely.sum()
        likely = likely[before < top_p]
    return int(order[torch.multinomial(likely, 1, generator=generator)])
