"""Checkpoints: all that a training needs to go on, each in a folder that is whole or not there.

`step-N/` holds arrays as safetensors, the rest as facts.json, and manifest.json, which has the size and the SHA-256 of
each file, and of itself. `last` names the newest. Reading trusts nothing: what does not hold is said in a line, and the
checkpoint before it is taken. Only regular files are read, and their sizes are checked first.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, final

import torch
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor

from throughtime import durable
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.training.ranks import is_dealt, whole
from throughtime.untrusted import first_finding, is_utf8, open_regular, parse_json, read_file, to_json

FACTS, MANIFEST, LAST = "facts.json", "manifest.json", "last"
SUFFIX = ".safetensors"
FACTS_BYTES = 1 << 28
"""Largest facts.json, which holds the journal too."""
MANIFEST_BYTES = 1 << 20
"""Largest manifest.json."""
NAME = re.compile(r"step-([0-9]{1,18})(\.[0-9]{1,18})?")
"""Of a checkpoint. The second of a step, which there is after a training went back, is called step-N.2."""

Arrays = Mapping[str, Mapping[str, Tensor]]
"""For each file, by its name without the ending, its arrays by theirs."""
TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""What safetensors calls them."""


class Checkpoint(NamedTuple):
    """What was written at a step."""

    step: int
    arrays: dict[str, dict[str, Tensor]]
    """For each file, by its name without the ending, its arrays by theirs. They are fetched from the file as they are
    used: to be copied, not kept."""
    facts: dict[str, Any]
    folder: Path
    """Where it lies."""


class Found(NamedTuple):
    """The newest checkpoint that holds."""

    checkpoint: Checkpoint | None
    """None where there is none."""
    notes: list[str]
    """In lines, what is wrong with newer ones."""


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    bytes: int = Field(ge=0)
    sha256: str


