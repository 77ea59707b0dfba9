"""Settings: TOML in, TOML out; what is wrong is said in a line."""

from __future__ import annotations

import json
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest

import throughtime
from throughtime import recipe
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.recipe import Recipe
from throughtime.settings import Settings


@pytest.mark.parametrize("name", recipe.names())
def test_every_shipped_recipe_is_valid_and_comes_back_from_its_toml(name):
    built = recipe.build(recipe.read(name))
    assert recipe.build(tomllib.loads(recipe.to_toml(built))) == built


def test_the_names_promised():
    assert {"demo", "shakespeare-char"} <= set(recipe.names())


def test_every_setting_has_its_meaning_beside_it():
    for section in Recipe.model_fields:
        for name, field in type(getattr(Recipe(), section)).model_fields.items():
            assert field.description, f"{section}.{name}"


def test_every_setting_is_read(tmp_path, monkeypatch):
    """A setting that nothing reads would be a promise that nothing keeps."""
    read = set()

    properties = {"widths", "embedding_width", "units"}

    def watched(self, name):
        frame = sys._getframe(1)
        while frame.f_code.co_name in properties or frame.f_code is watched.__code__:  # it reads for its own reader
            frame = frame.f_back
        reader = frame.f_globals["__name__"]
        ours = reader.startswith("throughtime.") and reader != recipe.__name__ and not reader.endswith("settings")
        if ours:  # checks and printing use every setting
            read.add((type(self), name))
        return super(Settings, self).__getattribute__(name)

    monkeypatch.setattr(Settings, "__getattribute__", watched, raising=False)
    text = tmp_path / "my.txt"
    text.write_text("the cat sat on the mat, and the rat ate it.\n" * 40)
    small = [f"text.sources={text}", "streams.lanes=2", "streams.window=8", "model.hidden_size=4", "training.threads=1"]
    diverging = ["model.cell=elman", "model.cell_options={activation='relu'}", "gradient.clip_norm=0.0"]
    for index, changes in enumerate(
        [
            ["gradient.truncation=variable", "text.tokens=bpe", "text.vocabulary_size=300"],
            ["gradient.truncation=random", "training.nonfinite=rollback", "training.learning_rate=1e30", *diverging],
            ["gradient.truncation=none"],
            ["gradient.truncation=fixed"],
        ]
    ):
        tree: dict[str, dict[str, object]] = {}
        for assignment in (*small, "training.steps=4", *changes):
            for section, values in recipe.parse_assignment(assignment).items():
                tree.setdefault(section, {}).update(values)
        with suppress(ThroughtimeError):  # one diverges again after each rollback
            throughtime.train(tree, tmp_path / f"run-{index}")
    sections = [type(getattr(Recipe(), name)) for name in Recipe.model_fields]
    settings = {(section, name) for section in sections for name in section.model_fields}
    assert {f"{section.__name__}.{name}" for section, name in settings - read} == set()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("streams.lane=3", "there is no setting streams.lane; did you mean streams.lanes?"),
        ("stream.lanes=3", "there is no setting stream"),
        ("streams.lanes=0", "streams.lanes: should be greater than or equal to 1, got 0"),
        ("streams.lanes=2.5", "streams.lanes: should be a valid integer, got 2.5"),
        ("model.hidden_size=big", "model.hidden_size: should be a valid integer, got 'big'"),
        ("model.hidden_size=[4, big]", "model.hidden_size: should be a valid integer, got '[4, big]'"),
        ("model.hidden_size=[4, 0]", "model.hidden_size.1: should be greater than or equal to 1, got 0"),
        (
            "model.hidden_size=[]",
            "model.hidden_size: should be one whole number or a list of 1 to 1,000, got 0 of them",
        ),
        (
            "model={hidden_size=[4, 5], layers=3}",
            "model.layers must be 2, as many as hidden_size lists, or be left out",
        ),
        (
            "model={hidden_size=[4, 5], tied=true, embedding_size=4}",
            "model.tied needs embedding_size equal to the last hidden_size (5) or 0, got 4",
        ),
        ("model.weight_drop=1.0", "model.weight_drop: should be less than 1, got 1.0"),
        ("text.tokens=chars", "text.tokens: should be 'byte', 'char', 'word' or 'bpe', got 'chars'"),
        ("text.split=[0.9,0.2,0.1]", "text.split must sum to 1, got [0.9, 0.2, 0.1], which sums to 1.2"),
        ("text.split=[0.0,0.5,0.5]", "text.split must leave a share for training"),
        ("text.encoding=utf8000", "text.encoding must be one that Python knows, got 'utf8000'"),
        ("training.learning_rate=inf", "training.learning_rate: should be a finite number"),
        ("training.epochs=-1.0", "training.epochs: should be greater than 0, got -1.0"),
        ("training.minutes=nan", "training.minutes: should be "),
        (
            "training.seed=18446744073709551616",
            "training.seed: should be less than 9223372036854775808, got 1844674407",
        ),
        ("training.seed=-1", "training.seed: should be greater than or equal to 0, got -1"),
        ("model.hidden_size=100000000", "model.hidden_size: should be less than or equal to 16777216, got 100000000"),
        ("model.cell_options.forget_bias=nan", "model.cell_options.forget_bias.float: should be a finite number"),
        ("text.split=[nan, 0.0, 0.0]", "text.split.0: should be a finite number"),
        ('text.sources=["a\\u0000b"]', "text.sources.0: String should match pattern"),
        ("training=3", "training: should be a valid dictionary"),
        ("streams.\x1b[31m=3", "there is no setting streams.\\x1b[31m"),
        ("text.sources=b\udcff.txt", "got 'b\\udcff.txt'; rename the file, or name its folder"),
        ("text.separator=\udcff", "text.separator: should be UTF-8, as recipe.toml is, got '\\udcff'"),
        ("training.nonfinite=ignore", "training.nonfinite: should be 'stop', 'skip' or 'rollback', got 'ignore'"),
        ("model={tied=true, embedding_size=3}", "model.tied needs embedding_size equal to hidden_size (256) or 0"),
        ("training={steps=3, epochs=2.0}", "training: the budget must be one of steps, epochs or minutes, got"),
    ],
)
def test_wrong_settings(assignment, message):
    with pytest.raises(SettingError) as caught:
        recipe.build(recipe.parse_assignment(assignment))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "widths", "embedding_width"),
    [
        ({"hidden_size": 4}, (4,), 4),
        ({"hidden_size": 4, "layers": 3, "embedding_size": 2}, (4, 4, 4), 2),
        ({"hidden_size": [4, 7, 5]}, (4, 7, 5), 4),
        ({"hidden_size": [4, 7, 5], "layers": 3, "tied": True}, (4, 7, 5), 5),
        ({"hidden_size": [4, 7, 5], "embedding_size": 9}, (4, 7, 5), 9),
    ],
)
def test_the_sizes_of_layers_and_of_the_embedding(model, widths, embedding_width):
    built = recipe.build({"model": model})
    assert (built.model.widths, built.model.embedding_width, built.model.layers) == (
        widths, embedding_width, len(widths)
    )  # fmt: skip
    assert recipe.build(tomllib.loads(recipe.to_toml(built))) == built
    for mode in ("json", "python"):
        dumped = json.loads(json.dumps(built.model.model_dump(mode=mode)))
        assert recipe.Model.model_validate(dumped) == built.model


