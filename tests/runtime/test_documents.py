"""The state is reset after the text that ends a document, and wherever a model is used in the same way."""

from __future__ import annotations

import itertools
import json
import math
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import throughtime
from helpers import model_folder
from throughtime import engine, runtime
from throughtime.cli.main import group
from throughtime.errors import ThroughtimeError
from throughtime.models import saved
from throughtime.runtime import Streams, search
from throughtime.runtime import compression as compressing
from throughtime.text.separator import Separator

NAMES = "emma\nolivia\nava\nisabella\nsophia\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("m") / "m", NAMES, spread=0.4, hidden_size=12, separator="\n")[0]


def by_hand(model, text):
    """-log2 P of every token but the first, each document from an empty state: the plain way, token by token."""
    state, fresh, nats = model.network.initial_state(1), False, []
    ids = model.tokenizer.encode(text).astype(np.int64)
    for token, target in itertools.pairwise(ids):
        state = model.network.initial_state(1) if fresh else state
        logits_BV, state = model.network.step(np.array([token]), state)
        nats.append(-float(torch.tensor(logits_BV[0]).log_softmax(0)[target]))
        fresh = model.tokenizer.pieces[token] == b"\n"
    return np.array(nats) / math.log(2)


def test_a_score_resets_the_state_where_a_document_has_ended(model):
    np.testing.assert_allclose(model.score(NAMES).bits, by_hand(model, NAMES), rtol=1e-4)


def test_steps_chunks_and_a_score_agree(model):
    ids = model.tokenizer.encode(NAMES).astype(np.int64)
    whole, after = model.feed(ids[:, None], model.initial_state())
    state, logits = model.initial_state(), []
    for token in ids:
        logits_BV, state = model.step([token], state)
        logits.append(logits_BV[0])
    np.testing.assert_allclose(np.array(logits), whole[:, 0], atol=1e-6)
    np.testing.assert_allclose(after.arrays, state.arrays, atol=1e-6)
    assert after.positions == state.positions
    bits = -torch.tensor(whole[:-1, 0]).log_softmax(1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])] / math.log(2)
    np.testing.assert_allclose(model.score(NAMES).bits, bits.numpy(), rtol=1e-4)
    blocks = [(ids[:9], None), (ids[9:], None)]
    np.testing.assert_allclose(np.concatenate(list(model.surprise(blocks))), bits.numpy(), rtol=1e-4)


def test_the_figure_of_one_text_is_the_same_in_every_command(place, tmp_path, monkeypatch):
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path / "cache"))
    (tmp_path / "t.txt").write_text(NAMES)
    score = runtime.load(place).score(NAMES)
    for command in ("evaluate", "score"):
        told = CliRunner().invoke(group, [command, str(place), str(tmp_path / "t.txt"), "--json"])
        assert told.exit_code == 0, told.output
        found = json.loads(told.stdout)
        total = found["total_bits"] if command == "score" else found["nats_per_token"] * found["tokens"] / math.log(2)
        assert total == pytest.approx(score.total_bits, rel=1e-5)


def test_a_run_keeps_the_rule_and_its_commands_agree(tmp_path):
    (tmp_path / "names.txt").write_text(NAMES * 20)
    run = throughtime.train(
        {
            "text": {"sources": [str(tmp_path / "names.txt")], "separator": "\n"},
            "streams": {"lanes": 2, "window": 8},
            "model": {"hidden_size": 8},
            "training": {"steps": 4, "validations": 1, "sample_tokens": 20, "threads": 1},
        },
        out=tmp_path / "run",
    ).folder
    described = json.loads((run / "best" / "model.json").read_text())
    assert described["separator"] == "\n"
    model = runtime.load(run)
    assert described["tokenizer"] == model.tokenizer.fingerprint
    assert "sample" in (run / "journal.jsonl").read_text()
    told = CliRunner().invoke(group, ["evaluate", str(run), str(tmp_path / "names.txt"), "--json"])
    found = json.loads(told.stdout)
    assert model.score(NAMES * 20).total_bits * math.log(2) == pytest.approx(
        found["nats_per_token"] * found["tokens"], rel=1e-4
    )


def test_written_text_begins_each_document_with_an_empty_state(model):
    """The likeliest text, token by token, is that of states reset by hand."""
    text = "".join(model.generate("em", 40, temperature=0))
    state, fresh, wanted = model.network.initial_state(1), False, []
    waiting = model.tokenizer.encode("em").tolist()
    while len(wanted) < 40:
        token = waiting.pop(0)
        state = model.network.initial_state(1) if fresh else state
        fresh = model.tokenizer.pieces[token] == b"\n"
        logits_BV, state = model.network.step(np.array([token]), state)
        logits_BV[0, model.tokenizer.unknown] = -np.inf
        if not waiting:
            waiting = [int(logits_BV[0].argmax())]
            wanted.append(waiting[0])
    assert text == model.tokenizer.decode(wanted)
    streams = Streams(model)
    key = streams.join("em", temperature=0)
    assert streams.write(40)[key] == text
    assert search(model, "em", 40, beams=1)[0].text == text