class _Manifest(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    format: Literal[1] = 1
    step: int = Field(ge=0)
    number: int = Field(ge=1)
    """Checkpoints are counted as they are written: steps may go back, and so may clocks."""
    best: bool
    files: dict[Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+\.(safetensors|json)$")], _File]
    sha256: str = ""
    """Of the rest."""

    def to_bytes(self) -> bytes:
        content = self.model_dump(exclude={"sha256"})
        content["sha256"] = _hash(json.dumps(content).encode())
        return (json.dumps(content, indent=1) + "\n").encode()


@final
class Checkpoints:
    """The checkpoints of a run. Only one process at a time may write to them.

    Args:
        folder: where they lie; the first write makes it.
        keep: how many of the newest are kept, at least 1.
        every: of the older ones, each n-th that was written is kept too; 0: none.
        accept: given the step and the facts of a checkpoint as JSON has them, returns the facts as they are to be used,
            or raises a ThroughtimeError: the checkpoint then counts as one that does not hold.
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 2,
        every: int = 0,
        accept: Callable[[int, Any], dict[str, Any]] = lambda _, facts: dict(facts),
    ):
        if keep < 1:
            raise SettingError(f"keep should be at least 1, got {keep}")
        self.folder, self.keep, self.every, self.accept = folder, keep, every, accept
        self._pending: Future[None] | None = None

    def write(self, step: int, arrays: Arrays, facts: Mapping[str, Any], best: bool = False) -> None:
        """Write a checkpoint, then remove those that are not to be kept.

        It is on disk, or an error is raised, by the end of the next call of any method: the arrays are copied, so that
        they may change as soon as this returns, and a thread writes. Arrays dealt to several processes are written
        before this returns, one by one, while the others gather them too (`gather`).

        Args:
            step: the optimizer step after which it is written.
            arrays: of TYPES.
            facts: the rest, as JSON has it; numbers that are not finite become null.
            best: whether the model is the best so far: the newest of these is kept.

        Raises:
            ThroughtimeError: where the one before could not be written. Those before that are still there.
        """
        self.close()
        text = to_json(dict(facts)) + "\n"
        if len(text) > FACTS_BYTES // 4:  # a character has up to four bytes
            raise ThroughtimeError(
                f"the journal of {self.folder.parent} has grown too large for a checkpoint; raise training.signs_every"
            )
        if any(is_dealt(array) for part in arrays.values() for array in part.values()):
            self._write(step, arrays, text, best)
            return
        copies = {name: {key: _copy(array) for key, array in part.items()} for name, part in arrays.items()}
        thread = ThreadPoolExecutor(1)
        self._pending = thread.submit(self._write, step, copies, text, best)
        thread.shutdown(wait=False)

    def newest(self) -> Found:
        """The newest checkpoint of which every byte is as it was written. Nothing is changed on disk.

        Raises:
            ThroughtimeError: where the folder cannot be read, or the last write failed.
        """
        self.close()
        whole, damaged = self._list()
        notes = []
        for place, manifest in whole:
            try:
                found = self._read(place, manifest)
            except ThroughtimeError as error:
                notes.append(str(error))
            else:
                newer = [line for name, line in damaged.items() if _step(name) > found.step]
                return Found(found, [*newer, *self._missing(found.step), *notes])
        return Found(None, [*damaged.values(), *self._missing(-1), *notes])

    def close(self) -> None:
        """Wait until the last write is on disk.

        Raises:
            ThroughtimeError: where it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def _write(self, step: int, arrays: Arrays, facts: str, best: bool) -> None:
        try:
            durable.make_own_folder(self.folder)
            durable.remove_leftovers(self.folder, sole_writer=True)
            number = 1 + max((manifest.number for _, manifest in self._list()[0]), default=0)
            names = (f"step-{step}" + (f".{n}" if n > 1 else "") for n in count(1))
            place = next(place for place in map(self.folder.joinpath, names) if not place.exists())
            with durable.new_folder(place) as partial:
                files = {}
                for name, content in _contents(arrays, facts):
                    files[name] = _write_file(partial / name, content)
                manifest = _Manifest(step=step, number=number, best=best, files=files)
                durable.write_file(partial / MANIFEST, [manifest.to_bytes()])
            durable.replace_file(self.folder / LAST, f"{place.name}\n".encode())
            durable.remove_folders(self._expired())
        except OSError as error:
            raise ThroughtimeError(
                f"cannot write the checkpoint of step {step} into {self.folder}: {error.strerror}; "
                "those before it are kept"
            ) from None

    def _read(self, place: Path, manifest: _Manifest) -> Checkpoint:
        if FACTS not in manifest.files:
            raise ThroughtimeError(f"{place / MANIFEST} is damaged: it does not name {FACTS}")
        _check(place, manifest)
        facts = parse_json(read_file(place / FACTS, FACTS_BYTES), place / FACTS, constants_as_null=True)
        try:
            accepted = self.accept(manifest.step, facts)
        except ThroughtimeError as error:
            raise ThroughtimeError(f"{place / FACTS} cannot be used: {error}") from None
        arrays = {}
        for name in manifest.files:
            if name.endswith(SUFFIX):
                with _reading(place / name):
                    arrays[name.removesuffix(SUFFIX)] = _load(place / name)
        return Checkpoint(manifest.step, arrays, accepted, place)

    def _list(self) -> tuple[list[tuple[Path, _Manifest]], dict[Path, str]]:
        """Checkpoints with a manifest that holds, the newest first; and what is wrong with others, in lines."""
        whole, damaged = [], {}
        try:
            places = sorted(place for place in self.folder.iterdir() if NAME.fullmatch(place.name))
        except FileNotFoundError:
            places = []
        except OSError as error:
            raise ThroughtimeError(f"cannot read the checkpoints in {self.folder}: {error.strerror}") from None
        for place in places:
            try:
                whole.append((place, _read_manifest(place)))
            except ThroughtimeError as error:
                damaged[place] = str(error)
        return sorted(whole, key=lambda entry: entry[1].number, reverse=True), damaged

    def _missing(self, step: int) -> list[str]:
        """A line where the checkpoint that was written last is newer than this step, and not there."""
        try:
            name = read_file(self.folder / LAST, MANIFEST_BYTES).decode().strip()
        except (ThroughtimeError, UnicodeError):
            return []
        place = self.folder / name
        gone = NAME.fullmatch(name) and _step(place) > step and not place.exists()
        return [f"{place}, which {LAST} names, is not there"] if gone else []

    def _expired(self) -> list[Path]:
        """Those that are not to be kept. One that is damaged counts neither among the newest nor as the best."""
        whole, damaged = self._list()
        newest = islice((place for place, manifest in whole if _holds(place, manifest)), self.keep)
        best = islice((place for place, manifest in whole if manifest.best and _holds(place, manifest)), 1)
        every = (place for place, manifest in whole if self.every and manifest.number % self.every == 0)
        kept = {*newest, *best, *every}
        return [place for place in (*dict(whole), *damaged) if place not in kept]


def gather(arrays: Arrays) -> None:
    """Take part in the writing of arrays that are dealt, in a process that does not write."""
    for part in arrays.values():
        for _ in _pieces(part):
            pass


def _contents(arrays: Arrays, facts: str) -> Iterator[tuple[str, Iterable[durable.Piece]]]:
    """The files of a checkpoint, made as they are written."""
    for name, part in arrays.items():
        yield name + SUFFIX, _pieces(part)
    yield FACTS, [facts.encode()]


def _pieces(part: Mapping[str, Tensor]) -> Iterator[durable.Piece]:
    """A file of safetensors, of which no more than one array is whole in memory at a time.

    That is eight bytes with the length of a header, the header (JSON: types, shapes, where each array lies) and the
    arrays, those with the widest entries first, so that none lies askew.
    """
    arrays = sorted(part.items(), key=lambda entry: (-entry[1].element_size(), entry[0]))
    header, end = {}, 0
    for name, array in arrays:
        begin, end = end, end + array.numel() * array.element_size()
        header[name] = {"dtype": TYPES[array.dtype], "shape": [*array.shape], "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, array in arrays:
        yield whole(array).detach().flatten().view(torch.uint8).numpy().data


def _write_file(path: Path, content: Iterable[durable.Piece]) -> _File:
    digest, size = hashlib.sha256(), 0

    def passing() -> Iterator[durable.Piece]:
        nonlocal size
        for piece in content:
            digest.update(piece)
            size += len(piece)
            yield piece

    durable.write_file(path, passing())
    return _File(bytes=size, sha256=digest.hexdigest())


def _copy(array: Tensor) -> Tensor:
    return array.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _read_manifest(place: Path) -> _Manifest:
    content = read_file(place / MANIFEST, MANIFEST_BYTES)
    try:
        manifest = _Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ThroughtimeError(
            f"{place / MANIFEST} is damaged, or of a newer version: {first_finding(error)}"
        ) from None
    if manifest.to_bytes() != content:
        raise ThroughtimeError(f"{place / MANIFEST} is damaged: its SHA-256 is another")
    return manifest


def _check(place: Path, manifest: _Manifest) -> None:
    """Raise an error that says which file is not as it was written."""
    for name, about in manifest.files.items():
        path = place / name
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != about.bytes:
                raise ThroughtimeError(f"{path} is damaged: it has {size:,} bytes, not {about.bytes:,}")
            with _reading(path):
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != about.sha256:
            raise ThroughtimeError(f"{path} is damaged: its SHA-256 is another")


def _holds(place: Path, manifest: _Manifest) -> bool:
    try:
        _check(place, manifest)
    except ThroughtimeError:
        return False
    return True


def _load(path: Path) -> dict[str, Tensor]:
    if is_utf8(str(path)):
        return load_file(path)
    return load(path.read_bytes())  # the library takes no other names


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What goes wrong with a file, in a line."""
    try:
        yield
    except OSError as error:
        raise ThroughtimeError(f"cannot read {path}: {error.strerror}") from None
    except (SafetensorError, ValueError, KeyError) as error:
        raise ThroughtimeError(f"cannot read {path}: {' '.join(str(error).split())}") from None


def _step(place: Path) -> int:
    found = NAME.fullmatch(place.name)
    return int(found[1]) if found else -1


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
