"""The figures of a text, from hand-made sums and counts."""

import math

import pytest

from throughtime.objective.measure import Measure, measure
from throughtime.text.ids import Facts


def facts(**values) -> Facts:
    plain = {
        "text": "",
        "tokenizer": "",
        "bytes": 13,
        "characters": 9,
        "unknown": 0,
        "hidden_bytes": 0,
        "first_bytes": 3,
        "first_characters": 1,
        "first_unknown": False,
        "exact": True,
    }
    return Facts(**plain | values)


def test_figures_without_unknown_tokens():
    """Five predicted tokens at a probability of 1/4 are 10 bits, over the 10 bytes behind the first token."""
    measured = measure(5 * math.log(4), 5, facts())
    assert (measured.tokens, measured.bytes, measured.characters, measured.spelled_bits) == (5, 10, 8, 0)
    assert measured.perplexity == pytest.approx(4)
    assert measured.nats_per_token == pytest.approx(math.log(4))
    assert measured.bits_per_byte == pytest.approx(1)
    assert measured.bits_per_char == pytest.approx(10 / 8)


def test_an_unknown_token_pays_for_its_spelling():
    """Two unknown tokens that hide 5 bytes cost 8 bits a byte and 8 for each end: 56 bits beside the 10."""
    measured = measure(5 * math.log(4), 5, facts(unknown=2, hidden_bytes=5, exact=False))
    assert measured.spelled_bits == 56
    assert measured.perplexity == pytest.approx(4)
    assert measured.bits == pytest.approx(66)
    assert measured.bits_per_byte == pytest.approx(6.6)
    assert measured.bits_per_char == pytest.approx(66 / 8)


def test_figures_by_name():
    assert measure(5 * math.log(4), 5, facts(unknown=2, hidden_bytes=5)).as_dict() == pytest.approx(
        {
            "tokens": 5,
            "bytes": 10,
            "nats_per_token": math.log(4),
            "perplexity": 4,
            "bits_per_char": 66 / 8,
            "bits_per_byte": 6.6,
            "unknown_share": 0.4,
        }
    )


def test_a_text_that_is_no_utf8_has_no_figure_per_character():
    assert measure(math.log(2), 1, facts(characters=None)).bits_per_char is None


def test_a_perplexity_that_float64_cannot_hold_is_infinite():
    assert Measure(1418.0, 2, 2, 2, 0, 0).perplexity == math.inf
    assert Measure(1416.0, 2, 2, 2, 0, 0).perplexity == pytest.approx(math.exp(708))


def test_an_unknown_first_token_costs_nothing():
    """Nothing predicts it, so neither its bytes nor its spelling count."""
    first, second = (facts(unknown=2, hidden_bytes=5, first_unknown=unknown, exact=False) for unknown in (True, False))
    assert measure(0.0, 5, first).spelled_bits == 8 * (2 + 1)
    assert measure(0.0, 5, second).spelled_bits == 8 * (5 + 2)
