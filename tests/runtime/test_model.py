"""A model that runs is the model that was trained, and text comes out of it as it was asked for."""

from __future__ import annotations

import codecs
import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from helpers import damaged, model_folder
from throughtime import cells, runtime, states
from throughtime import folder as folders
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.models.saved import save_model
from throughtime.runtime.state import State

TEXT = "the cat sat on the mat,\nand the hat fell flat; who saw thé rat?\n"


def folder_of(path, tokens="char", **values):
    """With weights wide enough apart that its text is no noise."""
    return model_folder(path, TEXT, tokens, spread=0.2, **values)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("model") / "lstm", hidden_size=24, layers=2)[0]


def complaint(work):
    """What it is refused with; empty where it is done."""
    try:
        work()
    except ThroughtimeError as error:
        return str(error)
    return ""


def write(model, *arguments, **options):
    return "".join(model.generate(*arguments, **options))


@pytest.mark.parametrize(
    ("shape"),
    [
        {"hidden_size": 33},
        {"hidden_size": 16, "layers": 3},
        {"hidden_size": 20, "tied": True, "layers": 2},
        {"hidden_size": 7, "embedding_size": 11},
        {"hidden_size": [16, 33, 20], "tied": True},
        {"hidden_size": [7, 24], "embedding_size": 11},
    ],
    ids=str,
)
@pytest.mark.parametrize("cell", cells.names())
def test_it_is_the_model_that_was_trained(cell, shape, tmp_path):
    place, trained = folder_of(tmp_path / "model", cell=cell, **shape)
    running = runtime.load(place)
    ids_TB = np.random.default_rng(0).integers(running.vocabulary_size, size=(12, 3))
    logits, state = running.feed(ids_TB[:5], running.initial_state(3))
    more, state = running.feed(ids_TB[5:11], state)
    last, state = running.step(ids_TB[11], state)
    with torch.no_grad():
        wanted, _ = trained(torch.from_numpy(ids_TB))
    np.testing.assert_allclose(np.concatenate([logits, more, last[None]]), wanted, atol=1e-5)


def test_a_step_leaves_the_state_it_began_with(model):
    start = model.initial_state(2)
    before = states.copy(start.arrays)
    one, after = model.step([3, 4], start)
    again, _ = model.step([3, 4], start)
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(start.arrays, before)
    branched, _ = model.step([5, 6], State.from_bytes(after.to_bytes()).select([1, 1]))
    one_lane, _ = model.step([5], after.select([1]))
    np.testing.assert_allclose(branched[:1], one_lane, atol=1e-6)


def test_a_score_is_the_surprise_of_every_token_but_the_first(model):
    text = TEXT * 3
    score = model.score(text)
    ids = model.tokenizer.encode(text).astype(np.int64)
    logits, _ = model.feed(ids[:-1, None], model.initial_state())
    wanted = torch.nn.functional.cross_entropy(torch.tensor(logits[:, 0]), torch.tensor(ids[1:]), reduction="none")
    np.testing.assert_allclose(score.bits, wanted.numpy() / np.log(2), rtol=1e-4)
    np.testing.assert_array_equal(score.ids, ids)
    assert score.perplexity == pytest.approx(2 ** (score.total_bits / len(score.bits)))
    assert len(model.score("").bits) == len(model.score("a").bits) == 0


@pytest.mark.parametrize("cuts", [[], [1], [5, 6, 700], [512, 513]])
def test_a_text_may_come_in_blocks(model, cuts):
    ids = np.tile(model.tokenizer.encode(TEXT).astype(np.int64), 20)
    fresh = np.zeros(len(ids), bool)
    fresh[[0, 100, 700]] = True
    blocks = itertools.pairwise([0, *cuts, len(ids)])
    found = np.concatenate(list(model.surprise((ids[a:b], fresh[a:b]) for a, b in blocks)))
    whole = np.concatenate([
        part for a, b in ((0, 100), (100, 700), (700, len(ids)))
        for part in model.surprise([(ids[a : b + 1], None)])
    ])  # fmt: skip
    np.testing.assert_allclose(found, whole, rtol=1e-4)


