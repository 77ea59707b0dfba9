"""The cache: for its user alone, believed only where its checksums hold, and cleared of what killed processes left."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import damaged
from throughtime.durable import PARTIAL
from throughtime.errors import ThroughtimeError
from throughtime.text import dataset, plain
from throughtime.text import ids as ids_module
from throughtime.text import tokenizer as tokenizers
from throughtime.text.cache import cache_folder, hash_of, new_entry, remove_leftovers
from throughtime.text.dataset import prepare
from throughtime.text.ids import TokenIds
from throughtime.text.settings import Text

CONTENT = "the cat sat on the mat, and the rat ate it.\n" * 30
KINDS = ["byte", "char", "word", "bpe"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def text(tmp_path):
    """Settings for a text of this test; its encoding needs a plain copy in the cache."""
    path = tmp_path / "a.txt"
    path.write_bytes(("caf\u00e9\n" + CONTENT).encode("latin-1"))
    return Text(sources=(str(path),), encoding="latin-1", tokens="word", vocabulary_size=300)


def seen(prepared) -> list[object]:
    """All that a training reads of a text."""
    found: list[object] = [prepared.tokenizer.pieces]
    return found + [(ids.facts, ids.read(0, len(ids)).tolist()) for ids in prepared.splits().values()]


def test_the_cache_is_for_its_user_alone(cache):
    umask = os.umask(0)
    try:
        cache_folder("ids")
    finally:
        os.umask(umask)
    assert [path.stat().st_mode & 0o777 for path in (cache, cache / "ids")] == [0o700, 0o700]


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
@pytest.mark.parametrize("part", ["", "ids"])
def test_a_cache_that_others_can_write_into_is_refused(mode, part):
    folder = cache_folder(part)
    folder.chmod(mode)
    with pytest.raises(ThroughtimeError, match=r"^other users can write into the cache folder .*chmod go-w"):
        cache_folder("ids")
    folder.chmod(0o755)
    cache_folder("ids")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
def test_a_cache_of_another_user_is_refused():
    os.chown(cache_folder(), 12345, 12345)
    with pytest.raises(ThroughtimeError, match="belongs to another user"):
        cache_folder()


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ThroughtimeError, match=r"^cannot make the cache folder .*file/cache: Not a directory; set"):
        cache_folder("ids")


def test_what_killed_writers_left_is_removed_and_what_living_ones_write_is_not(text):
    folder = cache_folder("plain")
    program = (
        "import sys; from pathlib import Path; from throughtime.text.cache import new_entry\n"
        "with new_entry(Path(sys.argv[1])) as new:\n    print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "open\n"
        remove_leftovers()
        assert len(list(folder.glob(f"*{PARTIAL}"))) == 1  # it is being written
        with new_entry(folder) as new:  # others are not kept waiting
            new.publish("entry")
        writer.kill()
    assert len(list(folder.glob(f"*{PARTIAL}"))) == 1
    (folder / f"of-somebody-else{PARTIAL}").write_text("")
    prepare(text)
    assert [path.name for path in folder.glob(f"*{PARTIAL}")] == [f"of-somebody-else{PARTIAL}"]


@pytest.mark.parametrize("part", ["plain", "tokenizers", "ids"])
def test_an_entry_under_the_name_of_another_is_made_anew(cache, text, part):
    first = seen(prepare(text))
    Path(text.sources[0]).write_bytes(CONTENT.replace("cat", "dog").encode() + b"\xe9")
    others = set((cache / part).iterdir())
    second = seen(prepare(text))
    mine = sorted(set((cache / part).iterdir()) - others)
    for old, new in zip(sorted(others), mine, strict=False):
        new.write_bytes(old.read_bytes())
    assert seen(prepare(text)) == second != first


def test_an_entry_renamed_to_another_is_made_anew(cache, text):
    """Its content is whole, but was made from something else."""
    prepare(text)
    Path(text.sources[0]).write_bytes(CONTENT.replace("cat", "dog").encode() + b"\xe9")
    [old] = (cache / "tokenizers").iterdir()
    second = seen(prepare(text))
    [new] = set((cache / "tokenizers").iterdir()) - {old}
    key, checksum = new.stem.split("-")[0], old.stem.split("-")[1]
    new.unlink()
    old.rename(new.with_name(f"{key}-{checksum}.json"))
    assert seen(prepare(text)) == second


@pytest.mark.parametrize("part", ["plain", "tokenizers", "ids"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "dangling", "empty"])
def test_an_entry_that_is_no_regular_file_is_no_hang(cache, text, part, kind):
    first = seen(prepare(text))
    for path in (cache / part).iterdir():
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "dangling":
            path.symlink_to("nowhere")
        elif kind == "empty":
            path.write_bytes(b"")
        else:
            path.mkdir()
    if kind == "folder":
        with pytest.raises(ThroughtimeError, match=r"^cannot write .*it is a folder"):
            prepare(text)
    else:
        assert seen(prepare(text)) == first


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_entry_is_made_anew(cache, text, data):
    """Any byte of any entry: the text that is read stays the same."""
    first = seen(prepare(text))
    path = data.draw(st.sampled_from(sorted(path for path in cache.rglob("*") if path.is_file())))
    content = path.read_bytes()
    path.write_bytes(damaged(data, content, data.draw(st.integers(0, len(content) - 1))))
    assert seen(prepare(text)) == first
    path.write_bytes(content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def forge(data: st.DataObject, document: Any) -> Any:
    """The document with one of its values replaced, anywhere in it."""
    if not isinstance(document, dict | list) or not document or data.draw(st.integers(0, 3)) == 0:
        return data.draw(json_values)
    key = data.draw(st.sampled_from(sorted(document) if isinstance(document, dict) else list(range(len(document)))))
    forged = document.copy()
    forged[key] = forge(data, document[key])
    return forged


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_forged_index_with_the_right_checksum_is_an_error_or_changes_no_id(cache, text, data):
    whole = prepare(text).valid
    indices = {json.loads(path.read_text())["facts"]["text"]: path for path in (cache / "ids").glob("*.json")}
    path = indices[whole.facts.text]
    content = path.read_text()
    forged = forge(data, json.loads(content))
    if isinstance(forged, dict) and {"facts", "shards"} <= forged.keys() and isinstance(forged["facts"], dict):
        told = json.dumps([list(forged["facts"].values()), forged["shards"]])
        forged["checksum"] = hash_of(path.stem, told)
    path.write_text(json.dumps(forged))
    with suppress(ThroughtimeError):
        ids = TokenIds(path, 300)
        assert ids.read(0, len(ids)).tolist() == whole.read(0, len(whole)).tolist()
    path.write_text(content)


def forged_shard(path: Path, ids: Any = None, documents: Any = None, **entries: Any) -> None:
    """Write a shard anew, with other content and the right checksum."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    split = header["ids"]["data_offsets"][1]
    parts = [data[:split] if ids is None else ids.tobytes(), data[split:] if documents is None else documents.tobytes()]
    header["ids"]["data_offsets"] = [0, len(parts[0])]
    header["documents"]["data_offsets"] = [len(parts[0]), len(parts[0]) + len(parts[1])]
    header["ids"] |= entries
    checksum = hash_of(header["__metadata__"]["counts"], hashlib.sha256(b"".join(parts)).digest())
    header["__metadata__"]["checksum"] = checksum
    told = json.dumps(header).encode().ljust(length)
    path.write_bytes(len(told).to_bytes(8, "little") + told + b"".join(parts))
    index = path.with_name(path.name.split(".")[0] + ".json")
    content = json.loads(index.read_text())
    content["shards"] = [[len(parts[0]) // 2, checksum]]
    told_index = json.dumps([list(content["facts"].values()), content["shards"]])
    index.write_text(json.dumps(content | {"checksum": hash_of(index.stem, told_index)}))


SHARDS: dict[str, dict[str, Any]] = {
    "an id out of range": {"ids": np.array([1, 2, 60_000], "<u2")},
    "no id": {"ids": np.array([], "<u2")},
    "documents that go back": {"documents": np.array([0, 3, 2], "<i8")},
    "a document after the end": {"documents": np.array([0, 1 << 40], "<i8")},
    "a document before the beginning": {"documents": np.array([-(1 << 63), 0], "<i8")},
    "another type": {"dtype": "F32"},
    "offsets before the file": {"data_offsets": [-100, 8]},
    "offsets behind the file": {"data_offsets": [0, 1 << 60]},
    "offsets that are no numbers": {"data_offsets": [0.0, "8"]},
}


@pytest.mark.parametrize("how", SHARDS)
def test_a_forged_shard_with_the_right_checksum_is_made_anew(cache, text, how):
    first = seen(prepare(text))
    for path in (cache / "ids").glob("*.safetensors"):
        forged_shard(path, **SHARDS[how])
        with pytest.raises(ThroughtimeError, match="are damaged"):
            TokenIds(path.with_name(path.name.split(".")[0] + ".json"), 300)
    assert seen(prepare(text)) == first


class EditedMeanwhile:
    """A tokeniser's `fit` or `encode_many`, before which the text is changed in place, and restored behind it."""

    def __init__(self, path: Path, original: Any, change: Any):
        self.path, self.original, self.change, self.content = path, original, change, path.read_bytes()

    def __call__(self, *arguments: Any) -> Any:
        self.path.write_bytes(self.change(self.content))
        try:
            return self.original(*arguments)
        finally:
            self.path.write_bytes(self.content)


CHANGES = {
    "edited": lambda content: content.replace(b"cat", b"dog"),
    "cut": lambda content: content[: len(content) // 2],
    "longer, and edited": lambda content: content.replace(b"rat", b"dog") + content,
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_a_text_edited_while_the_vocabulary_is_fitted_leaves_nothing_in_the_cache(
    cache, tmp_path, monkeypatch, kind, how
):
    path = tmp_path / "a.txt"
    path.write_text(CONTENT)
    wanted = Text(sources=(str(path),), tokens=kind, vocabulary_size=300, split=(1.0, 0.0, 0.0))
    with monkeypatch.context() as patch:
        patch.setattr(tokenizers, "fit", EditedMeanwhile(path, tokenizers.fit, CHANGES[how]))
        with pytest.raises(ThroughtimeError, match=r"a\.txt changed while it was read; start again"):
            prepare(wanted)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert b"".join(prepare(wanted).tokenizer.pieces).count(b"dog") == 0


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_edited_while_it_is_tokenised_leaves_no_ids(cache, tmp_path, monkeypatch, kind, how):
    path = tmp_path / "a.txt"
    path.write_text(CONTENT)
    wanted = Text(sources=(str(path),), tokens=kind, vocabulary_size=300, split=(1.0, 0.0, 0.0))
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "write_ids", EditedMeanwhile(path, dataset.write_ids, CHANGES[how]))
        with pytest.raises(ThroughtimeError, match=r"a\.txt changed while it was read; start again"):
            prepare(wanted)
    assert list((cache / "ids").iterdir()) == []
    prepared = prepare(wanted)
    assert prepared.tokenizer.decode(prepared.train.read(0, len(prepared.train))) == CONTENT


@pytest.mark.parametrize("how", CHANGES)
def test_a_text_edited_while_it_is_converted_leaves_no_plain_text(cache, text, monkeypatch, how):
    path = Path(text.sources[0])
    content = path.read_bytes()
    with monkeypatch.context() as patch:
        # Between the hash of the file and its conversion.
        patch.setattr(plain, "find_entry", lambda *_: path.write_bytes(CHANGES[how](content)) and None)
        with pytest.raises(ThroughtimeError, match=r"a\.txt changed while it was read; start again"):
            prepare(text)
    assert list((cache / "plain").iterdir()) == []


def test_shards_of_another_text_are_not_gone_on_with(cache, tmp_path, monkeypatch):
    """The text was edited, and the process killed after some shards; then the text is restored."""
    monkeypatch.setattr(ids_module, "SHARD_TOKENS", 100)
    monkeypatch.setattr(ids_module, "BATCH_BYTES", 50)
    monkeypatch.setattr(tokenizers.ByteTokenizer, "piece_limit", 50)
    path = tmp_path / "a.txt"
    path.write_text(CONTENT)
    wanted = Text(sources=(str(path),), tokens="byte", split=(1.0, 0.0, 0.0))
    encode_many, calls = tokenizers.ByteTokenizer.encode_many, []

    def killed(self: Any, pieces: Any) -> Any:
        calls.append(pieces)
        if len(calls) > 12:
            raise RuntimeError("killed")
        return encode_many(self, pieces)

    with monkeypatch.context() as patch:
        patch.setattr(tokenizers.ByteTokenizer, "encode_many", killed)
        patch.setattr(dataset, "write_ids", EditedMeanwhile(path, dataset.write_ids, CHANGES["edited"]))
        with pytest.raises(RuntimeError, match="killed"):
            prepare(wanted)
    assert len(list((cache / "ids").glob("*.safetensors"))) > 2
    prepared = prepare(wanted)
    assert prepared.tokenizer.decode(prepared.train.read(0, len(prepared.train))) == CONTENT
    assert prepared.train.facts.exact
