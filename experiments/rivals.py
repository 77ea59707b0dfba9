"""Two networks without recurrence in plain PyTorch, trained as `throughtime.train` trains: rivals for `data.py`.

Both read bytes and predict the one that follows each, from a context of fixed length.

Axes: B chunk, T time, D embedding, V bytes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, linear, pad, scaled_dot_product_attention

from throughtime.training.budget import learning_rate
from throughtime.training.optimizer import Optimizer, make_optimizer
from throughtime.training.settings import Training

BYTES = 256
CHUNK = 64
"""Bytes predicted at once in training, and the longest context."""
LANES = 8
CLIP_NORM = 1.0


@final
class Feedforward(nn.Module):
    """softmax(V tanh(W [e_(t-15); ...; e_t] + b) + c) (Bengio et al. 2003, without the direct connections)."""

    context = 16

    def __init__(self, embedding: int, hidden: int, dropout: float):
        super().__init__()
        self.embedding = nn.Embedding(BYTES, embedding)
        self.hidden = nn.Linear(self.context * embedding, hidden)
        self.output = nn.Linear(hidden, BYTES)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits_BTV; before the chunk there is nothing, which is zeros."""
        embedded_BTD = pad(self.dropout(self.embedding(ids_BT)), (0, 0, self.context - 1, 0))
        windows_BTX = embedded_BTD.unfold(1, self.context, 1).flatten(2)
        logits_BTV: Tensor = self.output(self.dropout(torch.tanh(self.hidden(windows_BTX))))
        return logits_BTV


@final
class _Block(nn.Module):
    def __init__(self, size: int, heads: int, widening: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_units = nn.LayerNorm(size), nn.LayerNorm(size)
        self.queries_keys_values, self.mixed = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.wide, self.narrow = nn.Linear(size, widening * size), nn.Linear(widening * size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        split = self.queries_keys_values(self.before_attention(x_BTD)).unflatten(2, (3, self.heads, -1))
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        attended_BTD = scaled_dot_product_attention(queries, keys, values, is_causal=True).transpose(1, 2).flatten(2)
        x_BTD = x_BTD + self.dropout(self.mixed(attended_BTD))
        added_BTD: Tensor = self.dropout(self.narrow(gelu(self.wide(self.before_units(x_BTD)))))
        return x_BTD + added_BTD


@final
class Transformer(nn.Module):
    """Causal self-attention over a chunk (Vaswani et al. 2017), normalised before each part, learned positions.

    The output is tied to the embedding, which starts with standard deviation D^-1/2 and is read D^1/2 times as large.
    """

    context = 1

    def __init__(self, size: int, heads: int, blocks: int, widening: int, dropout: float):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(BYTES, size) * size**-0.5)
        self.positions = nn.Parameter(torch.randn(CHUNK, size) * 0.1)
        self.blocks = nn.Sequential(*(_Block(size, heads, widening, dropout) for _ in range(blocks)))
        self.last = nn.LayerNorm(size)
        self.bias = nn.Parameter(torch.zeros(BYTES))
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits_BTV; a prediction sees the chunk up to it."""
        read_BTD = self.embedding[ids_BT] * self.embedding.shape[1] ** 0.5 + self.positions[: ids_BT.shape[1]]
        return linear(self.last(self.blocks(self.dropout(read_BTD))), self.embedding, self.bias)


Network = Feedforward | Transformer


def train(make: Callable[[], Network], texts: dict[str, bytes], training: Training) -> dict[str, Any]:
    """Train on `texts["train"]`, keep the best of the validations on `valid`, and measure it on `test`.

    Optimiser, schedule, bytes a step, clipping, validations and patience are those of `throughtime.train`; a minibatch
    is chunks from anywhere in the text.
    """
    torch.set_num_threads(training.threads)
    torch.manual_seed(training.seed)
    model = make()
    ids = {name: ids_of(text) for name, text in texts.items()}
    parameters = list(model.parameters())
    method = make_optimizer(parameters, training)
    assert training.steps is not None
    best, weights, since_best, read = math.inf, model.state_dict(), 0, 0
    for step in range(training.steps):
        update(model, ids["train"], method, learning_rate(training, step / training.steps))
        read += LANES * CHUNK
        validations = training.validations
        if (step + 1) * validations // training.steps == step * validations // training.steps:
            continue
        bits = bits_per_byte(model, ids["valid"])
        since_best = 0 if bits < best else since_best + 1
        if bits < best:
            best, weights = bits, copy.deepcopy(model.state_dict())
        if 0 < training.patience <= since_best:
            break
    model.load_state_dict(weights)
    return {
        "valid": best,
        "test": bits_per_byte(model, ids["test"]),
        "read": read,
        "parameters": sum(parameter.numel() for parameter in parameters),
    }


def ids_of(text: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(text, np.uint8).astype(np.int64))


def update(model: Network, ids_T: Tensor, method: Optimizer, rate: float) -> None:
    """One step of the optimizer, on chunks from anywhere in a text."""
    _loss(model, ids_T).backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    method.step(rate)
    method.clear_gradients()


def _loss(model: Network, ids_T: Tensor) -> Tensor:
    """Mean nats of a minibatch; each of its predictions has as many bytes before it as the model asks for."""
    lead = model.context - 1
    starts_B = torch.randint(len(ids_T) - lead - CHUNK, (LANES,))
    chunks_BT = ids_T[starts_B[:, None] + torch.arange(lead + CHUNK + 1)]
    return cross_entropy(model(chunks_BT[:, :-1])[:, lead:].flatten(0, 1), chunks_BT[:, lead + 1 :].flatten())


@torch.no_grad()
def bits_per_byte(model: Network, ids_T: Tensor) -> float:
    """Of all but the first byte; each but the first ones is predicted from at least half a chunk before it."""
    model.eval()
    half = CHUNK // 2
    starts_B = torch.arange(0, len(ids_T) - 1 - half, half)
    nats = 0.0
    # The first chunk predicts all of its bytes, every other one its second half.
    for chunk_B, skipped in ((starts_B[:1], 0), *((part_B, half) for part_B in starts_B[1:].split(128))):
        places_BT = chunk_B[:, None] + torch.arange(CHUNK)
        counted_BT = (places_BT < len(ids_T) - 1) & (torch.arange(CHUNK) >= skipped)
        logits_BTV = model(ids_T[places_BT.clamp(max=len(ids_T) - 1)])
        nats += float(cross_entropy(logits_BTV[counted_BT], ids_T[places_BT[counted_BT] + 1], reduction="sum"))
    model.train()
    return nats / math.log(2) / (len(ids_T) - 1)