def test_same_seed_same_text_whatever_the_chunks(model, monkeypatch):
    one, same, other = (write(model, "the ", 90, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    assert write(model, "the ", 90) != write(model, "the ", 90)
    for longest in (1, 3, 1000):
        monkeypatch.setattr(runtime.lanes, "LONGEST_CHUNK", longest)
        assert write(model, "the ", 90, seed=1) == one


def test_temperature_zero_takes_the_likeliest(model):
    ids = model.tokenizer.encode("the").tolist()
    for _ in range(6):
        logits, _ = model.read(ids)
        logits[model.tokenizer.unknown] = -np.inf
        ids.append(int(logits.argmax()))
    assert write(model, "the", 6, temperature=0) == model.tokenizer.decode(ids[3:])


def test_text_ends_before_a_stop_string(model):
    whole = write(model, "the ", 200, seed=3)
    for stop in ([whole[20:23]], ["never there", whole[20:22], whole[60:63]]):
        cut = min(whole.find(text) for text in stop if text in whole)
        assert write(model, "the ", 200, seed=3, stop=stop) == whole[:cut]
    assert write(model, "the ", 200, seed=3, stop=["never there"]) == whole


def test_text_is_made_of_what_is_allowed(model):
    assert set(write(model, "the ", 80, characters="abc ")) <= set("abc ")
    with pytest.raises(SettingError, match="no token of the model is made of what is allowed"):
        model.generate("the ", characters="ZQ")
    assert "<unk>" not in write(model, "a", 300, seed=0, temperature=5.0)


def test_words_that_are_allowed(tmp_path):
    model = runtime.load(folder_of(tmp_path / "words", "word", hidden_size=8)[0])
    text = write(model, "the cat", 30, words=["cat", "hat", "\n"])
    assert set(text.split()) <= {"cat", "hat"}
    with pytest.raises(SettingError, match="words should be several strings, got the string 'cat'"):
        model.generate(words="cat")


def drawn_bytes(model, prompt, count, seed):
    """The bytes of the tokens that a text of this seed is made of."""
    ids = model.prompt_ids(prompt)
    logits_V, state = model.read(ids)
    sampler = runtime.Choice(seed=seed).sampler(model.network, None)
    drawn_TB = model.network.generate(logits_V[None, None].copy(), states.copy(state.arrays), [sampler], count)
    return model.tokenizer.decode_bytes(drawn_TB[:, 0].tolist())


def test_bytes_that_are_no_character_yet_wait(tmp_path, monkeypatch):
    """Of the two bytes of é alone, in any order: each pair is one character, and only what stays alone is replaced."""
    place, trained = folder_of(tmp_path / "bytes", "byte", hidden_size=8)
    with torch.no_grad():
        trained.b_o[list("é".encode())] += 100
    save_model(place, trained, {})
    model = runtime.load(place)
    drawn = write(model, "thé", 300, seed=0)
    content = drawn_bytes(model, "thé", 300, seed=0)
    assert drawn == content.decode("utf-8", "replace")
    assert set(drawn) == {"é", "\N{REPLACEMENT CHARACTER}"}
    monkeypatch.setattr(runtime.lanes, "LONGEST_CHUNK", 1)  # so that every é is cut in two
    assert write(model, "thé", 300, seed=0) == drawn
    byte_by_byte = runtime.Streams(model)
    key = byte_by_byte.join("thé", seed=0)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    assert [byte_by_byte.write(1)[key] for _ in range(300)] == [decoder.decode(bytes([byte])) for byte in content]


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -1.0), ("top_k", 0), ("top_p", 0.0), ("top_p", 1.1), ("min_p", 2.0), ("max_tokens", -1),
     ("repetition_penalty", 0.0), ("seed", -1), ("temperature", float("nan"))],
)  # fmt: skip
def test_settings_out_of_range(model, name, value):
    with pytest.raises(ThroughtimeError, match=f"{name} must .*{value:g}"):
        model.generate("a", **{name: value})
    with pytest.raises(SettingError, match="a stop string must not be empty"):
        model.generate("a", stop=["x", ""])


def test_no_tokens_no_text(model):
    assert write(model, "a", 0) == ""


