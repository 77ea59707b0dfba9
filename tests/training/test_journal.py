"""The journal: nothing in it keeps a report, a card or a curve from being made, and nothing is left out in silence."""

from __future__ import annotations

import io
import json
import os
import shutil
from contextlib import contextmanager

import matplotlib
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import throughtime
from faults.trials import failing
from faults.watching import watching
from helpers import damaged
from throughtime.errors import ThroughtimeError
from throughtime.probe.report.figures import as_json
from throughtime.probe.report.training import training
from throughtime.tasks.registry import make_task
from throughtime.training import journal as module
from throughtime.training.card import is_ended, write_card
from throughtime.training.curve import draw_curve
from throughtime.training.journal import Journal, Recent

TRAIN = {"event": "train", "tokens": 10, "nats_per_token": 2.5, "gradient_norm": 1.5, "clipped_share": 0.5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text("abc abd abe\n" * 80)
    tree = {
        "text": {"sources": [str(folder / "text.txt")]},
        "streams": {"lanes": 2, "window": 8},
        "model": {"hidden_size": 6},
        "training": {"steps": 4, "validations": 2, "sample_tokens": 5, "threads": 1},
    }
    return throughtime.train(tree, folder / "run").folder


@pytest.fixture(scope="module")
def loaded(run):
    recipe = throughtime.load(run).recipe
    return recipe, make_task(recipe).read()


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "journal.jsonl")
    made.rewrite("")
    return made


def lines(journal, *entries):
    journal.path.write_text("".join(f"{entry if isinstance(entry, str) else json.dumps(entry)}\n" for entry in entries))


def use(journal, loaded, folder):
    """All that is made from a journal."""
    entries = journal.entries()
    assert all("\n" not in note for note in entries.notes)
    draw_curve(entries, folder / "curve.svg")
    write_card(folder / "card.md", *loaded, entries)
    part = training(entries)
    json.dumps(as_json(part), allow_nan=False)
    list(journal.read("train"))
    return entries


def test_what_is_written_is_read_back_and_numbers_that_are_not_finite_are_null(journal):
    journal.write(**TRAIN, loss=float("nan"), best=-float("inf"))
    journal.write("valid", tokens=10, valid={"nats_per_token": float("inf")})
    journal.write("begin", lines=["caf\udce9 \x1b[31m"])
    text = journal.path.read_text()
    for line in text.splitlines():
        json.loads(line, parse_constant=pytest.fail)
    found = journal.entries()
    assert (found.losses, found.norms, found.clipped, found.validations) == ([(10, 2.5)], [(10, 1.5)], [(10, 0.5)], [])
    assert next(journal.read("begin"))["lines"] == ["caf\\udce9 \x1b[31m"]


def test_a_line_that_is_cut_short_damaged_or_forged_is_left_out_and_said(journal):
    lines(journal, TRAIN, '{"event": "train", "tok', "[1]", {**TRAIN, "tokens": 20}, {**TRAIN, "tokens": "many"},
          '{"event": "train", "tokens": 30, "nats_per_token": NaN}', "[" * 9999, {"event": []}, {})  # fmt: skip
    found = journal.entries()
    assert found.losses == [(10, 2.5), (20, 2.5)]
    (note,) = found.notes
    assert note.startswith(f"7 damaged lines of {journal.path} left out, the first: line 2")
    lines(journal, TRAIN)
    assert journal.entries().notes == []


@pytest.mark.parametrize(
    "entry",
    [
        {"tokens": 10**400}, {"tokens": -1}, {"tokens": True}, {"nats_per_token": 1e300}, {"nats_per_token": [1]},
        {"gradient_norm": "x"}, {"gradient_norm": 10**400}, {"clipped_share": {}}, {"tokens": None},
    ],
)  # fmt: skip
def test_a_forged_number_is_left_out(entry, journal, loaded, tmp_path):
    lines(journal, {**TRAIN, **entry}, TRAIN)
    entries = use(journal, loaded, tmp_path)
    assert entries.losses == [(10, 2.5)]
    assert len(entries.notes) == 1


