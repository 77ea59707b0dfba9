"""Streams join and leave; what each writes is what it would have written alone. And beams find the likeliest text."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from throughtime import engine, runtime
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.models.language import LanguageModel
from throughtime.models.saved import save_model
from throughtime.models.settings import Model
from throughtime.runtime import Streams, search
from throughtime.text.settings import Text
from throughtime.text.tokenizer import fit

TEXT = "the cat sat on the mat, and the rat ate it.\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "gru"
    tokenizer = fit(Text(), [TEXT.encode()])
    trained = LanguageModel(
        Model(cell="gru", hidden_size=40), tokenizer.vocabulary_size, torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        trained.W_o *= 6
    save_model(place, trained, {})
    (place / "tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
    return place


@pytest.fixture(scope="module")
def model(place):
    return runtime.load(place)


@pytest.mark.skipif(engine.level() is None, reason="NumPy's products depend on their size in the last bit")
def test_a_stream_writes_what_it_would_write_alone(model):
    prompts = ["the ", "", "a cat", "on the mat, and the "]
    alone = ["".join(model.generate(prompt, 60, seed=index, temperature=1.2)) for index, prompt in enumerate(prompts)]
    streams, texts = Streams(model), {}
    keys = {}
    for index, prompt in enumerate(prompts):  # each joins when those before it are on their way
        keys[index] = streams.join(prompt, seed=index, temperature=1.2)
        texts[keys[index]] = ""
        for key, piece in streams.write(5).items():
            texts[key] += piece
    while streams:
        for key, piece in streams.write(3).items():
            texts[key] += piece
        for key in streams.keys:
            if len(texts[key]) >= 60:
                streams.leave(key)
    for index in range(len(prompts)):
        assert texts[keys[index]][:60] == alone[index][:60]


def test_a_state_goes_from_stream_to_stream(model):
    streams = Streams(model)
    first = streams.join("the cat ", seed=3)
    streams.write(7)
    kept = streams.state(first)
    again, branch = streams.join(",", seed=5, state=kept), streams.join(",", seed=5, state=kept)
    written = streams.write(20)
    assert written[again] == written[branch]
    left = streams.leave(first)
    assert left.batch_size == 1
    assert len(streams) == 2
    with pytest.raises(ThroughtimeError, match=r"there is no stream 0; there are \[1, 2\]"):
        streams.leave(first)
    assert Streams(model).write(3) == {}


def every_text(model, prompt, tokens, letters):
    """All texts of that many tokens with their nats: the plain way."""
    found = {}
    for ids in itertools.product(model.tokenizer.encode(letters).tolist(), repeat=tokens):
        whole = [*model.tokenizer.opening(prompt), *ids]
        logits, _ = model.feed(np.array(whole[:-1])[:, None], model.initial_state())
        nats = cross_entropy(torch.tensor(logits[:, 0]), torch.tensor(whole[1:]), reduction="none")
        found[model.tokenizer.decode(ids)] = float(nats[-tokens:].sum())
    return found


def test_beams_that_are_wide_enough_find_the_best(model):
    nats = every_text(model, "th", 4, "aet ")
    wanted = sorted(nats, key=nats.__getitem__)[:3]
    found = search(model, "th", 4, beams=64, best=3, characters="aet ")
    assert [text.text for text in found] == wanted
    assert [text.nats for text in found] == pytest.approx([nats[text] for text in wanted], rel=1e-4)


def test_one_beam_takes_the_likeliest_token_each_time(model):
    greedy = "".join(model.generate("the ", 12, temperature=0))
    assert search(model, "the ", 12, beams=1)[0].text == greedy


def test_a_text_ends_before_its_stop_string(model):
    found = search(model, "the ", 30, beams=6, best=4, stop=["t"])
    assert all("t" not in text.text for text in found)
    assert len({text.text for text in found}) == len(found)
    assert [text.score for text in found] == sorted((text.score for text in found), reverse=True)


@pytest.mark.skipif(engine.level() is None, reason="there are no kernels here")
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"beams": 1},
        {"beams": 7, "best": 7, "stop": ["at", "e "]},
        {"beams": 5, "best": 3, "stop": ["the cat", "n"], "length_penalty": 1.0},
        {"beams": 30, "best": 2, "stop": ["\n"], "length_penalty": 0.6, "characters": "aeht \n"},
        {"beams": 3, "best": 3, "characters": "a", "max_tokens": 5},
        {"beams": 40, "best": 40, "max_tokens": 1},
    ],
)
def test_both_twins_search_alike(model, place, monkeypatch, how):
    how = {"max_tokens": 30, **how}
    found = search(model, "the ", **how)
    monkeypatch.setattr(engine, "network", lambda _: None)
    wanted = search(runtime.load(place), "the ", **how)
    assert [text.text for text in found] == [text.text for text in wanted]
    assert 1 <= len(found) <= how.get("best", 1)
    for one, other in zip(found, wanted, strict=True):
        assert (one.nats, one.score) == pytest.approx((other.nats, other.score), rel=1e-4)
        np.testing.assert_allclose(one.state.arrays, other.state.arrays, atol=1e-4)
    beginning = search(model, "the ", **how)
    assert [(one.text, one.nats) for one in beginning] == [(one.text, one.nats) for one in found]


def test_a_search_leaves_the_state_after_the_last_token(model):
    found = search(model, "the ", 9, beams=4)[0]
    _, state = model.read(model.tokenizer.opening("the " + found.text))
    np.testing.assert_allclose(found.state.arrays, state.arrays, atol=1e-5)


def every_ending(model, prompt, tokens, letters, stop):
    """All texts of these letters that end with the stop or after so many tokens, with their nats and tokens."""
    found = {}
    for count in range(1, tokens + 1):
        last = letters if count == tokens else stop
        for text in itertools.product(*[letters.replace(stop, "")] * (count - 1), last):
            whole = [*model.tokenizer.opening(prompt), *model.tokenizer.encode("".join(text)).tolist()]
            logits, _ = model.feed(np.array(whole[:-1])[:, None], model.initial_state())
            nats = cross_entropy(torch.tensor(logits[:, 0]), torch.tensor(whole[1:]), reduction="none")[-count:]
            found["".join(text).removesuffix(stop)] = float(nats.sum()), count
    return found


def test_a_penalty_for_length_orders_texts_by_their_penalised_scores(model):
    endings, orders = every_ending(model, "th", 4, "aet ", "t"), []
    for power in (0.0, 0.7, 2.5):
        scores = {text: -nats / ((5 + count) / 6) ** power for text, (nats, count) in endings.items()}
        wanted = sorted(scores, key=scores.__getitem__, reverse=True)[:6]
        found = search(model, "th", 4, beams=200, best=6, characters="aet ", stop=["t"], length_penalty=power)
        assert [text.text for text in found] == wanted
        assert [text.score for text in found] == pytest.approx([scores[text] for text in wanted], rel=1e-4)
        assert [text.nats for text in found] == pytest.approx([endings[text][0] for text in wanted], rel=1e-4)
        orders.append(wanted)
    assert orders[0] != orders[1] != orders[2], "the model makes no difference between the penalties"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beams": 0}, "beams must be at least 1 and best 1 to beams, got 0 and 1"),
        ({"beams": 2, "best": 3}, "got 2 and 3"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"length_penalty": -1.0}, "length_penalty must not be negative, got -1"),
        ({"stop": [""]}, "a stop string must not be empty"),
    ],
)
def test_settings_out_of_range(model, change, message):
    with pytest.raises(SettingError, match=message):
        search(model, "the ", **change)