def test_a_list_of_sizes_takes_the_place_of_a_number_of_layers():
    base = {"model": {"hidden_size": 4, "layers": 3}}
    assert recipe.build(recipe.change(base, {"model": {"hidden_size": [5, 6]}})).model.widths == (5, 6)
    assert recipe.build(recipe.change(base, {"model": {"hidden_size": 7}})).model.widths == (7, 7, 7)
    with pytest.raises(SettingError, match="layers must be 2"):
        recipe.build(recipe.change(base, {"model": {"hidden_size": [5, 6], "layers": 3}}))


def test_a_dotted_key_is_said_to_need_nesting():
    with pytest.raises(SettingError) as caught:
        recipe.build({"training.steps": 5})
    assert "'training.steps' should be nested: {'training': {'steps': ...}}" in str(caught.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(SettingError, match=r"streams\.lanes: .*; there is no setting model\.heads"):
        recipe.build({"streams": {"lanes": 0}, "model": {"heads": 8}})


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("a.b=3", 3),
        ("a.b=0.5", 0.5),
        ("a.b=true", True),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b=plain text", "plain text"),
        ('a.b="3"', "3"),
        ("a.b=", ""),
        ("a.b=x=y", "x=y"),
    ],
)
def test_assignments_are_toml_or_text(assignment, value):
    assert recipe.parse_assignment(assignment) == {"a": {"b": value}}


