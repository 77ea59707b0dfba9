"""Generation: the seed decides, the limits hold, the state is carried."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from throughtime.errors import ThroughtimeError
from throughtime.models.decoding import _choose, generate
from throughtime.models.language import LanguageModel
from throughtime.models.settings import Model
from throughtime.text.settings import Text
from throughtime.text.tokenizer import fit


@pytest.fixture(scope="module")
def tokenizer():
    return fit(Text(tokens="char"), ["abcdefé\n".encode()])


@pytest.fixture(scope="module")
def model(tokenizer):
    return LanguageModel(Model(hidden_size=8), tokenizer.vocabulary_size, torch.Generator().manual_seed(0))


def write(model, tokenizer, *arguments, **options):
    return "".join(generate(model, tokenizer, *arguments, **options))


def test_same_seed_same_text(model, tokenizer):
    one, same, other = (write(model, tokenizer, "ab", 50, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    assert len(one) == 50
    assert write(model, tokenizer, "ab", 50) != write(model, tokenizer, "ab", 50)


def test_temperature_zero_takes_the_likeliest(model, tokenizer):
    ids = tokenizer.encode("abc").tolist()
    with torch.no_grad():
        for _ in range(5):
            logits_TBV, _ = model(torch.tensor(ids)[:, None])
            logits_TBV[-1, 0, tokenizer.unknown] = -torch.inf
            ids.append(int(logits_TBV[-1, 0].argmax()))
    assert write(model, tokenizer, "abc", 5, temperature=0) == tokenizer.decode(ids[3:])


def test_the_unknown_token_is_never_written(model, tokenizer):
    assert "<unk>" not in write(model, tokenizer, "a", 500, seed=0, temperature=5.0)


def test_draws_follow_the_probabilities_that_the_limits_leave():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    generator = torch.Generator().manual_seed(0)

    def shares(temperature=1.0, top_k=None, top_p=None):
        drawn = Counter(_choose(logits, generator, temperature, top_k, top_p) for _ in range(4000))
        return [drawn[index] / 4000 for index in range(4)]

    assert shares() == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=0.03)
    assert shares(top_k=2) == pytest.approx([4 / 7, 3 / 7, 0, 0], abs=0.03)
    assert shares(top_p=0.6) == pytest.approx([4 / 7, 3 / 7, 0, 0], abs=0.03)
    assert shares(top_p=0.75) == pytest.approx([4 / 9, 3 / 9, 2 / 9, 0], abs=0.03)
    assert shares(top_p=1e-9) == [1, 0, 0, 0]
    assert shares(temperature=0.5) == pytest.approx([16 / 30, 9 / 30, 4 / 30, 1 / 30], abs=0.03)


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", -1.0), ("top_k", 0), ("top_p", 0.0), ("top_p", 1.1), ("tokens", -1)]
)
def test_settings_out_of_range(model, tokenizer, name, value):
    with pytest.raises(ThroughtimeError, match=f"{name}.*{value:g}"):
        generate(model, tokenizer, "a", **{name: value})


def test_no_tokens_no_text(model, tokenizer):
    assert write(model, tokenizer, "a", 0) == ""
