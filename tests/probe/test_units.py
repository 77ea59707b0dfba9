"""Units that follow what they were made to follow; and features of texts where they can be counted by eye."""

from __future__ import annotations

import numpy as np
import pytest

from throughtime.probe.features import FEATURES, follow
from throughtime.probe.units import score


@pytest.mark.parametrize(
    ("feature", "text", "wanted"),
    [
        ("inside quotes", 'a "b" c', "0011000"),
        ("inside quotes", "a “b” c", "0011000"),
        ("inside quotes", 'a "b\n\nc', "0011100"),
        ("depth of brackets", "a(b[c])d)e", "0112210000"),
        ("depth of brackets", "((\n\nx", "12200"),
        ("position in the line", "ab\ncd", "12012"),
        ("position in the word", "ab_1 c", "123401"),
        ("position in the sentence", "a. b", "1201"),
        ("indentation of the line", "  a b\n c", "12222011"),
        ("at a line's leading spaces", "  a b\n c", "11000110"),
        ("the word ends here", "ab c, d", "0101001"),
        ("a line end follows", "ab\nc", "0100"),
        ("space", "a b\n", "0100"),
        ("line end", "a b\n", "0001"),
        ("letter", "a1é", "101"),
        ("vowel", "aEb", "110"),
        ("upper case", "aEb", "010"),
        ("digit", "a1", "01"),
        ("mark", "a,_ ", "0110"),
    ],
)
def test_features(feature, text, wanted):
    assert "".join(str(int(value)) for value in FEATURES[feature](text)) == wanted


def test_a_token_has_the_value_of_its_last_character():
    assert follow(["ab", "", "c d", "\n"])["position in the word"].tolist() == [2, 2, 1, 0]
    assert follow(["ab", "", "c d", "\n"])["position in the line"].tolist() == [2, 2, 5, 0]
    assert follow(["", ""]) == {}


def units_on(tokens: str, seed: int = 0):
    """Noise in 50 units; unit 7 knows quotes, unit 9 the place in the line, upside down."""
    features = follow(list(tokens))
    values_TU = np.random.default_rng(seed).normal(size=(len(tokens), 50)).astype(np.float32)
    values_TU[:, 7] = np.tanh(2 * features["inside quotes"] - 1) + 0.1 * values_TU[:, 7]
    values_TU[:, 9] = -0.01 * features["position in the line"]
    return features, values_TU


def written(words: int, seed: int = 0) -> str:
    """Words of any length, in quotes and lines of any length: nothing comes back after a fixed while."""
    draw = np.random.default_rng(seed)
    pieces = [
        "".join(draw.choice(list("abcdefgh"), draw.integers(1, 9))) + draw.choice(list(' "\n.'), p=[0.7, 0.1, 0.1, 0.1])
        for _ in range(words)
    ]
    return "".join(pieces)


TEXT = written(900)


def test_planted_units_are_found():
    features, values_TU = units_on(TEXT)
    scores = score(values_TU, features)
    assert scores.features[0] == "position in the line"
    assert scores.best(0, 3)[0] == 9
    assert scores.r_FU[0, 9] == pytest.approx(-1, abs=1e-5)
    quotes = scores.features.index("inside quotes")
    assert scores.best(quotes, 1) == [7]
    assert scores.r_FU[quotes, 7] > 0.95
    assert scores.chance_F[quotes] < 0.2


def test_r_is_pearson_s_on_the_weaker_half():
    features, values_TU = units_on(TEXT)
    scores = score(values_TU, features)
    half, row = len(TEXT) // 2, scores.features.index("space")
    halves = [
        np.corrcoef(features["space"][part], values_TU[part, 3])[0, 1] for part in (slice(half), slice(half, None))
    ]
    weaker = min(halves, key=abs) if halves[0] * halves[1] > 0 else 0
    assert scores.r_FU[row, 3] == pytest.approx(weaker, abs=1e-5)


def test_what_one_half_suggests_the_other_must_confirm():
    features, values_TU = units_on(TEXT)
    half = len(TEXT) // 2
    values_TU[half:, 7] *= -1
    scores = score(values_TU, features)
    assert scores.best(scores.features.index("inside quotes"), 5) == []
    assert scores.r_FU[scores.features.index("inside quotes"), 7] == 0


def test_noise_follows_nothing():
    features, values_TU = units_on(TEXT, seed=1)
    values_TU[:, [7, 9]] = 0
    scores = score(values_TU, features)
    assert sum(len(scores.best(row, 5)) for row in range(len(scores.features))) <= 2
    assert not scores.r_FU[:, [7, 9]].any()


@pytest.mark.parametrize("text", ["", "a", "ab", "aaaaaaaa"])
def test_a_text_that_says_nothing(text):
    scores = score(np.zeros((len(text), 3), np.float32), follow(list(text)))
    assert all(scores.best(row, 5) == [] for row in range(len(scores.features)))
