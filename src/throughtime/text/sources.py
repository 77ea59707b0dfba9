"""Names to files: what a user calls a text, as plain files on disk.

A source is a file, a folder (every file below it that is not hidden, in the order of their paths), a glob, `-` for
standard input, `builtin` or `builtin:stdlib`. What can be read only once is written into the cache, so that everything
later reads spans of plain files.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
import select
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, takewhile
from pathlib import Path
from typing import BinaryIO

from throughtime.errors import ThroughtimeError
from throughtime.text import plain
from throughtime.text.cache import cache_base, cache_folder, entry_name, find_entry, hash_of, new_entry
from throughtime.text.findings import Finding
from throughtime.text.outputs import is_output, is_output_folder
from throughtime.text.plain import Source, to_plain
from throughtime.text.settings import Text
from throughtime.untrusted import FILE_KINDS, printable

STANDARD_INPUT = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
BUILTIN = ("builtin", "builtin:stdlib")
WAITED_FOR = 10
"""Seconds in which somebody should begin to write into a named pipe."""


def open_sources(
    names: Iterable[str], settings: Text, findings: list[Finding] | None = None, recorded: bool = False
) -> list[Source]:
    """The files behind `names`, in order, each once.

    Args:
        names: of files, folders, globs, standard input and built-in texts.
        settings: the encoding and line ends that they have.
        findings: what is odd about them, and what is left out, is added to these.
        recorded: whether the names come from a run, not from the user: then only regular files are read.

    Raises:
        ThroughtimeError: where a name leads to nothing, or a file cannot be read in the encoding it should have.
    """
    findings = [] if findings is None else findings
    found, seen = [], set()
    for source in (source for name in names for source in _expand(name, findings, recorded)):
        file = _identity(source.path)
        if file in seen:
            findings.append(Finding(source.name, "twice", "is named twice, and read once"))
            continue
        seen.add(file)
        found.append(to_plain(source, settings, findings))
    return found


def _expand(name: str, findings: list[Finding], recorded: bool) -> list[Source]:
    if not name:
        raise ThroughtimeError("a text needs a name, got an empty one; name a file, a folder, a glob, - or builtin")
    if name in STANDARD_INPUT and not recorded:
        return [_standard_input()]
    if name.split(":")[0] == "builtin":
        if os.path.lexists(name):
            findings.append(Finding(name, "builtin", f"is Python's own text, not the file; ./{name} names the file"))
        return _builtin(name)
    path = _path(name)
    mode = _mode(path)
    if mode is None and glob.has_magic(name):
        return _matches(name, path, findings)
    if mode is None:
        raise ThroughtimeError(_missing(name, path))
    if stat.S_ISREG(mode):
        return [Source(name, path)]
    if stat.S_ISDIR(mode):
        return _folder(name, path, findings)
    if stat.S_ISFIFO(mode) and not recorded:  # it can be read only once, and has no size
        return [_pipe(name, path)]
    kind = FILE_KINDS.get(stat.S_IFMT(mode), "no regular file")
    raise ThroughtimeError(f"cannot read {printable(name)}: it is {kind}; a text is a file, a folder or a pipe")


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise ThroughtimeError(
            f"there is no user {printable(name.split('/')[0][1:])}, in whose home {printable(name)} would be; "
            f"./{printable(name)} names a file here"
        ) from None


def _mode(path: Path) -> int | None:
    """What a path leads to; None where there is nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ThroughtimeError(f"cannot read {printable(str(path))}: {reason}") from None


