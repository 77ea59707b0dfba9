"""The n-gram of the experiments beside its equations, written out with dictionaries; Chen & Goodman 1999, section 3."""

from __future__ import annotations

import importlib
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
LONGEST = 4
TRAINING, HELD_OUT = (
    bytes(np.random.default_rng(seed).choice(list(b"aaaabbbcd \n"), size).tolist())
    for seed, size in ((0, 600), (1, 80))
)


@pytest.fixture(scope="module")
def kneser_ney():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return importlib.import_module("kneser_ney")


def probability(text: bytes, order: int, context: bytes, byte: int) -> float:
    """P(byte | context) by the n-grams of length 1 to `order` of a text."""
    smoothed = 1 / 256
    for length in range(1, order + 1):
        before = context[len(context) - length + 1 :] if length > 1 else b""
        if len(before) < length - 1:
            break
        grams = {text[i : i + length] for i in range(len(text) - length + 1)}
        if length == order:
            counts = Counter(text[i : i + length] for i in range(len(text) - length + 1))
        else:
            preceding = defaultdict(set)
            for i in range(1, len(text) - length + 1):
                preceding[text[i : i + length]].add(text[i - 1])
            counts = {gram: max(1, len(preceding[gram])) for gram in grams}
        n1, n2, n3, n4 = (sum(count == n for count in counts.values()) for n in (1, 2, 3, 4))
        discounts = (0.5, 1.0, 1.5)
        if n1 and n2 and n3 and n4:
            y = n1 / (n1 + 2 * n2)
            found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
            discounts = found if all(0 < d <= c for c, d in enumerate(found, 1)) else discounts
        following = {gram: count for gram, count in counts.items() if gram[:-1] == before}
        if not following:
            break
        taken = sum(discounts[min(count, 3) - 1] for count in following.values())
        own = following.get(before + bytes([byte]), 0)
        kept = own - discounts[min(own, 3) - 1] if own else 0
        smoothed = (kept + taken * smoothed) / sum(following.values())
    return smoothed


@pytest.mark.parametrize("order", range(1, LONGEST + 1))
def test_bits_are_those_of_the_equations(kneser_ney, order):
    bits = [
        -math.log2(probability(TRAINING, order, HELD_OUT[max(0, i - order + 1) : i], HELD_OUT[i]))
        for i in range(1, len(HELD_OUT))
    ]
    found = kneser_ney.bits_by_order(TRAINING, HELD_OUT, LONGEST)[order - 1]
    assert found == pytest.approx(np.mean(bits), rel=1e-9)


@pytest.mark.parametrize("context", [b"", b"ab", b"zzz"])
def test_what_follows_a_context_sums_to_one(context):
    total = sum(probability(TRAINING, LONGEST, context, byte) for byte in range(256))
    assert total == pytest.approx(1)
