"""Ids on disk: memory-mapped shards, and an index that says what they were made from.

A shard is a safetensors file: `ids` (uint16 or uint32, one a token) and `documents` (int64, where documents begin,
counted in tokens of the shard), with what was counted on the way as its metadata. The index is JSON, and written last.
All is written in one pass, in bounded memory: the header's room is kept free and filled in last. If tokenising is
interrupted, the next process goes on after the last complete shard that was made from the same bytes.

What is read is believed only after its checksums held: each shard has the SHA-256 of its ids, and of the text they were
made from, and the index has those of its shards. All of it is read once for that when a text is opened, which takes
about as long as the scan of a text in characters, and a third of it in words.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import accumulate, chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, final, get_type_hints

import numpy as np
import numpy.typing as npt

from throughtime.errors import ThroughtimeError
from throughtime.text.cache import hash_of, make_way, new_entry, remove_entry
from throughtime.text.corpus import Corpus, Piece, Scan, read_pieces
from throughtime.text.plain import changed
from throughtime.text.tokenizer import Ids, Tokenizer
from throughtime.text.workers import Batch, encoded
from throughtime.untrusted import open_regular, parse_json, read_file

FORMAT = 4
HASHED_AT_ONCE = 1 << 20
"""Bytes of a shard that are read at once to be checked."""
"""Raised whenever the files or the encoding change: ids in the cache are then made anew."""
HEADER_ROOM = 4096
BATCH_BYTES = 1 << 21
"""Text encoded at once; the library's encodings take some fifty times as much memory."""
SHARD_TOKENS = 1 << 26
"""From so many on a shard is full: less than a minute's work, of the slowest tokeniser."""
READS_BETWEEN_RELEASES = 2048
DTYPES: dict[str, np.dtype[np.integer[Any]]] = {"U16": np.dtype("<u2"), "U32": np.dtype("<u4"), "I64": np.dtype("<i8")}
"""By the names that safetensors has for them."""


class Facts(NamedTuple):
    """What is known of a tokenised text beyond its ids. Lengths are of the text before tokenising."""

    text: str
    """Hash of the text."""
    tokenizer: str
    """Hash of the tokeniser."""
    bytes: int
    characters: int | None
    """None where the text is not UTF-8."""
    unknown: int
    """Tokens the vocabulary lacks."""
    hidden_bytes: int
    """Bytes that stand behind unknown tokens."""
    first_bytes: int
    """Bytes of the first token, which nothing predicts."""
    first_characters: int
    """Characters that begin in the first token."""
    first_unknown: bool
    """Whether the vocabulary lacks the first token."""
    exact: bool
    """Whether decoding gives the text back."""


class Counts(NamedTuple):
    """What was counted while a shard was made."""

    text: str
    """SHA-256 of the pieces, in the bytes that were encoded."""
    pieces: int
    """Of the text, as they are encoded."""
    known_bytes: int
    """Bytes that stand behind known tokens."""
    unknown: int
    """Tokens the vocabulary lacks."""
    exact: bool
    """Whether decoding the first piece of each batch gave it back."""


Checked = TypeVar("Checked", Facts, Counts)