def test_a_run_without_a_whole_journal_has_a_card_all_the_same(journal, loaded, tmp_path):
    lines(journal, "")
    use(journal, loaded, tmp_path)
    card = (tmp_path / "card.md").read_text()
    assert "A recurrent language model: 1 layer(s) of lstm" in card
    assert "parameters" not in card
    assert is_ended(tmp_path)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_journal_keeps_nothing_from_being_made(data, journal, run, loaded, tmp_path):
    content = (run / "journal.jsonl").read_bytes()
    for _ in range(data.draw(st.integers(1, 4))):
        content = damaged(data, content, data.draw(st.integers(0, len(content) - 1))) or b" "
    journal.path.write_bytes(content)
    use(journal, loaded, tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.integers(min_value=10**300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_forged_journal_keeps_nothing_from_being_made(data, journal, run, loaded, tmp_path):
    entries = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    for _ in range(data.draw(st.integers(1, 3))):
        entry = data.draw(st.sampled_from(entries))
        name = data.draw(st.sampled_from(sorted(entry)))
        held = entry[name] if isinstance(entry[name], dict) and entry[name] else entry
        held[data.draw(st.sampled_from(sorted(held)))] = data.draw(JSON)
    lines(journal, *(entry | {} for entry in entries))
    use(journal, loaded, tmp_path)


def test_a_journal_of_any_size_is_read_in_bounded_memory(journal, monkeypatch):
    monkeypatch.setattr(module, "LINE_BYTES", 200)
    monkeypatch.setattr(module, "POINTS", 5)
    lines(journal, *({**TRAIN, "tokens": number} for number in range(101)), '{"event": "' + "x" * 9000 + '"}', TRAIN)
    found = journal.entries()
    assert found.losses == [(number, 2.5) for number in (17, 38, 59, 80, 10)]
    assert "1 damaged line " in found.notes[0]
    monkeypatch.setattr(module, "JOURNAL_LINES", 7)
    assert journal.entries().notes == [f"only the first 7 lines of {journal.path} are read"]


def test_a_journal_of_one_endless_line_is_read_no_further_than_another(journal, monkeypatch):
    class Kept(io.BytesIO):
        def close(self):
            """It tells afterwards how far it was read."""

    monkeypatch.setattr(module, "LINE_BYTES", 200)
    monkeypatch.setattr(module, "JOURNAL_BYTES", 1000)
    file = Kept(bytes(9000))
    monkeypatch.setattr(module, "open_regular", lambda _path: file)
    assert f"only the first 1 lines of {journal.path} are read" in journal.entries().notes
    assert file.tell() == 1000


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_journal_that_is_no_regular_file_is_one_line(make, journal):
    journal.path.unlink()
    make(journal.path)
    with pytest.raises(ThroughtimeError, match=r"it is a .*, not a regular file"):
        journal.entries()
    with pytest.raises(ThroughtimeError, match=r"it is a .*, not a regular file"):
        journal.write("train")


def test_a_run_folder_that_was_moved_is_not_made_anew(journal, tmp_path):
    os.rename(tmp_path / "journal.jsonl", tmp_path / "elsewhere")
    with pytest.raises(ThroughtimeError, match="is gone: the run folder was moved or removed while it was in use"):
        journal.write("train")
    assert not journal.path.exists()


def test_a_full_disk_is_one_line_and_takes_the_half_line_back(journal, tmp_path):
    journal.write("begin")
    before = journal.path.read_bytes()
    with watching(tmp_path, failing(0, 28)), pytest.raises(ThroughtimeError) as caught:
        journal.write("train", **{"text": "x" * 1000})
    assert str(caught.value) == (
        f"cannot write {journal.path}: No space left on device; `throughtime train --out {tmp_path} --resume` goes on "
        "from the newest checkpoint"
    )
    assert journal.path.read_bytes() == before


def test_means_before_the_first_step_are_json():
    recent = Recent()
    held = json.loads(json.dumps(recent.as_list(), allow_nan=False))
    assert Recent.from_list(held).as_list() == recent.as_list()


@contextmanager
def unchanged(read):
    before = read()
    yield
    assert read() == before


def test_a_curve_leaves_matplotlib_as_it_was_and_is_the_same_each_time(run, tmp_path):
    with unchanged(lambda: dict(matplotlib.rcParams)), unchanged(lambda: matplotlib.rcParams._get("backend")):
        for name in ("a.svg", "b.svg"):
            draw_curve(Journal(run / "journal.jsonl").entries(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes() == (run / "curve.svg").read_bytes()


def test_an_empty_or_half_card_marks_no_end(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    card = (copy / "card.md").read_text()
    assert is_ended(copy)
    for part in ("", card[: len(card) // 2]):
        (copy / "card.md").write_text(part)
        assert not is_ended(copy)
        with pytest.raises(ThroughtimeError, match="holds an unfinished run; go on with --resume"):
            throughtime.train({"text": {"sources": [str(run.parent / "text.txt")]}}, copy)
    throughtime.resume(copy)
    assert (copy / "card.md").read_text().splitlines()[2:] == card.replace(str(run), str(copy)).splitlines()[2:]
    with pytest.raises(ThroughtimeError, match="has used up its budget"):
        throughtime.resume(copy)
    (copy / "card.md").write_text(card + "\nMy own notes.\n")
    assert is_ended(copy)


def test_foreign_text_in_a_card_steers_no_terminal(journal, loaded, tmp_path):
    journal.write("sample", text="\x1b[31mred\u2028x\x9b\nnext\tline")
    use(journal, loaded, tmp_path)
    assert "    \\x1b[31mred\\u2028x\\x9b\n    next\tline\n" in (tmp_path / "card.md").read_text()
