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
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from throughtime.errors import ThroughtimeError
from throughtime.text import encodings
from throughtime.text.findings import Finding, lines
from throughtime.text.plain import BLOCK, changed, read_blocks
from throughtime.text.settings import Text
from throughtime.text.sources import open_sources
from throughtime.untrusted import printable

BEFORE_SPACE = re.compile(r"(?s).*\S(?=[ \t\v\f\r\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000])")
BEFORE_MARK = re.compile(r"(?s).*[0-9A-Za-z_](?=[!-&(-/:-@\[-^`{-~])")
"""Up to the last place where every tokeniser ends a token: before a space or a mark that follows a word."""


UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
"""Letters of scripts that do not separate words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
ODDITIES = {
    "empty": "is empty and adds nothing",
    "bom": "begins with a byte-order mark, kept as text; text.encoding = 'utf-8-sig' leaves it out",
    "nul": "holds {:,} NUL bytes, kept as text; is it a text file?",
    "crlf": "has {:,} CR LF line ends, kept as text; text.newlines = 'lf' makes them LF",
    "cr": "has {:,} line ends that are a CR alone, kept as text; `tr '\\r' '\\n'` makes them LF",
    "unknown": "holds {:,} times a literal <unk>, which is read as a word that the vocabulary lacks",
    "unspaced": "is in a script that does not separate words, so that a token is all between two marks; "
    "--tokens char or bpe suits it better",
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
    line_ends: int
    """How often there is an LF."""
    separators: int
    """How often the separator stands there, where one was asked for."""


class Piece(NamedTuple):
    """Some bytes of a document, short enough to encode at once."""

    data: bytes
    opens_document: bool


def open_corpus(
    names: Sequence[str], settings: Text, findings: list[Finding] | None = None, recorded: bool = False
) -> Corpus:
    """Every source in `names` as a document; arguments as of `open_sources`."""
    sources = open_sources(names, settings, findings, recorded)
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


def scan(corpus: Corpus, tokens: str, separator: bytes = b"") -> Scan:
    """Read a corpus once: its hash, its length in characters, its oddities.

    Raises:
        ThroughtimeError: where the tokens need UTF-8 and a file is not; the message names the file and the byte.
    """
    digest = hashlib.sha256()
    characters: int | None = 0
    oddities: list[tuple[str, str, int]] = []
    line_ends = separators = 0
    for document in corpus.documents:
        place, head = document.start, b""
        counted = Occurrences(b"\n", b"\r", b"\r\n", b"\0", b"<unk>" if tokens == "word" else b"", separator)
        decoder = codecs.getincrementaldecoder("utf-8")()
        for block in document_blocks(document, digest):
            head += block[: encodings.SAMPLE - len(head)]
            counted.add(block)
            if characters is not None:
                pending = len(decoder.getstate()[0])
                try:
                    characters += len(decoder.decode(block, final=place + len(block) == document.stop))
                except UnicodeDecodeError as error:
                    if tokens != "byte":
                        raise _not_utf8(document, place - pending + error.start, error) from None
                    characters = None
            place += len(block)
        feeds, returns, both, nuls, unknown, ends = counted.counts
        counts = {
            "empty": document.start == document.stop,
            "bom": document.start == 0 and head.startswith(codecs.BOM_UTF8),
            "nul": nuls,
            "crlf": both,
            "cr": returns - both if returns - both > feeds else 0,
            "unknown": unknown,
            "unspaced": tokens == "word" and _is_unspaced(head),
        }
        oddities += [(document.name, kind, int(count)) for kind, count in counts.items() if count]
        line_ends, separators = line_ends + feeds, separators + ends
    return Scan(digest.hexdigest()[:32], characters, tuple(oddities), line_ends, separators)


class Occurrences:
    """How often each of some patterns stands in a text that comes in blocks; an empty pattern, never."""

    def __init__(self, *patterns: bytes):
        self._patterns, self._tails = patterns, [b""] * len(patterns)
        self.counts = [0] * len(patterns)

    def add(self, block: bytes) -> None:
        for index, pattern in enumerate(self._patterns):
            if len(pattern) == 1:
                self.counts[index] += int(np.count_nonzero(np.frombuffer(block, np.uint8) == pattern[0]))
            elif pattern:
                if pattern[:1] in block:  # which is found much faster
                    self.counts[index] += block.count(pattern)
                # A tail is too short to hold the pattern, so that nothing is counted twice.
                tail, most = self._tails[index], len(pattern) - 1
                self.counts[index] += (tail + block[:most]).count(pattern)
                self._tails[index] = (tail + block[-most:])[-most:]


def _is_unspaced(head: bytes) -> bool:
    letters = [character for character in head.decode("utf-8", "ignore") if character.isalpha()]
    return 2 * len(UNSPACED.findall("".join(letters))) > len(letters)


def notes(scans: Iterable[Scan]) -> tuple[str, ...]:
    """A line for each thing that is odd in a text, over all the splits it was cut into."""
    return lines(oddities(scans))


def oddities(scans: Iterable[Scan]) -> list[Finding]:
    """What is odd in a text, over all the splits it was cut into."""
    counts: Counter[tuple[str, str]] = Counter()
    for name, kind, count in (oddity for found in scans for oddity in found.oddities):
        counts[name, kind] += count
    return [Finding(name, kind, ODDITIES[kind].format(count)) for (name, kind), count in counts.items()]


def document_blocks(document: Document, digest: Any = None) -> Iterator[bytes]:
    """The bytes of a document, a block at a time.

    Args:
        document: what to read.
        digest: a hash that is fed with the document's length and its bytes, as they are read.

    Raises:
        ThroughtimeError: where there are fewer bytes than there should be.
    """
    left = document.stop - document.start
    if digest:
        digest.update(left.to_bytes(8, "little"))
    for block in read_blocks(document.path, document.start, document.stop):
        left -= len(block)
        if digest:
            digest.update(block)
        yield block
    if left:
        raise changed(document.name)


def read_pieces(corpus: Corpus, limit: int, separator: bytes = b"", digest: Any = None) -> Iterator[Piece]:
    """The corpus in pieces of at most `limit` bytes.

    A piece ends where a document does, else after a line end, else before a space or a mark that follows a word: there
    every tokeniser ends a token anyway, so that the pieces' tokens are the tokens of the whole. Only a stretch of more
    than `limit` bytes without such a place is cut elsewhere, between characters.

    Args:
        corpus: the text.
        limit: most bytes of a piece.
        separator: ends a document inside a file.
        digest: a hash that is fed with all that is read; at the end it is the `digest` of a `scan` of the same bytes.
    """
    for document in corpus.documents:
        opens = True
        held = b""
        for block in document_blocks(document, digest):
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
    rest = b"".join(chain.from_iterable(map(document_blocks, _cut(corpus, position, position + 3).documents)))
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
    head, around = (
        b"".join(read_blocks(document.path, start, min(document.stop, start + encodings.SAMPLE)))
        for start in (0, max(place - encodings.SAMPLE // 8, 0))
    )
    around = around[around.find(b"\n", 0, encodings.SAMPLE // 8) + 1 :]
    guess = encodings.unmarked(head) or encodings.guessed(around)
    remedy = (
        f"it may be {guess}: --encoding {guess} (text.encoding) reads it as that"
        if guess
        else "name its encoding by --encoding (text.encoding)"
    )
    return ThroughtimeError(
        f"{printable(document.name)} is not UTF-8: byte {place:,} is 0x{error.object[error.start]:02x} "
        f"({error.reason}); {remedy}, or use --tokens byte"
    )
