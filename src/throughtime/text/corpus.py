"""Plain files to documents: the order of the text, its split, what is odd about it, and pieces small enough to encode.

Nothing is dropped or changed here. What a user may want to know of (a byte-order mark, NUL, CR LF, an empty file) is
kept and said in a note with the setting that would change it; what cannot be read as asked is an error.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from throughtime.errors import ThroughtimeError
from throughtime.recipe import Text
from throughtime.text.sources import BLOCK, open_sources, read_blocks

BEFORE_SPACE = re.compile(r"(?s).*\S(?=[ \t\v\f\r\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000])")
BEFORE_MARK = re.compile(r"(?s).*[0-9A-Za-z_](?=[!-&(-/:-@\[-^`{-~])")
"""Up to the last place where every tokeniser ends a token: before a space or a mark that follows a word."""


ODDITIES = {
    "empty": "is empty and adds nothing",
    "bom": "begins with a byte-order mark, kept as text; text.encoding = 'utf-8-sig' leaves it out",
    "nul": "holds {:,} NUL bytes, kept as text; is it a text file?",
    "crlf": "has {:,} CR LF line ends, kept as text; text.newlines = 'lf' makes them LF",
}


class Document(NamedTuple):
    """Bytes `start` to `stop` of a plain file."""

    name: str
    path: Path
    start: int
    stop: int


class Corpus(NamedTuple):
    """Documents in the order of the text."""

    documents: tuple[Document, ...]

    @property
    def size(self) -> int:
        """Length in bytes."""
        return sum(document.stop - document.start for document in self.documents)


class Scan(NamedTuple):
    """What one reading of a corpus found."""

    digest: str
    """SHA-256 of the bytes and of where the documents begin, as 32 hexadecimal digits."""
    characters: int | None
    """Length in characters; None where the bytes are not UTF-8."""
    oddities: tuple[tuple[str, str, int], ...]
    """What is odd: the name of the text, a key of ODDITIES, how often."""


class Piece(NamedTuple):
    """Some bytes of a document, short enough to encode at once."""

    data: bytes
    opens_document: bool


def open_corpus(names: Sequence[str], settings: Text) -> Corpus:
    """Every source in `names` as a document."""
    sources = open_sources(names, settings)
    return Corpus(tuple(Document(source.name, source.path, 0, source.path.stat().st_size) for source in sources))


def split_corpus(corpus: Corpus, shares: tuple[float, float, float]) -> tuple[Corpus, Corpus, Corpus]:
    """Training, validation and test text: contiguous shares of the bytes, in order, cut between characters."""
    empty = tuple(document for document in corpus.documents if document.start == document.stop)
    size = corpus.size
    first = _between_characters(corpus, int(size * shares[0] + 1e-6))
    second = _between_characters(corpus, int(size * (shares[0] + shares[1]) + 1e-6)) if shares[2] else size
    if not shares[1]:
        first = second
    train = Corpus(_cut(corpus, 0, first).documents + empty)
    return train, _cut(corpus, first, second), _cut(corpus, second, size)


def scan(corpus: Corpus, tokens: str) -> Scan:
    """Read a corpus once: its hash, its length in characters, its oddities.

    Raises:
        ThroughtimeError: where the tokens need UTF-8 and a file is not; the message names the file and the byte.
    """
    digest = hashlib.sha256()
    characters: int | None = 0
    oddities: list[tuple[str, str, int]] = []
    for document in corpus.documents:
        length = document.stop - document.start
        digest.update(length.to_bytes(8, "little"))
        counted, nuls, crlfs = 0, 0, 0
        decoder = codecs.getincrementaldecoder("utf-8")()
        place, last, opening = document.start, b"", b""
        for block in read_blocks(document.path, document.start, document.stop):
            digest.update(block)
            opening = (opening + block[:3])[:3]
            nuls += block.count(b"\0")
            crlfs += (last + block).count(b"\r\n")
            last = block[-1:] if block.endswith(b"\r") else b""
            if characters is not None:
                pending = len(decoder.getstate()[0])
                try:
                    counted += len(decoder.decode(block, final=place + len(block) == document.stop))
                except UnicodeDecodeError as error:
                    if tokens != "byte":
                        raise _not_utf8(document, place - pending + error.start, error) from None
                    characters = None
            place += len(block)
        if place != document.stop:
            raise ThroughtimeError(f"{document.name} changed while it was read; start again when it is complete")
        characters = None if characters is None else characters + counted
        marks = document.start == 0 and opening == codecs.BOM_UTF8
        counts = {"empty": not length, "bom": marks, "nul": nuls, "crlf": crlfs}
        oddities += [(document.name, kind, int(count)) for kind, count in counts.items() if count]
    return Scan(digest.hexdigest()[:32], characters, tuple(oddities))


def notes(scans: Iterable[Scan]) -> tuple[str, ...]:
    """A line for each thing that is odd in a text, over all the splits it was cut into."""
    counts: Counter[tuple[str, str]] = Counter()
    for name, kind, count in (oddity for found in scans for oddity in found.oddities):
        counts[name, kind] += count
    return tuple(f"{name} {ODDITIES[kind].format(count)}" for (name, kind), count in counts.items())


def read_pieces(corpus: Corpus, limit: int, separator: bytes = b"") -> Iterator[Piece]:
    """The corpus in pieces of at most `limit` bytes.

    A piece ends where a document does, else after a line end, else before a space or a mark that follows a word: there
    every tokeniser ends a token anyway, so that the pieces' tokens are the tokens of the whole. Only a stretch of more
    than `limit` bytes without such a place is cut elsewhere, between characters.
    """
    for document in corpus.documents:
        opens = True
        held = b""
        for block in read_blocks(document.path, document.start, document.stop):
            *whole, held = _split_after(held + block, separator)
            for data in whole:
                yield from _limited(data, limit, opens)
                opens = True
            # What might be the first half of a separator stays; so does what a better cut may follow.
            if len(held) > BLOCK:
                cut = _cut_before(held, len(held) - max(len(separator), 4))
                yield from _limited(held[:cut], limit, opens)
                opens, held = False, held[cut:]
        if held:
            yield from _limited(held, limit, opens)


def _limited(data: bytes, limit: int, opens: bool) -> Iterator[Piece]:
    start = 0
    while start < len(data):
        stop = len(data) if len(data) - start <= limit else start + _cut_before(data[start : start + limit + 1], limit)
        yield Piece(data[start:stop], opens and start == 0)
        start = stop


def _cut_before(data: bytes, limit: int) -> int:
    """The best place to cut, at most `limit` and more than 0."""
    line_end = data.rfind(b"\n", 0, limit)
    if line_end >= 0:
        return line_end + 1
    stop = next((place for place in range(limit, max(limit - 4, 0), -1) if data[place] & 0xC0 != 0x80), limit)
    try:
        text = data[:stop].decode()
    except UnicodeDecodeError:  # no text: only byte tokens come here, and take any cut
        return stop
    for pattern in (BEFORE_SPACE, BEFORE_MARK):
        if found := pattern.match(text):
            return len(found.group().encode())
    return stop


def _split_after(data: bytes, separator: bytes) -> list[bytes]:
    if not separator:
        return [data]
    *whole, rest = data.split(separator)
    return [*(part + separator for part in whole), rest]


def _between_characters(corpus: Corpus, position: int) -> int:
    """`position`, moved on past the rest of a UTF-8 character that it would cut (three bytes at most)."""
    rest = b"".join(
        b"".join(read_blocks(d.path, d.start, d.stop)) for d in _cut(corpus, position, position + 3).documents
    )
    return position + len(rest) - len(rest.lstrip(bytes(range(0x80, 0xC0))))


def _cut(corpus: Corpus, start: int, stop: int) -> Corpus:
    documents = []
    before = 0
    for name, path, first, last in corpus.documents:
        begin, end = max(first, first + start - before), min(last, first + stop - before)
        if begin < end:
            documents.append(Document(name, path, begin, end))
        before += last - first
    return Corpus(tuple(documents))


def _not_utf8(document: Document, place: int, error: UnicodeDecodeError) -> ThroughtimeError:
    return ThroughtimeError(
        f"{document.name} is not UTF-8: byte {place:,} is 0x{error.object[error.start]:02x} ({error.reason}); "
        "use --tokens byte, or name its encoding, such as --set text.encoding=latin-1"
    )
