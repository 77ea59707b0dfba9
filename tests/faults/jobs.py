"""What is interrupted: writers of checkpoints, models, folders and ids; and what must be there afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.numpy import load_file
from torch import Tensor

from throughtime import durable
from throughtime.folder import DESCRIPTION, WEIGHTS
from throughtime.models.language import LanguageModel
from throughtime.models.saved import load_model, save_model
from throughtime.models.settings import Model
from throughtime.text import ids
from throughtime.text.corpus import Corpus, Document, scan
from throughtime.text.settings import Text
from throughtime.text.tokenizer import ByteTokenizer, fit
from throughtime.training.checkpoint import FACTS, MANIFEST, SUFFIX, Checkpoints

TOKENS = 5
NONE = "none"
PARTS = ("model", "optimiser", "position", "noise", "best")
"""Arrays of a checkpoint, a file each, as a training writes them."""
FILES = sorted([FACTS, MANIFEST, *(part + SUFFIX for part in PARTS)])


class Job(NamedTuple):
    """A writer. Each of its functions takes the folder that it works in."""

    name: str
    prepare: Callable[[Path], None]
    """Makes what is there before."""
    run: Callable[[Path], None]
    """What is interrupted."""
    state: Callable[[Path], str]
    """What a reader finds, in a word. It is exactly what was written, or this raises AssertionError."""
    states: tuple[str, ...]
    """What a reader finds before the run, and after each of its commits."""
    commits: tuple[str, ...]
    """The names that the run gives by renaming, in order: a reader then finds the next of `states`."""
    again: Callable[[Path], None]
    """The next writer, which must succeed."""


def contents(step: int, version: int = 0) -> tuple[dict[str, dict[str, Tensor]], dict[str, object]]:
    """All that a training has to keep at a step, in small."""
    generator = torch.Generator().manual_seed(1000 * version + step)
    weights = {"W": torch.randn(30, 40, generator=generator), "b": torch.randn(30, generator=generator)}
    optimiser = {f"{index}.exp_avg": array.double() ** 2 for index, array in enumerate(weights.values())}
    optimiser |= {f"{index}.step": torch.tensor(float(step)) for index in range(len(weights))}
    position = {"state.0.hidden_BH": torch.randn(2, 30, generator=generator), "reset_B": torch.tensor([True, False])}
    noise = {"0": generator.get_state()}
    best = {name: array + 1 for name, array in weights.items()}
    arrays = dict(zip(PARTS, (weights, optimiser, position, noise, best), strict=True))
    return arrays, {"version": version, "seconds": 1.5, "losses": [0.1 * step, 1e-300, None]}


def store(folder: Path) -> Checkpoints:
    return Checkpoints(folder / "checkpoints", keep=2, every=5)


def write(folder: Path, step: int, version: int = 0, best: bool = False) -> None:
    checkpoints = store(folder)
    checkpoints.write(step, *contents(step, version), best=best)
    checkpoints.close()


def newest(folder: Path, notes: int = 0) -> str:
    """The newest checkpoint that holds, as `step.version`. So many are damaged; all others with a name are whole."""
    found = store(folder).newest()
    assert len(found.notes) == notes, found.notes
    places = [path for path in (folder / "checkpoints").glob("step-*") if not path.name.endswith(durable.PARTIAL)]
    assert sum(sorted(path.name for path in place.iterdir()) != FILES for place in places) <= notes
    if found.checkpoint is None:
        return NONE
    step, facts = found.checkpoint.step, found.checkpoint.facts
    wanted, wanted_facts = contents(step, facts["version"])
    assert facts == wanted_facts
    assert {name: list(part) for name, part in wanted.items()} == {
        name: sorted(part, key=list(wanted[name]).index) for name, part in found.checkpoint.arrays.items()
    }
    for name, part in wanted.items():
        for key, array in part.items():
            again = found.checkpoint.arrays[name][key]
            assert again.dtype == array.dtype
            assert torch.equal(again, array)
    return f"{step}.{facts['version']}"


def next_checkpoint(folder: Path) -> None:
    """The next write works, is found, and leaves nothing lying about."""
    write(folder, 900, 9)
    assert newest(folder) == "900.9"
    assert (folder / "checkpoints" / "last").read_text() == "step-900\n"
    left = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert not any(name.endswith(durable.PARTIAL) for name in left), left
    assert len(left) <= 1 + 2 + 1 + 1, left  # last; the newest two; one that was the best; a fifth


def some_checkpoints(folder: Path) -> None:
    for step in (100, 200, 300):
        write(folder, step, best=step == 100)


def went_back(folder: Path) -> None:
    """Steps 400 and 500, then again from 300, at a lower rate."""
    some_checkpoints(folder)
    write(folder, 400)
    write(folder, 500)
    write(folder, 350, 1)


def leftovers(folder: Path) -> None:
    """A process was killed while it wrote, another while it removed."""
    some_checkpoints(folder)
    place = folder / "checkpoints"
    for name in ("step-350.partial", "step-50.partial", "step-350.0123456789abcdef.partial"):
        (place / name).mkdir()
        (place / name / "model.safetensors").write_bytes(b"half")
    for name in ("last.partial", "last.0123456789abcdef.partial"):
        (place / name).write_bytes(b"step")


def _model(version: int) -> LanguageModel:
    model = LanguageModel(Model(hidden_size=8), TOKENS, torch.Generator().manual_seed(0))
    for parameter in model.parameters():
        parameter.data.fill_(version)
    return model


def _save(folder: Path, version: int) -> None:
    save_model(folder / "best", _model(version), {"version": version})


def _saved(folder: Path) -> str:
    """Version of the weights and version of what is said of them; there must be a model once there has been one."""
    if not (folder / "best" / DESCRIPTION).exists():
        return NONE
    model = load_model(folder / "best", TOKENS)
    versions = {value for parameter in model.parameters() for value in parameter.unique().tolist()}
    assert len(versions) == 1
    told = json.loads((folder / "best" / DESCRIPTION).read_text())["trained"]["version"]
    return f"{versions.pop():g}.{told}"


def _save_again(folder: Path) -> None:
    _save(folder, 9)
    assert _saved(folder) == "9.9"
    assert sorted(path.name for path in (folder / "best").iterdir()) == [DESCRIPTION, WEIGHTS]


def _folder(folder: Path) -> None:
    with durable.new_folder(folder / "new" / "int8") as partial:
        durable.write_file(partial / "a", [b"a" * 100_000])
        durable.replace_file(partial / "b", b"b")


def _folder_state(folder: Path) -> str:
    made = folder / "new" / "int8"
    if not made.exists():
        return NONE
    assert {path.name: path.read_bytes() for path in made.iterdir()} == {"a": b"a" * 100_000, "b": b"b"}
    return "whole"


def _folder_again(folder: Path) -> None:
    if _folder_state(folder) == NONE:
        _folder(folder)
    with durable.new_folder(folder / "new" / "other"):
        pass
    assert sorted(path.name for path in (folder / "new").iterdir()) == ["int8", "other"]


def _output(folder: Path, version: int, replace: bool) -> None:
    with durable.new_file(folder / "my.tt", replace) as file:
        file.write(bytes([version]) * 20_000)


def _output_state(folder: Path) -> str:
    path = folder / "my.tt"
    if not path.exists():
        return NONE
    content = path.read_bytes()
    assert content == content[:1] * 20_000
    return str(content[0])


def _output_again(folder: Path) -> None:
    _output(folder, 9, replace=True)
    assert _output_state(folder) == "9"
    assert sorted(path.name for path in folder.iterdir()) == ["my.tt"]


TEXT = bytes(range(200)) + b"|" + bytes(range(100))
SOURCE = "source.bin"
SIZES = {"BATCH_BYTES": 30, "SHARD_TOKENS": 100}


def _source(folder: Path) -> None:
    (folder / SOURCE).write_bytes(TEXT)


def _tokenise(folder: Path) -> None:
    """In three shards."""
    corpus = Corpus((Document("source", folder / SOURCE, 0, len(TEXT)),))
    before = {name: getattr(ids, name) for name in SIZES}
    limit, ByteTokenizer.piece_limit = ByteTokenizer.piece_limit, 10
    try:
        for name, size in SIZES.items():
            setattr(ids, name, size)
        tokenizer = fit(Text(tokens="byte"), [])
        ids.write_ids(folder / "text.json", corpus, scan(corpus, "byte"), tokenizer, b"|")
    finally:
        ByteTokenizer.piece_limit = limit
        for name, size in before.items():
            setattr(ids, name, size)


def _tokenised(folder: Path) -> str:
    """How many of the three shards are there in a row, each whole; or that all is."""
    if (folder / "text.json").exists():
        found = ids.TokenIds(folder / "text.json")
        assert found.read(0, len(found)).tolist() == list(TEXT)
        assert found.documents.tolist() == [0, 125, 201]
        assert found.facts.exact
        return "whole"
    shards = [load_file(path)["ids"].tolist() for path in sorted(folder.glob("text.*.safetensors"))]
    joined = [index for shard in shards for index in shard]
    assert joined == list(TEXT)[: len(joined)]
    return str(len(shards)) if shards else NONE


def _tokenise_again(folder: Path) -> None:
    before = {path: path.stat().st_ino for path in folder.glob("text.*")}
    _tokenise(folder)
    assert _tokenised(folder) == "whole"
    assert all(path.stat().st_ino == inode for path, inode in before.items() if path.suffix == ".safetensors")


STORE = [
    Job("first", lambda _: None, lambda folder: write(folder, 100), newest, (NONE, "100.0"), ("step-100",),
        next_checkpoint),
    Job("later", some_checkpoints, lambda folder: write(folder, 400), newest, ("300.0", "400.0"), ("step-400",),
        next_checkpoint),
    Job("after going back", went_back, lambda folder: write(folder, 500, 1), newest, ("350.1", "500.1"),
        ("step-500.2",), next_checkpoint),
    Job("after a kill", leftovers, lambda folder: write(folder, 350), newest, ("300.0", "350.0"), ("step-350",),
        next_checkpoint),
]  # fmt: skip
MODELS = [
    Job("first model", lambda _: None, lambda folder: _save(folder, 1), _saved, (NONE, NONE, "1.1"),
        (WEIGHTS, DESCRIPTION), _save_again),
    Job("better model", lambda folder: _save(folder, 1), lambda folder: _save(folder, 2), _saved, ("1.1", "2.1", "2.2"),
        (WEIGHTS, DESCRIPTION), _save_again),
    Job("folder", lambda _: None, _folder, _folder_state, (NONE, "whole"), ("int8",), _folder_again),
    Job("output", lambda _: None, lambda folder: _output(folder, 1, replace=False), _output_state, (NONE, "1"),
        ("my.tt",), _output_again),
    Job("output anew", lambda folder: _output(folder, 1, replace=False),
        lambda folder: _output(folder, 2, replace=True), _output_state, ("1", "2"), ("my.tt",), _output_again),
]  # fmt: skip
TEXTS = [
    Job("text", _source, _tokenise, _tokenised, (NONE, "1", "2", "3", "whole"),
        ("text.0.safetensors", "text.1.safetensors", "text.2.safetensors", "text.json"), _tokenise_again),
]  # fmt: skip