@final
class TokenIds:
    """A tokenised text, read from disk as needed.

    Args:
        index: its index, as `write_ids` wrote it.
        vocabulary: size of the vocabulary, which no id may reach.

    Attributes:
        facts: counts and hashes.
        documents: where each document begins, counted in tokens, ascending.

    Raises:
        ThroughtimeError: where the index or a shard is missing or damaged.
    """

    def __init__(self, index: Path, vocabulary: int = 1 << 32):
        try:
            content = parse_json(read_file(index), index)
            self.facts = _checked(Facts, content["facts"])
            shards = [(int(length), str(checksum)) for length, checksum in content["shards"]]
            if not shards or content["checksum"] != _checksum(index, self.facts, shards):
                raise ValueError("checksum mismatch")
        except (KeyError, TypeError, ValueError, OverflowError) as error:  # ThroughtimeError is a ValueError
            raise _damaged(index, index, error) from None
        self._shards = []
        for number, (length, checksum) in enumerate(shards):
            shard = _Shard(index, number, vocabulary)
            if (len(shard.ids), shard.checksum) != (length, checksum):
                raise _damaged(_place(index, number), index, "it is not the shard that the index names")
            self._shards.append(shard)
        self._starts = [0, *accumulate(len(shard.ids) for shard in self._shards)]
        documents = [shard.documents + start for shard, start in zip(self._shards, self._starts, strict=False)]
        self.documents = np.concatenate(documents)
        self._reads = 0

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Ids `start` to `stop`, copied: PyTorch indexes with int64."""
        self._reads += 1
        if self._reads % READS_BETWEEN_RELEASES == 0:
            for shard in self._shards:
                shard.release()
        first = min(bisect_right(self._starts, start), len(self._shards)) - 1
        last = max(bisect_left(self._starts, stop), first + 1)
        within = zip(self._shards[first:last], self._starts[first:last], strict=False)
        parts = [shard.ids[max(start - begin, 0) : stop - begin] for shard, begin in within]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return joined.astype(np.int64)

    def documents_within(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Where documents begin in `start` to `stop`, counted from `start`."""
        first, last = np.searchsorted(self.documents, (start, stop))
        return self.documents[first:last] - start


