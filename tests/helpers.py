"""Pieces that tests of several parts stand on."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from throughtime import cells
from throughtime.folder import Description
from throughtime.models.language import LanguageModel
from throughtime.models.saved import save_model
from throughtime.models.settings import Model
from throughtime.text.corpus import Corpus, Document
from throughtime.text.settings import Text
from throughtime.text.tokenizer import fit
from throughtime.training.display import Display, Moment


def workers_of(out: Path) -> dict[int, int]:
    """The processes of a training that torchrun started, by their ranks: those that have its folder among their
    arguments."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            told = dict(entry.partition(b"=")[::2] for entry in (place / "environ").read_bytes().split(b"\0"))
            if any(str(out).encode() in word for word in words) and b"RANK" in told:
                found[int(told[b"RANK"])] = int(place.name)
    return found


class PowerCutError(BaseException):
    """Nothing of ours catches it."""


class Cut(Display):
    """Ends the process, as far as a test can, at the end of a step (None: at none); keeps the lines that were said."""

    def __init__(self, step: int | None = None):
        self.step, self.lines = step, []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def show(self, moment: Moment) -> None:
        if moment.step == self.step:
            raise PowerCutError

    def close(self) -> None:
        pass


class ArrayTokens:
    """Ids in memory; documents begin where they are told to."""

    def __init__(self, ids: Sequence[int], documents: Sequence[int] = ()):
        self.ids, self.documents = np.asarray(ids), np.asarray(documents, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, start: int, stop: int):
        assert 0 <= start < stop <= len(self.ids)
        return self.ids[start:stop]

    def documents_within(self, start: int, stop: int):
        return self.documents[(self.documents >= start) & (self.documents < stop)] - start


def counted_tokens(count: int, documents: Sequence[int] = ()) -> ArrayTokens:
    """The ids 1000, 1001, ... so that an id tells its place."""
    return ArrayTokens(range(1000, 1000 + count), documents)


def corpus_of(folder: Path, *contents: bytes) -> Corpus:
    """Each content as a file of its own, 0.txt, 1.txt, ..., and a document."""
    documents = []
    for index, content in enumerate(contents):
        path = folder / f"{index}.txt"
        path.write_bytes(content)
        documents.append(Document(path.name, path, 0, len(content)))
    return Corpus(tuple(documents))


_BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
sys.meta_path.insert(0, Block())
"""


def without_pytorch(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own, where PyTorch is not installed."""
    return subprocess.run(
        [sys.executable, "-c", _BLOCK + code, *arguments], capture_output=True, text=True, check=False
    )


def model_folder(
    path: Path,
    text: str,
    tokens: str = "char",
    spread: float = 0.0,
    seed: int = 0,
    separator: str | None = None,
    **values: Any,
):
    """A model folder with random weights, moved by as much as `spread`; and the model."""
    tokenizer = fit(Text(tokens=tokens, minimum_count=1, vocabulary_size=300), [text.encode()])
    model = LanguageModel(Model(**values), tokenizer.vocabulary_size, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.empty_like(parameter).normal_(0, spread, generator=torch.Generator().manual_seed(1))
    description = Description(model.settings, model.vocabulary_size, tokenizer.fingerprint, separator)
    save_model(path, model, {}, description=description)
    (path / "tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
    return path, model


@contextmanager
def leaky_file(folder: Path) -> Iterator[Path]:
    """The example of CONTRIBUTING as leaky.py in a folder; what importing it did is undone at the end."""
    guide = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    (folder / "leaky.py").write_text(code)
    try:
        yield folder / "leaky.py"
    finally:
        forget_leaky()


def forget_leaky() -> None:
    """What a new process would not know."""
    cells.unregister("leaky")
    sys.modules.pop("leaky", None)


def forge(place: Path, name: str, content: bytes) -> None:
    """Put other content into a file of a checkpoint, and its size and digest into the manifest, which holds then."""
    (place / name).write_bytes(content)
    manifest = json.loads((place / "manifest.json").read_bytes())
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.pop("sha256")
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    (place / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def damaged(data: st.DataObject, content: bytes, at: int) -> bytes:
    """The content with something changed, cut off, inserted or removed at a place, as hypothesis draws it."""
    blob = bytearray(content)
    match data.draw(st.sampled_from(["change", "cut", "insert", "remove"])):
        case "change":
            blob[at] ^= data.draw(st.integers(1, 255))
        case "cut":
            del blob[at:]
        case "insert":
            blob[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        case "remove":
            del blob[at : at + data.draw(st.integers(1, 9))]
    return bytes(blob)