def _identity(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError as error:
        raise ThroughtimeError(f"cannot read {printable(str(path))}: {error.strerror}") from None
    return facts.st_dev, facts.st_ino


def _missing(name: str, path: Path) -> str:
    if path.is_symlink():
        return f"{printable(name)} is a symbolic link to {printable(os.readlink(path))}, which is not there"
    siblings: list[str] = []
    with suppress(OSError):
        siblings = os.listdir(path.parent)
    near = difflib.get_close_matches(path.name, siblings, n=1)
    rest = f"; did you mean {printable(str(path.with_name(near[0])))}?" if near else f" (looked from {_here()})"
    return f"there is no file {printable(name)}{rest}"


def _here() -> str:
    return printable(os.getcwd())


def _folder(name: str, folder: Path, findings: list[Finding]) -> list[Source]:
    if is_output_folder(folder):
        raise ThroughtimeError(f"{printable(name)} is the folder of a run or a model, not of texts")
    files = [file for file in sorted(_below(folder, findings)) if _is_text(file, findings)]
    if not files:
        raise ThroughtimeError(
            f"the folder {printable(name)} holds no file; name a text file, a folder of them or a glob"
        )
    return [Source(str(file), file) for file in files]


def _below(folder: Path, findings: list[Finding]) -> Iterator[Path]:
    """The files below a folder that are not hidden. Linked folders are read too, each folder once."""

    def refuse(error: OSError) -> None:
        raise ThroughtimeError(f"cannot read the folder {printable(str(error.filename))}: {error.strerror}")

    seen = {_identity(folder)}
    with suppress(ThroughtimeError):  # there need not be a cache yet
        seen.add(_identity(cache_base()))
    for top, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        inside = sorted((Path(top, name) for name in folders if not name.startswith(".")), key=_links_last)
        folders.clear()
        for path in inside:
            identity = _identity(path)
            if is_output_folder(path):
                findings.append(_left_out(path, "it is the folder of a run or a model"))
            elif identity in seen:
                findings.append(_left_out(path, "it is read elsewhere already, or is the cache"))
            else:
                seen.add(identity)
                folders.append(path.name)
        yield from (Path(top, name) for name in files if not name.startswith("."))


def _links_last(path: Path) -> tuple[bool, Path]:
    return path.is_symlink(), path


def _is_text(path: Path, findings: list[Finding]) -> bool:
    """Whether a file that was not named itself is read: it must be a regular file, and not one that a command wrote."""
    mode = _mode(path)
    if mode is None:
        reason = "it is a symbolic link to what is not there"
    elif not stat.S_ISREG(mode):
        reason = f"it is {FILE_KINDS.get(stat.S_IFMT(mode), 'no regular file')}"
    elif is_output(path):
        reason = "a command wrote it"
    else:
        return True
    findings.append(_left_out(path, reason))
    return False


def _left_out(path: Path, reason: str) -> Finding:
    return Finding(str(path), reason, f"is left out: {reason}")


def _matches(name: str, path: Path, findings: list[Finding]) -> list[Source]:
    root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    folders: dict[Path, bool] = {}
    matches = []
    for match in map(Path, sorted(glob.glob(str(path), recursive=True))):
        above = [folder for folder in match.parents if folder == root or root in folder.parents]
        for folder in above:
            if folder not in folders:
                folders[folder] = is_output_folder(folder)
                if folders[folder]:
                    findings.append(_left_out(folder, "it is the folder of a run or a model"))
        if not match.is_dir() and not any(folders[folder] for folder in above) and _is_text(match, findings):
            matches.append(match)
    if not matches:
        raise ThroughtimeError(f"no file matches {printable(name)}; is it quoted as meant, and relative to {_here()}?")
    return [Source(str(match), match) for match in matches]


def _standard_input() -> Source:
    if sys.stdin is None:
        raise ThroughtimeError("standard input is closed; name a file, or give a text through a pipe")
    return _spooled("standard input", sys.stdin.buffer)


def _pipe(name: str, path: Path) -> Source:
    """What comes out of a named pipe. Nobody may be writing into it: that is not waited for without end."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise ThroughtimeError(f"cannot read {printable(name)}: {error.strerror}") from None
    with os.fdopen(handle, "rb") as stream:
        first, poll = b"", select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(1000 * WAITED_FOR):
            with suppress(BlockingIOError):  # there is a writer, who has not written yet
                first = os.read(handle, 1)
                if not first:
                    raise ThroughtimeError(
                        f"{printable(name)} is a pipe that nobody writes into, for {WAITED_FOR} s; start the writer"
                    )
        os.set_blocking(handle, True)
        return _spooled(name, stream, first)


def _spooled(name: str, stream: BinaryIO, first: bytes = b"") -> Source:
    """What a stream says, in a file under its hash: it can be read only once, and is needed several times.

    Args:
        first: what was read of it already.
    """
    digest = hashlib.sha256()
    with new_entry(cache_folder("plain")) as new:
        for block in chain([first], iter(lambda: stream.read(plain.BLOCK), b"")):
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
    raise ThroughtimeError(f"there is no built-in text {printable(name)}; there are {' and '.join(BUILTIN)}")


def _language_reference() -> Path:
    """The topics of Python's own help, in the order of their names.

    Topics quote each other at length. A paragraph is taken once, where it first stands, or the validation text would
    repeat what was trained on.
    """
    from pydoc_data.topics import topics

    paragraphs = (paragraph.strip("\n") for topic in sorted(topics) for paragraph in topics[topic].split("\n\n"))
    content = "\n\n".join(dict.fromkeys(paragraphs)).encode()
    folder, key = cache_folder("plain"), f"language-reference-{hash_of(content)}"
    if found := find_entry(folder, key, ".txt"):
        return found
    with new_entry(folder) as new:
        new.file.write(content)
        return new.publish(entry_name(key, hashlib.sha256(content).digest(), ".txt"))
