"""Arguments of a wrong kind or out of range are refused in a line that names them; whatever is in range works."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from helpers import model_folder
from throughtime import runtime
from throughtime.cli.main import main
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.runtime import State, Streams, search

TEXT = "the cat sat on the mat, and the rat ate it.\n"
HUGE = 10**21
ENDLESS = 10**5000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("m") / "m", TEXT, spread=0.3, hidden_size=16)[0]


def stream(model, prompt="the ", tokens=12, **choice):
    streams = Streams(model)
    key = streams.join(prompt, **choice)
    return streams.write(tokens)[key]


def generate(model, prompt="the ", tokens=12, **choice):
    return "".join(model.generate(prompt, tokens, **choice))


@pytest.mark.parametrize("write", [generate, stream])
@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": 1 << 64}, {"seed": -1}, {"seed": HUGE}, {"seed": -HUGE}, {"seed": ENDLESS}, {"seed": 1.5},
        {"seed": "1"}, {"seed": True}, {"top_k": 2.5}, {"top_k": 0}, {"top_k": -HUGE}, {"top_k": "3"}, {"top_k": [1]},
        {"top_p": 0}, {"top_p": 1.5}, {"top_p": "0.9"}, {"top_p": float("nan")}, {"min_p": -0.1}, {"min_p": 1.1},
        {"min_p": float("nan")}, {"min_p": None, "temperature": None}, {"temperature": "1"}, {"temperature": -1e-9},
        {"temperature": float("inf")}, {"temperature": float("nan")}, {"temperature": ENDLESS}, {"temperature": 1j},
        {"repetition_penalty": 0}, {"repetition_penalty": float("inf")}, {"repetition_penalty": float("nan")},
        {"repetition_penalty": None}, {"characters": 5}, {"characters": ["a", 5]}, {"characters": b"ab"},
        {"characters": "\udc80"}, {"characters": ""}, {"characters": "\u0430"}, {"prompt": None}, {"prompt": b"the"},
        {"prompt": ["the"]}, {"prompt": "a\udcff"}, {"tokens": -1}, {"tokens": 2.5}, {"tokens": "3"}, {"tokens": None},
        {"tokens": HUGE}, {"tokens": float("nan")},
    ],
    ids=lambda wrong: str({name: str(value) if value is not ENDLESS else "..." for name, value in wrong.items()}),
)  # fmt: skip
def test_a_wrong_argument_is_named_in_a_line(model, write, wrong):
    with pytest.raises(ThroughtimeError) as caught:
        write(model, **wrong)
    assert list(wrong)[-1] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "wrong",
    [
        {"stop": 5}, {"stop": ["a", 5]}, {"stop": b"a"}, {"stop": [b"a"]}, {"stop": ""}, {"stop": ["a", ""]},
        {"stop": "\udc80"}, {"characters": 5}, {"characters": ["a", None]}, {"max_tokens": HUGE}, {"max_tokens": 1.5},
        {"max_tokens": -1}, {"prompt": 5},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("write", [search, lambda *one, **more: list(runtime.Model.generate(*one, **more))])
def test_a_wrong_argument_of_what_ends_a_text_is_named(model, write, wrong):
    with pytest.raises(ThroughtimeError, match=next(iter(wrong))) as caught:
        write(model, **wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"beams": HUGE}, {"beams": 2.5}, {"beams": "2"}, {"best": HUGE}, {"best": 1.0}, {"beams": -HUGE},
        {"length_penalty": float("nan")}, {"length_penalty": 1e308}, {"length_penalty": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_argument_of_a_search_is_named(model, wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        search(model, "the ", **wrong)


def test_the_largest_arguments_work(model):
    plain = generate(model, seed=1)
    assert generate(model, seed=1, top_k=HUGE) == generate(model, seed=1, top_k=np.int8(100)) == plain
    assert generate(model, seed=(1 << 64) - 1) == generate(model, seed=np.uint64((1 << 64) - 1))
    assert generate(model, seed=1, temperature=np.float32(1)) == generate(model, seed=1, temperature=1) == plain
    assert len(search(model, "the ", 3, beams=1 << 16, best=1 << 16)) > 1000
    for power in (0, 10.0):
        assert search(model, "the ", 30, beams=3, length_penalty=power)


def test_a_stop_string_may_stand_alone_or_come_from_an_iterator(model):
    whole = generate(model, tokens=60, seed=3)
    stop = whole[20:23]
    cut = whole[: whole.find(stop)]
    for given in (stop, [stop], (stop,), iter([stop]), {stop}, (text for text in [stop])):
        assert generate(model, tokens=60, seed=3, stop=given) == cut
    found = [search(model, "the ", 30, beams=3, stop=stop) for stop in ("at", ["at"], iter(["at"]))]
    assert found[0][0].text == found[1][0].text == found[2][0].text
    assert not found[0][0].text.endswith("a")


def test_characters_may_come_in_several_strings(model):
    text = generate(model, tokens=40, seed=1, characters="aet ")
    for given in (["ae", "t "], iter("aet "), {"a", "e", "t", " "}):
        assert generate(model, tokens=40, seed=1, characters=given) == text
    assert set(text) <= set("aet ")
    assert set(stream(model, tokens=40, seed=1, characters=["ae", "t "])) <= set("aet ")
    assert set(search(model, "the ", 9, characters=["ae", "t "])[0].text) <= set("aet ")


def test_the_error_names_letters_that_look_alike_by_their_code_points(model):
    with pytest.raises(SettingError, match=r"'\u0430' \(U\+0430 CYRILLIC SMALL LETTER A\)"):
        generate(model, characters="\u0430")


@pytest.mark.parametrize("tokens", ["byte", "bpe"])
def test_characters_that_a_model_of_bytes_writes_in_parts_are_refused(tokens, tmp_path):
    model = runtime.load(model_folder(tmp_path / "m", "привет, мир\n", tokens, hidden_size=8)[0])
    for characters in ("\u043f", "abc\u043f"):
        with pytest.raises(SettingError, match=rf"U\+043F.*{tokens} tokens writes it in several tokens"):
            generate(model, "", characters=characters)
        with pytest.raises(SettingError, match=r"U\+043F"):
            search(model, "", characters=characters)
    assert set(generate(model, "", characters="abc")) <= set("abc")


@pytest.mark.parametrize("temperature", [1e-320, 1e-308, 1e-30, 1e30, 1e308, 1.7976931348623157e308])
def test_every_finite_temperature_draws_what_is_allowed(model, temperature):
    text = generate(model, tokens=300, temperature=temperature, seed=0)
    assert "<unk>" not in text
    if temperature > 1:
        assert len(set(text)) == model.vocabulary_size - 1  # each about as often as the others
    else:
        assert text == generate(model, tokens=300, temperature=0)
    letters = generate(model, tokens=200, temperature=temperature, seed=0, characters="abet", top_p=0.9, top_k=3)
    assert set(letters) <= set("abet")


@pytest.mark.parametrize("penalty", [5e-324, 1e-300, 1e-45, 1e39, 1.7976931348623157e308])
def test_every_finite_penalty_leaves_something_to_write(model, penalty):
    assert len(generate(model, tokens=200, repetition_penalty=penalty, seed=0)) == 200
    assert len(stream(model, tokens=200, repetition_penalty=penalty, seed=0, characters="ae")) == 200


def test_a_lane_without_a_token_to_write_leaves_the_others_alone(model):
    alone = generate(model, tokens=30, seed=1)
    broken = [np.full(array.shape, np.nan, np.float32) for array in model.initial_state().arrays]
    streams = Streams(model)
    stuck = streams.join("", state=State(broken, model.digest))
    going = streams.join("the ", seed=1)
    texts = [streams.write(10) for _ in range(3)]
    assert "".join(text[going] for text in texts) == alone
    assert [text[stuck] for text in texts] == [""] * 3
    assert streams.stopped == [stuck]
    np.testing.assert_array_equal(streams.state(stuck).arrays, broken)
    streams.leave(going)
    with pytest.raises(ThroughtimeError, match="no token that is allowed can follow"):
        streams.write(1)
    with pytest.raises(ThroughtimeError, match="numbers that are not finite"):
        State.from_bytes(State(broken, model.digest).to_bytes())


def test_ids_and_states_of_a_wrong_kind_are_refused(model):
    state = model.initial_state()
    for wrong in (None, state.arrays, state.arrays[0], "state"):
        with pytest.raises(ThroughtimeError, match="a state that `initial_state` or `feed` gave is needed"):
            model.step([1], wrong)
    for wrong in ([[1], [2, 3]], [[HUGE]], [["a"]], [[1.5]], [[None]]):
        with pytest.raises(ThroughtimeError, match="ids should be"):
            model.feed(wrong, state)
    for wrong in (1.5, "1", -1, HUGE):
        with pytest.raises(ThroughtimeError, match="wanted must"):
            model.feed([[1]], state, wrong)
    for wrong in ("a\udcff", None, b"a"):
        with pytest.raises(ThroughtimeError, match="text"):
            model.score(wrong)
    for wrong in (-1, 1.5, HUGE):
        with pytest.raises(ThroughtimeError, match="batch_size"):
            model.initial_state(wrong)
    for wrong in ([True], [0.0], [[0]], [1], [-2], "0"):
        with pytest.raises(SettingError, match="lanes must be"):
            state.select(wrong)


def test_a_perplexity_beyond_float64_is_infinite():
    assert runtime.Score(np.arange(2), np.array([1e4])).perplexity == float("inf")
    assert runtime.Score(np.arange(2), np.array([3.0])).perplexity == 8


@pytest.mark.parametrize(
    "options",
    [
        ["--seed", str(1 << 64)], ["--seed", "-1"], ["--seed", "9" * 400], ["--tokens", "-1"], ["--tokens", "9" * 30],
        ["--top-k", "0"], ["--temperature", "nan"], ["--temperature", "inf"], ["--min-p", "nan"], ["--stop", ""],
    ],
    ids=str,
)  # fmt: skip
def test_the_command_answers_wrong_settings_in_a_line(place, options, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["generate", str(place), *options])
    told = capsys.readouterr()
    assert caught.value.code == 2
    assert told.err.startswith("throughtime: ")
    assert "unforeseen" not in told.err
    assert len(told.err.splitlines()) == 1


def test_the_command_takes_the_largest_settings(place):
    from throughtime.cli.main import group

    plain, huge = (
        CliRunner().invoke(group, ["generate", str(place), "--seed", "1", "--tokens", "20", *options])
        for options in ([], ["--top-k", "9" * 21])
    )
    assert huge.exit_code == 0
    assert huge.stdout == plain.stdout
