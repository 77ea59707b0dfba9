"""A file as a plain one in UTF-8: what is packed or in another encoding is written into the cache once.

What a file is packed by, and whether it is UTF-16 or UTF-32, is told by its first bytes, whatever its name says.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, final

from throughtime.errors import ThroughtimeError
from throughtime.text import encodings
from throughtime.text.cache import cache_folder, entry_name, find_entry, hash_of, new_entry
from throughtime.text.findings import Finding
from throughtime.text.settings import Text
from throughtime.untrusted import open_regular, printable

BLOCK = 1 << 22
"""Bytes read at a time."""
SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}
PACKED = {
    b"\x1f\x8b\x08": "gzip",
    b"\xfd7zXZ\0": "xz",
    **{b"BZh%d" % level + start: "bzip2" for level in range(1, 10) for start in (b"1AY&SY", b"\x17rE8P\x90")},
}
"""The first bytes of what is unpacked."""
NO_TEXTS = {
    b"PK\x03\x04": ("a zip archive", "unzip it, or `unzip -p FILE | throughtime train -`"),
    b"PK\x05\x06": ("an empty zip archive", "name another file"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", "unpack it"),
    b"Rar!\x1a\x07": ("a RAR archive", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", "`zstd -dc FILE | throughtime train -` reads it"),
    b"\x04\x22\x4d\x18": ("packed by lz4", "`lz4 -dc FILE | throughtime train -` reads it"),
    b"\x1f\x9d": ("packed by compress", "`zcat FILE | throughtime train -` reads it"),
    b"%PDF-": ("a PDF", "`pdftotext FILE` makes it a text"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an Office document", "save it as plain text"),
}
"""The first bytes of what is not a text, what it is, and what to do."""
TAR = slice(257, 262)
"""Where a tar archive says `ustar`."""


class Source(NamedTuple):
    """A text under the name its user gave it, and the file that holds it."""

    name: str
    path: Path


@final
class _Hashed(io.RawIOBase):
    """A file that is hashed as it is read: what was read is known, whatever happens to the file meanwhile."""

    def __init__(self, file: BinaryIO):
        self._file, self.digest = file, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        self.digest.update(data)
        buffer[: len(data)] = data
        return len(data)


def read_blocks(path: Path, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The bytes of a regular file from `start` to `stop`, a block at a time; fewer where it has become shorter."""
    try:
        with open_regular(path) as file:
            file.seek(start)
            left = path.stat().st_size - start if stop is None else stop - start
            while left > 0 and (block := file.read(min(BLOCK, left))):
                left -= len(block)
                yield block
    except OSError as error:
        raise ThroughtimeError(f"cannot read {printable(str(path))}: {error.strerror}") from None


def changed(name: str) -> ThroughtimeError:
    """Said of a text that is another than when its reading began."""
    return ThroughtimeError(f"{printable(name)} changed while it was read; start again when it is complete")


def to_plain(source: Source, settings: Text, findings: list[Finding]) -> Source:
    """The source as a plain file in UTF-8 with the line ends asked for; the file itself where it is one already.

    Args:
        source: a regular file.
        settings: the encoding and line ends that it has.
        findings: what is odd about the text is added to them.

    Raises:
        ThroughtimeError: where it cannot be read, unpacked or decoded, or is no text.
    """
    packed = _packed_by(source, findings)
    encoding = _encoding_of(source, packed, settings, findings)
    if not packed and not encoding and settings.newlines == "keep":
        return source
    with _reading(source, None), open_regular(source.path) as raw:
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
    key = hash_of(digest, packed or "", encoding or "", settings.newlines)
    place = find_entry(cache_folder("plain"), key, ".txt")
    return Source(source.name, place or _convert(source, packed, encoding, settings.newlines, digest, key))


def _convert(source: Source, packed: str | None, encoding: str | None, newlines: str, digest: str, key: str) -> Path:
    """Write a file's plain text into the cache, where the file still has the SHA-256 that it is known by."""
    content = hashlib.sha256()
    with open_regular(source.path) as file, new_entry(cache_folder("plain")) as new:
        hashed = _Hashed(file)
        for block in _converted(source, io.BufferedReader(hashed, BLOCK), packed, encoding, newlines):
            content.update(block)
            new.file.write(block)
        while hashed.read(BLOCK):
            pass
        if hashed.digest.hexdigest() != digest:
            raise changed(source.name)
        return new.publish(entry_name(key, content.digest(), ".txt"))


def _packed_by(source: Source, findings: list[Finding]) -> str | None:
    with _reading(source, None), open_regular(source.path) as file:
        head = file.read(16)
    packed = next((kind for start, kind in PACKED.items() if head.startswith(start)), None)
    told = SUFFIXES.get(Path(source.name).suffix.lower())
    if told and head and told != packed:
        raise _cannot_unpack(source, told, f"it holds no {told} data")
    if packed and not told:
        findings.append(Finding(source.name, packed, f"is packed by {packed}, and unpacked"))
    return packed


