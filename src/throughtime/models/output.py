"""From hidden units to the nats of the targets, with no more than a chunk of logits in memory.

With p = softmax(W h + b), for each token and its nats = -log p[target]:

    d nats / d logits = p - onehot(target) = slope
    d nats / d h = W^T slope        d nats / d W = slope h^T        d nats / d b = slope

Axes: N token, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from throughtime.cells import transforms
from throughtime.errors import ThroughtimeError
from throughtime.streams.batch import NO_TARGET

LOGITS_AT_ONCE = 1 << 24
"""Entries of logits held at once (64 MB of float32). With fewer, the products grow slim, and every chunk is added to
the whole gradient of W."""


def target_nats(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    """-log softmax(W h + b)[target] of each token (nats_N); 0, without gradient, where the target is NO_TARGET.

    Where there are more than LOGITS_AT_ONCE logits, the gradient cannot be differentiated again (RuntimeError). Under a
    transformation of PyTorch (`cells.transforms`) all logits are made at once.

    Raises:
        ThroughtimeError: where the targets are not whole numbers, one for each row of `hidden_NH`.
        IndexError: where a target is neither NO_TARGET nor in the vocabulary.
    """
    if targets_N.dtype != torch.int64 or targets_N.shape != hidden_NH.shape[:1]:
        raise ThroughtimeError(
            f"targets_N should be int64 of shape {list(hidden_NH.shape[:1])}, got {targets_N.dtype} of shape "
            f"{list(targets_N.shape)}"
        )
    if transforms.active() or len(targets_N) * len(weight_VH) <= LOGITS_AT_ONCE:
        logits_NV = linear(hidden_NH, weight_VH, bias_V)
        return cross_entropy(logits_NV, targets_N, ignore_index=NO_TARGET, reduction="none")
    if not targets_N.is_meta:
        wrong_N = ((targets_N < 0) & (targets_N != NO_TARGET)) | (targets_N >= len(weight_VH))
        if wrong_N.any():
            raise IndexError(f"Target {targets_N[wrong_N][0]} is out of bounds.")
    if not torch.is_grad_enabled():
        return _sweep(hidden_NH, weight_VH, bias_V, targets_N)[0]
    nats_N: Tensor = _Chunked.apply(hidden_NH, weight_VH, bias_V, targets_N)
    return nats_N


@final
class _Chunked(torch.autograd.Function):
    """Makes the gradients with the nats, while a chunk's logits are there: those of the sum of all nats.

    A sum or a mean has one upstream gradient for all tokens: the way back only scales by it. For any other, and for a
    second way back through a retained graph, the logits are made again: one matrix product more, and the two for the
    gradients anew.
    """

    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, targets_N)
        ones_N = (targets_N != NO_TARGET).to(hidden_NH.dtype)
        nats_N, ctx.ahead = _sweep(hidden_NH, weight_VH, bias_V, targets_N, ones_N, ctx.needs_input_grad)
        return nats_N

    @staticmethod
    def backward(ctx: Any, upstream_N: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph=True: a gradient made from chunks of logits cannot be differentiated again; "
                "read fewer tokens at once, or raise throughtime.models.output.LOGITS_AT_ONCE"
            )
        hidden_NH, weight_VH, bias_V, targets_N = ctx.saved_tensors
        counted_N = targets_N != NO_TARGET
        values = upstream_N[counted_N].unique()
        # Kept no longer: scaled in place, they become the parameters' .grad without a copy.
        gradients, ctx.ahead = ctx.ahead, None
        if gradients is not None and len(values) <= 1:
            return *(None if gradient is None else gradient.mul_(values.sum()) for gradient in gradients), None
        del gradients
        upstream_N = upstream_N.where(counted_N, 0)
        return *_sweep(hidden_NH, weight_VH, bias_V, targets_N, upstream_N, ctx.needs_input_grad)[1], None


def _sweep(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor,
    targets_N: Tensor,
    upstream_N: Tensor | None = None,
    needed: Sequence[bool] = (False, False, False),
) -> tuple[Tensor, list[Tensor | None]]:
    """The nats_N, and of hidden, weight and bias those gradients of `upstream_N @ nats_N` that are needed."""
    arrays = (hidden_NH, weight_VH, bias_V)
    gradients = [torch.zeros_like(array) if need else None for array, need in zip(arrays, needed, strict=False)]
    d_hidden_NH, d_weight_VH, d_bias_V = gradients
    nats_N = hidden_NH.new_empty(len(targets_N))
    rows = max(1, LOGITS_AT_ONCE // len(weight_VH))
    chunk_NV = hidden_NH.new_empty(rows, len(weight_VH))
    for start in range(0, len(targets_N), rows):
        here = slice(start, start + rows)
        h_NH, target_N1 = hidden_NH[here], targets_N[here, None].clamp(min=0)
        logits_NV = torch.addmm(bias_V, h_NH, weight_VH.T, out=chunk_NV[: len(h_NH)])
        log_p_NV = torch.log_softmax(logits_NV, 1, out=logits_NV)
        log_p_N1 = log_p_NV.gather(1, target_N1)
        nats_N[here] = -log_p_N1[:, 0]
        if upstream_N is None:
            continue
        # exp(log p), which is p, but at the target exp(log p) - 1
        slope_NV = log_p_NV.exp_().scatter_(1, target_N1, log_p_N1.expm1())
        up_N1 = upstream_N[here, None]
        if d_hidden_NH is not None:
            torch.mm(slope_NV, weight_VH, out=d_hidden_NH[here]).mul_(up_N1)
        if d_weight_VH is not None:
            d_weight_VH.addmm_(slope_NV.T, h_NH * up_N1)
        if d_bias_V is not None:
            d_bias_V.addmv_(slope_NV.T, up_N1[:, 0])
    return nats_N.masked_fill_(targets_N == NO_TARGET, 0), gradients