@final
class _Shard:
    """One file of a tokenised text.

    Args:
        index: of the text.
        number: of the shard, from 0.
        vocabulary: size of the vocabulary, which no id may reach.

    Attributes:
        ids: in the file, not in memory.
        documents: where those begin that begin here, counted in tokens of the shard.
        counts: what is known of it.
        checksum: of its ids, documents and counts; it holds.
    """

    def __init__(self, index: Path, number: int, vocabulary: int = 1 << 32):
        path = _place(index, number)
        try:
            documents = self._open(path, vocabulary)
        except OSError as error:
            raise _damaged(path, index, error.strerror) from None
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _damaged(path, index, error) from None
        self.documents = documents.astype(np.int64)
        steps = np.diff(self.documents, prepend=-1, append=len(self.ids))
        if steps.min() < 1:
            raise _damaged(path, index, "a document is out of range")

    def _open(self, path: Path, vocabulary: int) -> npt.NDArray[np.integer[Any]]:
        """Map the file and hold it against its checksum; where documents begin."""
        with open_regular(path) as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            length = int.from_bytes(self._map[:8], "little")
            header = parse_json(self._map[8 : 8 + min(length, HEADER_ROOM)].rstrip(), path)
            counts, self.checksum = header["__metadata__"]["counts"], header["__metadata__"]["checksum"]
            self.counts = _checked(Counts, parse_json(counts, path))
            self.ids, end = self._array(header["ids"], 8 + length, 0)
            documents, end = self._array(header["documents"], 8 + length, end)
            if len(self._map) != 8 + length + end:
                raise ValueError(f"it has {len(self._map):,} bytes instead of {8 + length + end:,}")
            file.seek(8 + length)
            digest, largest, left = hashlib.sha256(), -1, self.ids.nbytes
            while block := file.read(HASHED_AT_ONCE):  # not through the map, of which pages would have to be fetched
                digest.update(block)
                if left > 0:
                    largest = max(largest, int(np.frombuffer(block[:left], self.ids.dtype).max()))
                left -= len(block)
        if self.checksum != hash_of(counts, digest.digest()):
            raise ValueError("checksum mismatch")
        if not 0 <= largest < vocabulary:
            raise ValueError("an id is out of range")
        return documents

    def release(self) -> None:
        """Give the pages read so far back to the system, which keeps them as long as it has room.

        They would otherwise count as this process's memory until the whole file did.
        """
        if advice := getattr(mmap, "MADV_DONTNEED", None):
            self._map.madvise(advice)

    def _array(self, entry: dict[str, Any], base: int, begin: int) -> tuple[npt.NDArray[np.integer[Any]], int]:
        """An array of the file, and where it ends, counted from `base`; it should begin at `begin`."""
        dtype = DTYPES[entry["dtype"]]
        start, stop = entry["data_offsets"]
        if type(start) is not int or type(stop) is not int or start != begin or not 0 <= stop - start < 1 << 62:
            raise ValueError("its arrays are not where they should be")
        return np.frombuffer(self._map, dtype, (stop - start) // dtype.itemsize, base + start), stop


def write_ids(
    index: Path, corpus: Corpus, scan: Scan, tokenizer: Tokenizer, separator: bytes = b"", workers: int = 0
) -> None:
    """Tokenise a corpus, as `TokenIds` reads it. What others have made of the same text and tokeniser is kept.

    Args:
        index: the path of the index; shards lie beside it.
        corpus: the text, at least a byte of it.
        scan: of that corpus.
        tokenizer: of the ids.
        separator: ends a document inside a file.
        workers: processes, as for `encoded`.
    """
    digest = hashlib.sha256()
    pieces = read_pieces(corpus, tokenizer.piece_limit, separator, digest)
    opening = next(pieces)
    pieces = chain([opening], pieces)
    shards: list[_Shard] = []
    for shard in _complete_shards(index, tokenizer.vocabulary_size):
        if _hash_of_pieces(islice(pieces, shard.counts.pieces)) != shard.counts.text:
            remove_entry(_place(index, len(shards)))  # made from other bytes: this shard, and all that follow
            write_ids(index, corpus, scan, tokenizer, separator, workers)
            return
        shards.append(shard)
    batches = encoded(tokenizer, _batches(pieces), corpus.size, workers)
    with closing(batches):
        for batch in batches:
            shards.append(_write_shard(index, len(shards), chain([batch], batches), tokenizer))
    if digest.hexdigest()[:32] != scan.digest:
        for number in range(len(shards)):
            remove_entry(_place(index, number))
        raise changed(", ".join(dict.fromkeys(document.name for document in corpus.documents)))
    first_id = int(shards[0].ids[0])
    first = _first_token(tokenizer, opening.data, first_id)
    unknown = sum(shard.counts.unknown for shard in shards)
    hidden = corpus.size - sum(shard.counts.known_bytes for shard in shards)
    facts = Facts(
        text=scan.digest,
        tokenizer=tokenizer.digest,
        bytes=corpus.size,
        characters=scan.characters,
        unknown=unknown,
        hidden_bytes=hidden,
        first_bytes=len(first),
        first_characters=sum(byte & 0xC0 != 0x80 for byte in first),
        first_unknown=first_id == tokenizer.unknown,
        exact=all(shard.counts.exact for shard in shards) and not hidden and not unknown,
    )
    told = [(len(shard.ids), shard.checksum) for shard in shards]
    content = {"facts": facts._asdict(), "shards": told, "checksum": _checksum(index, facts, told)}
    make_way(index)
    with new_entry(index.parent) as new:
        new.file.write((json.dumps(content, indent=1) + "\n").encode())
        new.publish(index.name)


def _checksum(index: Path, facts: Facts, shards: Sequence[tuple[int, str]]) -> str:
    """Of an index under its name."""
    return hash_of(index.stem, json.dumps([facts, shards]))


def _checked(kind: type[Checked], content: Any) -> Checked:
    """A NamedTuple of the fields of a JSON object, which must be its own and of their types."""
    hints = get_type_hints(kind)
    if not isinstance(content, dict) or content.keys() != hints.keys():
        raise ValueError(f"it should hold {', '.join(hints)}")
    for name, hint in hints.items():
        value = content[name]
        fits = isinstance(value, hint) and isinstance(value, bool) == (hint is bool)
        if not fits or (isinstance(value, int) and not 0 <= value < 1 << 62):
            raise ValueError(f"{name} should be {getattr(hint, '__name__', hint)}, got {value!r:.40}")
    return kind(**content)


def _hash_of_pieces(pieces: Iterable[Piece], digest: Any = None) -> str:
    """SHA-256 of pieces and of where they open documents; `digest` has that of those before."""
    digest = digest or hashlib.sha256()
    for piece in pieces:
        digest.update(b"^" * piece.opens_document)
        digest.update(piece.data)
    found: str = digest.hexdigest()
    return found


def _place(index: Path, number: int) -> Path:
    return index.with_name(f"{index.stem}.{number}.safetensors")


def _complete_shards(index: Path, vocabulary: int) -> Iterator[_Shard]:
    """Those of a process that was ended before it wrote the index."""
    for number in count():
        try:
            yield _Shard(index, number, vocabulary)
        except ThroughtimeError:
            return


def _write_shard(index: Path, number: int, batches: Iterable[tuple[Batch, list[Ids]]], tokenizer: Tokenizer) -> _Shard:
    """Write a shard of as many batches as it takes."""
    tokens, counts = 0, Counts("", 0, 0, 0, exact=True)
    text, data = hashlib.sha256(), hashlib.sha256()
    documents = array("q")
    lengths = np.array([len(piece) for piece in tokenizer.pieces])
    if tokenizer.unknown is not None:
        lengths[tokenizer.unknown] = 0
    make_way(_place(index, number))
    with new_entry(index.parent) as new:
        file = new.file
        file.seek(HEADER_ROOM)
        for batch, encoded_batch in batches:
            for piece, ids in zip(batch, encoded_batch, strict=True):
                if piece.opens_document:
                    documents.append(tokens)
                tokens += len(ids)
                data.update(ids.tobytes())
                file.write(ids.tobytes())
            joined = np.concatenate(encoded_batch)
            unknown = 0 if tokenizer.unknown is None else int(np.count_nonzero(joined == tokenizer.unknown))
            # An exchange of equal lengths, which the sums cannot show, is looked for in each batch's first piece.
            same = unknown > 0 or tokenizer.decode_bytes(encoded_batch[0].tolist()) == batch[0].data
            counts = Counts(
                _hash_of_pieces(batch, text),
                counts.pieces + len(batch),
                counts.known_bytes + int(lengths[joined].sum()),
                counts.unknown + unknown,
                counts.exact and same,
            )
            if tokens >= SHARD_TOKENS:
                break
        data.update(np.array(documents, "<i8").tobytes())
        file.write(np.array(documents, "<i8").tobytes())
        file.seek(0)
        file.write(_header(counts, tokens, tokenizer.dtype, len(documents), data.digest()))
        new.publish(_place(index, number).name)
    return _Shard(index, number, tokenizer.vocabulary_size)


def _header(
    counts: Counts, tokens: int, dtype: np.dtype[np.unsignedinteger[Any]], documents: int, data: bytes
) -> bytes:
    """What stands before the ids and documents; `data` is their SHA-256."""
    end, told = tokens * dtype.itemsize, json.dumps(counts._asdict())
    header = {
        "__metadata__": {"counts": told, "checksum": hash_of(told, data)},
        "ids": {"dtype": f"U{8 * dtype.itemsize}", "shape": [tokens], "data_offsets": [0, end]},
        "documents": {"dtype": "I64", "shape": [documents], "data_offsets": [end, end + 8 * documents]},
    }
    text = json.dumps(header).encode().ljust(HEADER_ROOM - 8)
    return len(text).to_bytes(8, "little") + text


def _batches(pieces: Iterator[Piece]) -> Iterator[Sequence[Piece]]:
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece.data)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _first_token(tokenizer: Tokenizer, opening: bytes, first: int) -> bytes:
    """The bytes that the first token stands for, unknown or not."""
    if first != tokenizer.unknown:
        return tokenizer.pieces[first]
    text = opening.decode()
    _, stop = tokenizer.library.encode(text, add_special_tokens=False).offsets[0]
    return text[:stop].encode()


def _remedy(index: Path) -> str:
    return f"delete {index} to make them anew"


def _damaged(path: Path, index: Path, what: object) -> ThroughtimeError:
    return ThroughtimeError(f"the ids {path} are damaged ({what}); {_remedy(index)}")