def test_every_way_to_write_gives_the_same_text(model, place):
    drawn = "".join(model.generate("", 80, seed=5))
    assert drawn.count("\n") > 1
    streams = Streams(model)
    key = streams.join("", seed=5)
    assert "".join(streams.write(8)[key] for _ in range(10)) == drawn
    scored = model.score("\n" + drawn)
    np.testing.assert_allclose(scored.bits, by_hand(model, "\n" + drawn), rtol=1e-4)
    by_pytorch = saved.load_runtime(place)
    assert "".join(by_pytorch.generate("", 80, seed=5)) == drawn


def test_a_search_goes_on_over_the_end_of_a_document(model):
    found = search(model, "ava", 12, beams=5, best=3)
    assert any("\n" in one.text for one in found)
    for one in found:
        ids = model.tokenizer.encode("ava" + one.text).astype(np.int64)
        bits = np.concatenate(list(model.surprise([(ids, None)])))[2:]
        assert one.nats == pytest.approx(float(bits.sum()) * math.log(2), rel=1e-4)
        _, after = model.read(ids)
        np.testing.assert_allclose(one.state.arrays, after.arrays, atol=1e-5)
        assert one.state.positions == after.positions


@pytest.mark.skipif(engine.level() is None, reason="there are no kernels here")
@given(st.data())
def test_both_twins_find_the_same_documents(data):
    letters = st.text("ab", min_size=0, max_size=4).map(str.encode)
    pieces = data.draw(st.lists(letters, min_size=1, max_size=6))
    text = data.draw(letters)
    ids = np.array(data.draw(st.lists(st.integers(0, len(pieces) - 1), min_size=1, max_size=30)))
    twin, native = Separator(pieces, text), engine.separator(pieces, text)
    cut = data.draw(st.integers(0, len(ids)))
    found = []
    for separator in (twin, native):
        matched = np.zeros(1, np.int64)
        parts = [separator.starts(part[:, None], matched) for part in (ids[:cut], ids[cut:])]
        found.append((np.concatenate(parts)[:, 0].tolist(), matched.tolist()))
    assert found[0] == found[1]
    assert found[0][0] == starts_by_text([pieces[index] for index in ids], text)


def starts_by_text(pieces, separator):
    """Where documents begin: right after a separator of the joined text, where a token begins there."""
    text, ends, at = b"".join(pieces), set(), 0
    while separator and (at := text.find(separator, at)) >= 0:
        at += len(separator)
        ends.add(at)
    begins = [sum(map(len, pieces[:index])) for index in range(len(pieces))]
    # An empty token after the end is the one that begins the document.
    return [int(begin in ends and begin not in begins[:index]) for index, begin in enumerate(begins)]


def test_an_older_folder_has_the_rule_from_its_recipe(place, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(place, run / "best")
    (run / "tokenizer.json").write_bytes((run / "best" / "tokenizer.json").read_bytes())
    (run / "best" / "tokenizer.json").unlink()
    described = json.loads((run / "best" / "model.json").read_text())
    assert described.pop("separator") == "\n"
    assert described.pop("tokenizer")
    (run / "best" / "model.json").write_text(json.dumps(described))
    assert runtime.load(run).separator == saved.load(run).separator == ""
    (run / "recipe.toml").write_text('[text]\nseparator = "\\n"\n')
    assert runtime.load(run).separator == saved.load(run).separator == "\n"
    assert runtime.load(run).score(NAMES).total_bits == runtime.load(place).score(NAMES).total_bits


def test_a_separator_is_a_text_of_bounded_length(place, tmp_path):
    for wrong in (5, ["\n"], "a" * 1001):
        folder = shutil.copytree(place, tmp_path / str(len(str(wrong))))
        described = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(described | {"separator": wrong}))
        for load in (runtime.load, saved.load):
            with pytest.raises(ThroughtimeError, match=r"model.json does not describe a model: .*separator"):
                load(folder)


def test_a_compressed_file_says_where_its_documents_end(tmp_path):
    place, _ = model_folder(tmp_path / "m", NAMES, "byte", spread=0.4, hidden_size=12, separator="\n")
    model, content = runtime.load(place), (NAMES * 60).encode()

    def packed(model):
        (tmp_path / "in").write_bytes(content)
        with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
            compressing.compress(model, source, target)
        return (tmp_path / "out").read_bytes()

    def unpacked(model, blob):
        (tmp_path / "out").write_bytes(blob)
        with (tmp_path / "out").open("rb") as source:
            return b"".join(compressing.decompress(model, source))

    blob = packed(model)
    assert unpacked(model, blob) == content
    described = json.loads((place / "model.json").read_text())
    (place / "model.json").write_text(json.dumps(described | {"separator": ""}))
    plain = runtime.load(place)
    older = packed(plain)
    assert older != blob
    assert unpacked(plain, blob) == unpacked(model, older) == content
