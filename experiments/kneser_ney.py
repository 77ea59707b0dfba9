"""A modified Kneser-Ney n-gram over bytes: what the learning curves of `data.py` are measured against.

Source: Chen & Goodman, "An empirical study of smoothing techniques for language modeling" (1999), section 3: of an
n-gram's count c > 0 in its context, D(c) is taken (one discount each for 1, 2, and 3 or more) and given to the next
shorter context; below the longest n-grams, counts are of the different bytes that precede an n-gram.

Axes: T place in the text, G distinct n-grams, C distinct contexts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BYTES = 256
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where the counts of counts do not give any (few distinct n-grams)."""

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


class Grams(NamedTuple):
    """The distinct n-grams of one length in a text."""

    keys_G: Int64
    """Of each, ascending: 256 times the number of its context among the n-grams one shorter, plus its last byte."""
    context_G: Int64
    suffix_G: Int64
    """Of each: the number of what is left without its first byte, among the n-grams one shorter."""
    counts_G: Int64
    at_T: Int64
    """The number of the n-gram that ends at each place; -1 where the text has none."""


def bits_by_order(training: bytes, held_out: bytes, longest: int) -> list[float]:
    """Bits per byte of all but the first byte of a text, of the models of order 1 to `longest`."""
    found = []
    shorter_T = np.full(len(held_out), 1 / BYTES)
    ids_T = np.zeros(len(held_out), np.int64)
    orders = _count(training, longest)
    for order, grams in enumerate(orders):
        ids_T, contexts_T = _look_up(grams, held_out, ids_T)
        last_T = _smoothed(grams, grams.counts_G, ids_T, contexts_T, shorter_T)
        found.append(float(-np.log2(last_T[1:]).mean()))
        if order + 1 < longest:
            preceded_G = np.bincount(orders[order + 1].suffix_G, minlength=len(grams.keys_G))
            # What only begins the text is preceded by nothing, and still was there.
            shorter_T = _smoothed(grams, np.maximum(preceded_G, 1), ids_T, contexts_T, shorter_T)
    return found


def _count(text: bytes, longest: int) -> list[Grams]:
    """The n-grams of length 1 to `longest`. The empty one, number 0, is the context of all bytes."""
    bytes_T = np.frombuffer(text, np.uint8).astype(np.int64)
    found: list[Grams] = []
    before_T = np.zeros(len(text), np.int64)
    for length in range(1, longest + 1):
        contexts_T = _moved(before_T, length > 1)
        first = length - 1
        keys_G, at_T, counts_G = np.unique(
            contexts_T[first:] * BYTES + bytes_T[first:], return_inverse=True, return_counts=True
        )
        suffix_G = np.zeros(len(keys_G), np.int64)
        suffix_G[at_T] = before_T[first:]
        before_T = np.concatenate([np.full(first, -1), at_T])
        found.append(Grams(keys_G, keys_G // BYTES, suffix_G, counts_G, before_T))
    return found


def _look_up(grams: Grams, text: bytes, shorter_T: Int64) -> tuple[Int64, Int64]:
    """At each place of another text, the numbers of the n-gram that ends there and of its context; -1: never seen.

    Args:
        shorter_T: the same of the n-grams one shorter.
    """
    bytes_T = np.frombuffer(text, np.uint8).astype(np.int64)
    contexts_T = _moved(shorter_T, grams.at_T[0] < 0)
    keys_T = contexts_T * BYTES + bytes_T
    place_T = np.minimum(np.searchsorted(grams.keys_G, keys_T), len(grams.keys_G) - 1)
    known_T = (contexts_T >= 0) & (grams.keys_G[place_T] == keys_T)
    return np.where(known_T, place_T, -1), contexts_T


def _moved(ids_T: Int64, move: bool) -> Int64:
    """What ends one place before; for single bytes that is the empty n-gram everywhere."""
    return np.concatenate([[-1], ids_T[:-1]]) if move else ids_T


def _smoothed(grams: Grams, counts_G: Int64, ids_T: Int64, contexts_T: Int64, shorter_T: Float64) -> Float64:
    """P of the byte at each place (equation 23 of the source), from that by the shorter context."""
    discounts = np.array([0.0, *_discounts(counts_G)])
    contexts = int(grams.context_G.max()) + 1
    discounted_G = counts_G - discounts[np.minimum(counts_G, 3)]
    total_C = np.bincount(grams.context_G, counts_G, contexts)
    kept_C = np.bincount(grams.context_G, discounted_G, contexts)
    # A context that only ends the text is followed by nothing, and says nothing.
    usable_T = (contexts_T >= 0) & (contexts_T < contexts)
    usable_T[usable_T] = total_C[contexts_T[usable_T]] > 0
    context_T = np.where(usable_T, contexts_T, 0)
    own_T = np.where(ids_T >= 0, discounted_G[ids_T], 0.0)
    total_T = np.where(usable_T, total_C[context_T], 1.0)
    mixed_T = (own_T + (total_C - kept_C)[context_T] * shorter_T) / total_T
    return np.where(usable_T, mixed_T, shorter_T)


def _discounts(counts_G: Int64) -> tuple[float, float, float]:
    """Of counts 1, 2, and 3 or more (equation 26 of the source)."""
    n1, n2, n3, n4 = (int((counts_G == count).sum()) for count in (1, 2, 3, 4))
    if not (n1 and n2 and n3 and n4):
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
    return found if all(0 < d <= c for c, d in enumerate(found, 1)) else FALLBACK
