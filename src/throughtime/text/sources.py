"""Names to files: what a user calls a text, as plain files on disk.

A source is a file, a folder (every file below it that is not hidden, in the order of their paths), a glob, `-` for
standard input, `builtin` or `builtin:stdlib`. What is not a plain file yet (standard input, `.gz`, a built-in text, a
text in another encoding or with other line ends) is written into the cache once, so that everything later reads spans
of plain files.
"""

from __future__ import annotations

import codecs
import difflib
import glob
import gzip
import hashlib
import sys
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from throughtime.durable import NewFile
from throughtime.errors import ThroughtimeError
from throughtime.recipe import Text
from throughtime.text.cache import cache_folder, hash_of

BLOCK = 1 << 22
"""Bytes read at a time."""


class Source(NamedTuple):
    """A text under the name its user gave it, and the plain file that holds it."""

    name: str
    path: Path


def open_sources(names: Iterable[str], settings: Text) -> list[Source]:
    """The files behind `names`, in order.

    Raises:
        ThroughtimeError: where a name leads to nothing, or a file cannot be read in the encoding it should have.
    """
    return [_plain(source, settings) for name in names for source in _expand(name)]


def read_blocks(path: Path, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The bytes of a file from `start` to `stop`, a block at a time."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            left = path.stat().st_size - start if stop is None else stop - start
            while left > 0 and (block := file.read(min(BLOCK, left))):
                left -= len(block)
                yield block
    except OSError as error:
        raise ThroughtimeError(f"cannot read {path}: {error.strerror}") from None


def _expand(name: str) -> list[Source]:
    if name == "-":
        return [_spooled("standard input", sys.stdin.buffer)]
    if name.split(":")[0] == "builtin" and not Path(name).exists():
        return _builtin(name)
    if not name:
        raise ThroughtimeError("a text needs a name, got an empty one; name a file, a folder, a glob, - or builtin")
    path = Path(name).expanduser()
    if path.is_dir():
        below = (file for file in sorted(path.rglob("*")) if file.is_file())
        files = [file for file in below if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        if not files:
            raise ThroughtimeError(f"the folder {name} holds no file; name a text file, a folder of them or a glob")
        return [Source(str(file), file) for file in files]
    if path.is_file():
        return [Source(name, path)]
    if path.exists():  # a pipe or a device: it can be read only once, and has no size
        with path.open("rb") as stream:
            return [_spooled(name, stream)]
    if glob.has_magic(name):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if Path(match).is_file()]
        if not matches:
            raise ThroughtimeError(f"no file matches {name}; is it quoted as meant, and relative to {Path.cwd()}?")
        return [Source(str(match), match) for match in matches]
    raise ThroughtimeError(f"there is no file {name}{_neighbour(path)}")


def _neighbour(path: Path) -> str:
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f"; did you mean {path.with_name(near[0])}?" if near else f" (looked from {Path.cwd()})"


def _spooled(name: str, stream: BinaryIO) -> Source:
    """What a stream says, in a file under its hash: it can be read only once, and is needed several times."""
    digest = hashlib.sha256()
    with NewFile(cache_folder("plain")) as new:
        for block in iter(lambda: stream.read(BLOCK), b""):
            digest.update(block)
            new.file.write(block)
        return Source(name, new.publish(f"{digest.hexdigest()[:32]}.txt"))


def _builtin(name: str) -> list[Source]:
    if name == "builtin":
        return [Source(name, _language_reference())]
    if name == "builtin:stdlib":
        folder = Path(sysconfig.get_paths()["stdlib"])
        leave_out = {"test", "tests", "idle_test", "site-packages", "lib2to3"}
        files = [file for file in sorted(folder.rglob("*.py")) if not leave_out & set(file.relative_to(folder).parts)]
        return [Source(f"{name}/{file.relative_to(folder)}", file) for file in files]
    raise ThroughtimeError(f"there is no built-in text {name}; there are builtin and builtin:stdlib")


def _language_reference() -> Path:
    """The topics of Python's own help, in the order of their names.

    Topics quote each other at length. A paragraph is taken once, where it first stands, or the validation text would
    repeat what was trained on.
    """
    from pydoc_data.topics import topics

    paragraphs = (paragraph.strip("\n") for topic in sorted(topics) for paragraph in topics[topic].split("\n\n"))
    content = "\n\n".join(dict.fromkeys(paragraphs)).encode()
    name = f"language-reference-{hash_of(content)}.txt"
    if not (cache_folder("plain") / name).exists():
        with NewFile(cache_folder("plain")) as new:
            new.file.write(content)
            new.publish(name)
    return cache_folder("plain") / name


def _plain(source: Source, settings: Text) -> Source:
    """The source as a plain file in UTF-8 with the line ends asked for; the file itself where it is one already."""
    zipped = source.name.endswith(".gz")
    utf8 = settings.tokens == "byte" or codecs.lookup(settings.encoding).name == "utf-8"
    if not zipped and utf8 and settings.newlines == "keep":
        return source
    with source.path.open("rb") as raw:
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
    name = f"{hash_of(digest, str(zipped), '' if utf8 else settings.encoding, settings.newlines)}.txt"
    place = cache_folder("plain") / name
    if not place.exists():
        opened = gzip.GzipFile(source.path) if zipped else source.path.open("rb")
        with opened as raw, NewFile(cache_folder("plain")) as new:
            for block in _converted(source.name, raw, None if utf8 else settings.encoding, settings.newlines):
                new.file.write(block)
            new.publish(name)
    return Source(source.name, place)


def _converted(name: str, raw: BinaryIO | gzip.GzipFile, encoding: str | None, newlines: str) -> Iterator[bytes]:
    held = b""
    try:
        for block in _decoded(name, raw, encoding) if encoding else iter(lambda: raw.read(BLOCK), b""):
            if newlines == "lf":
                # A CR at the end of a block waits for the LF that may open the next.
                block = held + block
                held = b"\r" if block.endswith(b"\r") else b""
                block = block.removesuffix(held).replace(b"\r\n", b"\n")
            yield block
        yield held
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ThroughtimeError(f"{name} ends in .gz but cannot be unpacked: {error}; gzip -t tells more") from None


def _decoded(name: str, raw: BinaryIO | gzip.GzipFile, encoding: str) -> Iterator[bytes]:
    """The text as UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)()
    place = 0
    while True:
        block = raw.read(BLOCK)
        pending = len(decoder.getstate()[0])
        try:
            yield decoder.decode(block, final=not block).encode()
        except UnicodeError as error:
            where = f"byte {place - pending + error.start:,}: " if isinstance(error, UnicodeDecodeError) else ""
            reason = error.reason if isinstance(error, UnicodeDecodeError | UnicodeEncodeError) else error
            raise ThroughtimeError(
                f"{name} is not {encoding}: {where}{reason}; set text.encoding, or use --tokens byte"
            ) from None
        if not block:
            return
        place += len(block)