def test_what_is_shown_of_wrong_settings_is_short():
    for tree in ({"model": {"hidden_size": 10**5000}}, {"a" * 10**6: 1}, {str(n): n for n in range(10**4)}):
        with pytest.raises(SettingError) as caught:
            recipe.build(tree)
        assert len(str(caught.value)) < 500


def test_one_name_is_a_list_of_one_and_a_path_is_a_name():
    text = recipe.build({"text": {"sources": "a.txt", "valid": Path("b.txt"), "test": [Path("c.txt"), "d"]}}).text
    assert (text.sources, text.valid, text.test) == (("a.txt",), ("b.txt",), ("c.txt", "d"))


def test_a_section_that_is_none_is_laid_over_like_any_other_value():
    assert recipe.change({"training": 3}, {"training": {"steps": 1}}) == {"training": {"steps": 1}}
    assert recipe.change({"training": {"seed": 1}}, {"training": 3}) == {"training": 3}


@pytest.mark.parametrize("assignment", ["a.b", "=3", "", "a." * 5000 + "b=1"])
def test_what_is_no_assignment(assignment):
    with pytest.raises(SettingError, match=r"a setting is written section\.name=value"):
        recipe.parse_assignment(assignment)


def test_a_new_budget_replaces_the_old_one():
    base = {"training": {"minutes": 2.0, "seed": 7}}
    assert recipe.change(base, {"training": {"steps": 5}}) == {"training": {"steps": 5, "seed": 7}}
    assert recipe.change(base, {"streams": {"lanes": 5}}) == {**base, "streams": {"lanes": 5}}


def test_files_to_validate_on_take_no_share_of_the_text():
    assert recipe.build({"text": {"valid": ["v.txt"]}}).text.split == (1.0, 0.0, 0.0)
    assert recipe.build({"text": {"test": ["t"], "split": [0.5, 0.5, 0.0]}}).text.split == (0.5, 0.5, 0.0)
    with pytest.raises(SettingError, match="valid names files, so split must give it 0"):
        recipe.build({"text": {"valid": ["v"], "split": [0.5, 0.5, 0.0]}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the recipe .*: No such file"),
        ("a = [", "is not TOML"),
        (b"\xff", "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ("a = " + "9" * 5000, "is not TOML"),
    ],
)
def test_a_recipe_file_that_cannot_be_read(content, message, tmp_path):
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingError, match=message):
        recipe.read(str(path))


def test_a_home_that_is_not_there_is_said():
    with pytest.raises(SettingError, match=r"cannot find ~nobody-of-that-name/mine\.toml"):
        recipe.read("~nobody-of-that-name/mine.toml")


def test_a_recipe_that_is_not_shipped():
    with pytest.raises(SettingError, match="there is no recipe 'dmeo'; there are demo, "):
        recipe.read("dmeo")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"\n\n", "\n\n"),
        (r'"\n\n"', "\n\n"),
        (r"\r\n", "\r\n"),
        (r"a\tb", "a\tb"),
        (r"\\n", "\\n"),
        (r"\\\n", "\\\n"),
        (r"\d", "\\d"),
        ("<|end|>", "<|end|>"),
    ],
)
def test_a_separator_may_be_written_with_escapes(written, read):
    """A shell takes the quotes away that TOML would need around them."""
    assert recipe.parse_assignment(f"text.separator={written}") == {"text": {"separator": read}}


def test_other_strings_keep_their_backslashes():
    assert recipe.parse_assignment(r"text.encoding=C:\new") == {"text": {"encoding": r"C:\new"}}