def _encoding_of(source: Source, packed: str | None, settings: Text, findings: list[Finding]) -> str | None:
    """The encoding that a file is to be turned into UTF-8 from; None where its bytes are kept."""
    with _reading(source, packed), open_regular(source.path) as file:
        head = _unpacked(file, packed).read(encodings.SAMPLE)
    name, mark, zeros = source.name, encodings.marked(head), encodings.unmarked(head)
    what, remedy = _no_text(head)
    if settings.tokens == "byte":
        if kind := what or mark or zeros:
            kind = kind if what else f"{kind.upper()}"
            findings.append(Finding(name, kind, f"is {kind}, and read as the bytes that it is"))
        return None
    if what:
        raise ThroughtimeError(f"{printable(name)} is {what}, not a text: {remedy}")
    if codecs.lookup(settings.encoding).name in ("utf-8", "utf-8-sig"):
        if mark:
            findings.append(
                Finding(name, mark, f"begins with a byte-order mark of {mark.upper()}, and is read as that")
            )
        elif zeros:
            raise ThroughtimeError(
                f"{printable(name)} looks like {zeros.upper()} without a byte-order mark; {_remedy(zeros)}, or use "
                "--tokens byte"
            )
        return mark or (settings.encoding if "sig" in codecs.lookup(settings.encoding).name else None)
    wide = codecs.lookup(settings.encoding).name.startswith(("utf-16", "utf-32"))
    other = "utf-8" if _is_utf8(source, packed, wide) else None if wide else mark or zeros
    if other:
        line = f"is {other.upper()} by its bytes, but read as {settings.encoding}; {_remedy(other)}"
        findings.append(Finding(name, f"not {settings.encoding}", line))
    return settings.encoding


def _no_text(head: bytes) -> tuple[str, str]:
    if head[TAR] == b"ustar":
        return "a tar archive", "unpack it, or `tar -xOf FILE | throughtime train -`"
    if any(head.startswith(start) for start in PACKED):
        return "packed twice", "unpack it once"
    return next((found for start, found in NO_TEXTS.items() if head.startswith(start)), ("", ""))


def _remedy(encoding: str) -> str:
    return f"--encoding {encoding} (text.encoding) reads it as that"


def _is_utf8(source: Source, packed: str | None, wide: bool) -> bool:
    """Whether all of a file is UTF-8, and plainly so.

    Args:
        wide: whether UTF-16 or UTF-32 is the other choice: ASCII without zeros then is plain enough. Else there must be
            a character outside ASCII.
    """
    decoder, beyond = codecs.getincrementaldecoder("utf-8")(), False
    with _reading(source, packed), open_regular(source.path) as file:
        raw, block = _unpacked(file, packed), b"-"
        while block:
            block = raw.read(BLOCK)
            try:
                beyond = not decoder.decode(block, final=not block).isascii() or beyond
            except UnicodeDecodeError:
                return False
            if wide and b"\0" in block:
                return False
    return beyond or wide


def _unpacked(raw: BinaryIO | io.BufferedReader, packed: str | None) -> BinaryIO | io.BufferedIOBase:
    match packed:
        case "gzip":
            return gzip.GzipFile(fileobj=raw)
        case "bzip2":
            return bz2.BZ2File(raw)
        case "xz":
            return lzma.LZMAFile(raw)
    return raw


@contextmanager
def _reading(source: Source, packed: str | None) -> Iterator[None]:
    """What goes wrong while a file is read and unpacked, in a line."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise _cannot_unpack(source, str(packed), error) from None
    except OSError as error:
        if packed and not error.errno:  # the error of bz2 for damaged data
            raise _cannot_unpack(source, packed, error) from None
        raise ThroughtimeError(f"cannot read {printable(source.name)}: {error.strerror}") from None


def _cannot_unpack(source: Source, packed: str, what: object) -> ThroughtimeError:
    return ThroughtimeError(f"{printable(source.name)} cannot be unpacked: {what}; `{packed} -t` tells more")


def _converted(
    source: Source, file: io.BufferedReader, packed: str | None, encoding: str | None, newlines: str
) -> Iterator[bytes]:
    held = b""
    raw = _blocks(source, file, packed)
    for block in _decoded(source.name, raw, encoding) if encoding else raw:
        if newlines == "lf":
            # A CR at the end of a block waits for the LF that may open the next.
            block = held + block
            held = b"\r" if block.endswith(b"\r") else b""
            block = block.removesuffix(held).replace(b"\r\n", b"\n")
        yield block
    yield held


def _blocks(source: Source, file: io.BufferedReader, packed: str | None) -> Iterator[bytes]:
    with _reading(source, packed):
        raw = _unpacked(file, packed)
        while block := raw.read(BLOCK):
            yield block


def _decoded(name: str, blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """The text as UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)()
    place, block = 0, b"-"
    while block:
        block = next(blocks, b"")
        pending = len(decoder.getstate()[0])
        try:
            yield decoder.decode(block, final=not block).encode()
        except UnicodeError as error:
            where = f"byte {place - pending + error.start:,}: " if isinstance(error, UnicodeDecodeError) else ""
            reason = error.reason if isinstance(error, UnicodeDecodeError | UnicodeEncodeError) else error
            raise ThroughtimeError(
                f"{printable(name)} is not {encoding}: {where}{reason}; set text.encoding, or use --tokens byte"
            ) from None
        place += len(block)