def test_states_and_ids_that_do_not_fit(model):
    state = model.initial_state(2)
    with pytest.raises(ThroughtimeError, match="a state of 3 lanes is needed"):
        model.step([1, 2, 3], state)
    with pytest.raises(ThroughtimeError, match="the state is of model other"):
        model.step([1, 2], State(state.arrays, "other"))
    with pytest.raises(ThroughtimeError, match=r"id (999 )?is not in a vocabulary"):
        model.step([1, 999], state)
    with pytest.raises(ThroughtimeError, match="ids should be whole numbers, got float64"):
        model.step([1.0, 2.0], state)
    with pytest.raises(ThroughtimeError, match="ids should have shape"):
        model.feed([1, 2], state)
    with pytest.raises(ThroughtimeError, match="wanted must be 0 to 1, the steps there are, got 2"):
        model.feed([[1, 2]], state, wanted=2)


def test_a_long_prompt_is_read_in_pieces(model, monkeypatch):
    ids = model.tokenizer.encode(TEXT * 4)
    whole, state = model.read(ids)
    monkeypatch.setattr(runtime.model, "STEPS_AT_ONCE", 7)
    pieces, same = model.read(ids)
    np.testing.assert_allclose(pieces, whole, atol=1e-6)
    np.testing.assert_allclose(same.arrays, state.arrays, atol=1e-6)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_folder_is_refused_or_runs(place, tmp_path_factory, data):
    """Whatever byte is wrong or missing: one line, or a model that writes text."""
    name = data.draw(st.sampled_from(["model.safetensors", "model.json", "tokenizer.json"]))
    content = (place / name).read_bytes()
    # What is read first decides most: half of the damage is done there.
    at = data.draw(st.one_of(st.integers(0, min(len(content), 900) - 1), st.integers(0, len(content) - 1)))
    folder = shutil.copytree(place, tmp_path_factory.mktemp("damaged") / "model")
    (folder / name).write_bytes(damaged(data, content, at))
    refusal = complaint(lambda: write(runtime.load(folder), "", 5, seed=0))
    assert "\n" not in refusal


def test_a_model_that_is_too_large_to_be_true(place, tmp_path):
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    description = json.loads((place / "model.json").read_text())
    for size, said in ((1 << 24, "should be F32 of shape"), (10**12, "model: hidden_size: Input should be less than")):
        description["model"]["hidden_size"] = size
        (tmp_path / "model.json").write_text(json.dumps(description))
        with pytest.raises(ThroughtimeError, match=said):
            runtime.load(tmp_path)
    description["model"] |= {"hidden_size": 24, "layers": 10**9}
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(ThroughtimeError, match="layers"):
        runtime.load(tmp_path)


def test_a_folder_of_int8(place, tmp_path):
    trained = runtime.load(place)
    wanted = runtime.parts.shapes(trained.settings, trained.vocabulary_size)
    found = folders.read_weights(place, wanted)
    for name in ("model.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    folders.write_weights(tmp_path, found.arrays, "int8")
    assert (tmp_path / "model.safetensors").stat().st_size < 0.45 * (place / "model.safetensors").stat().st_size
    small = runtime.load(tmp_path)
    assert small.network.weights == "int8"
    assert small.digest != trained.digest
    again = folders.read_weights(tmp_path, wanted)
    for name, array in again.arrays.items():
        np.testing.assert_allclose(array, found.arrays[name], atol=np.abs(found.arrays[name]).max() / 250)
    text = TEXT * 4
    assert small.score(text).total_bits == pytest.approx(trained.score(text).total_bits, rel=0.01)
    whole = load_file(tmp_path / "model.safetensors")
    save_file({name: array for name, array in whole.items() if name != "W_o.scale"}, tmp_path / "model.safetensors")
    with pytest.raises(ThroughtimeError, match=r"lacks array W_o\.scale"):
        runtime.load(tmp_path)
    save_file(whole | {"W_o.scale": whole["W_o.scale"][:-1]}, tmp_path / "model.safetensors")
    with pytest.raises(ThroughtimeError, match=r"W_o\.scale .* should be F32 of shape"):
        runtime.load(tmp_path)


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_smaller_weights_change_little(place, weights):
    small, whole = runtime.load(place, weights), runtime.load(place)
    text = TEXT * 4
    assert small.score(text).total_bits == pytest.approx(whole.score(text).total_bits, rel=0.02)
