"""A folder as it may be after a power cut: what was synced is there; of the rest, any part.

A file's data are there for good once the file has been synced, the names in a folder once the folder has. A name and
what it names are apart: a synced file may have no name, and a name may stand for a file without its data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple, final

from faults.watching import Operation


class Write(NamedTuple):
    offset: int
    data: bytes | None
    """None: the file ends at the offset."""


@dataclass
class File:
    synced: bytes = b""
    pending: list[Write] = field(default_factory=list)


@dataclass
class Folder:
    synced: dict[str, File | Folder] = field(default_factory=dict)
    now: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[dict[str, File | Folder | None]] = field(default_factory=list)
    """Names that were given, or taken away (None), since: a rename does both in one step."""

    def change(self, **names: File | Folder | None) -> None:
        self.pending.append(names)
        _change(self.now, names)


class Loss(NamedTuple):
    """What a power cut does to that which was not synced."""

    keeps_name: Callable[[], bool]
    """Asked for each change of a folder."""
    written: Callable[[bytes], bytes]
    """What is left of each write."""


def losses(seeds: int) -> dict[str, Loss]:
    """Power cuts: those that take all of one sort, and, for each seed, one that takes what chance says."""
    found = {
        "all": Loss(lambda: False, lambda _: b""),
        "data": Loss(lambda: True, lambda _: b""),
        "data, for zeros": Loss(lambda: True, lambda data: bytes(len(data))),
        "names": Loss(lambda: False, lambda data: data),
        "none": Loss(lambda: True, lambda data: data),
    }
    for seed in range(seeds):
        found[f"chance {seed}"] = _chance(Random(seed))
    return found


@final
class Disk:
    """A folder and what became of it."""

    def __init__(self, root: Path):
        self.root = _synced(root)

    def do(self, operation: Operation) -> None:
        path = Path(operation.path)
        if operation.kind == "sync":
            node = self._node(path)
            if isinstance(node, File):
                node.synced, node.pending = _content(node, lambda data: data), []
            else:
                node.synced, node.pending = dict(node.now), []
            return
        if operation.kind in ("write", "truncate"):
            node = self._node(path)
            assert isinstance(node, File)
            node.pending.append(Write(operation.offset, operation.data if operation.kind == "write" else None))
            return
        folder = self._node(path.parent)
        assert isinstance(folder, Folder)
        match operation.kind:
            case "create":
                folder.change(**{path.name: File()})
            case "mkdir":
                folder.change(**{path.name: Folder()})
            case "rename":
                assert Path(operation.to).parent == path.parent
                folder.change(**{path.name: None, Path(operation.to).name: folder.now[path.name]})
            case "link":
                assert Path(operation.to).parent == path.parent
                folder.change(**{Path(operation.to).name: folder.now[path.name]})
            case "unlink" | "rmdir":
                folder.change(**{path.name: None})

    def after(self, loss: Loss, into: Path) -> None:
        """Make the folder as it is after a power cut."""
        _make(self.root, loss, into)

    def _node(self, path: Path) -> File | Folder:
        node: File | Folder = self.root
        for part in path.parts:
            assert isinstance(node, Folder)
            node = node.now[part]
        return node


def _chance(random: Random) -> Loss:
    return Loss(lambda: random.random() < 0.5, lambda data: data[: int(len(data) * random.choice([0, 0.5, 1]))])


def _synced(path: Path) -> Folder:
    names = {
        entry.name: _synced(entry) if entry.is_dir() else File(entry.read_bytes()) for entry in sorted(path.iterdir())
    }
    return Folder(dict(names), dict(names))


def _make(folder: Folder, loss: Loss, into: Path) -> None:
    names = dict(folder.synced)
    for change in folder.pending:
        if loss.keeps_name():
            _change(names, change)
    into.mkdir()
    for name, node in names.items():
        if isinstance(node, Folder):
            _make(node, loss, into / name)
        else:
            (into / name).write_bytes(_content(node, loss.written))


def _content(file: File, written: Callable[[bytes], bytes]) -> bytes:
    content = bytearray(file.synced)
    for offset, data in file.pending:
        if data is None:
            del content[offset:]
            continue
        left = written(data)
        content.extend(bytes(max(0, offset + len(left) - len(content))))
        content[offset : offset + len(left)] = left
    return bytes(content)


def _change(names: dict[str, File | Folder], change: dict[str, File | Folder | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node
