"""Ids on disk: memory-mapped shards, and an index that says what they were made from.

A shard is a safetensors file: `ids` (uint16 or uint32, one a token) and `documents` (int64, where documents begin,
counted in tokens of the shard), with what was counted on the way as its metadata. The index is JSON, and written last.
All is written in one pass, in bounded memory: the header's room is kept free and filled in last. Who begins a text that
somebody was killed over goes on after the last shard that is whole.
"""

from __future__ import annotations

import json
import mmap
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import accumulate, chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from throughtime.durable import NewFile
from throughtime.errors import ThroughtimeError
from throughtime.text.corpus import Corpus, Piece, Scan, read_pieces
from throughtime.text.tokenizer import Ids, Tokenizer
from throughtime.text.workers import Batch, encoded

FORMAT = 3
"""Raised whenever the files or the encoding change: ids in the cache are then made anew."""
HEADER_ROOM = 4096
BATCH_BYTES = 1 << 21
"""Text encoded at once; the library's encodings take some fifty times as much memory."""
SHARD_TOKENS = 1 << 26
"""From so many on a shard is full: less than a minute's work, of the slowest tokeniser."""
READS_BETWEEN_RELEASES = 2048


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

    pieces: int
    """Of the text, as they are encoded."""
    known_bytes: int
    """Bytes that stand behind known tokens."""
    unknown: int
    """Tokens the vocabulary lacks."""
    exact: bool
    """Whether decoding the first piece of each batch gave it back."""


@final
class TokenIds:
    """A tokenised text, read from disk as needed.

    Args:
        index: its index, as `write_ids` wrote it.

    Attributes:
        facts: counts and hashes.
        documents: where each document begins, counted in tokens, ascending.

    Raises:
        ThroughtimeError: where the index or a shard is missing or damaged.
    """

    def __init__(self, index: Path):
        with _reading(index, index):
            content = json.loads(index.read_bytes())
            self.facts = Facts(**content["facts"])
            lengths = [int(length) for length in content["shards"]]
        self._shards = []
        for number, length in enumerate(lengths):
            self._shards.append(_Shard(index, number))
            found = len(self._shards[-1].ids)
            if found != length:
                raise _damaged(_place(index, number), index, f"{found:,} tokens where there were {length:,}")
        self._starts = [0, *accumulate(lengths)]
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

    Attributes:
        ids: in the file, not in memory.
        documents: where those begin that begin here, counted in tokens of the shard.
        counts: what is known of it.
    """

    def __init__(self, index: Path, number: int):
        path = _place(index, number)
        with _reading(path, index):
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            length = int.from_bytes(self._map[:8], "little")
            header = json.loads(self._map[8 : 8 + length])
            self.counts = Counts(**json.loads(header["__metadata__"]["counts"]))
            self.ids = self._array(header["ids"], 8 + length)
            self.documents = self._array(header["documents"], 8 + length).astype(np.int64)

    def release(self) -> None:
        """Give the pages read so far back to the system, which keeps them as long as it has room.

        They would otherwise count as this process's memory until the whole file did.
        """
        if advice := getattr(mmap, "MADV_DONTNEED", None):
            self._map.madvise(advice)

    def _array(self, entry: dict[str, Any], base: int) -> npt.NDArray[np.integer[Any]]:
        dtype = np.dtype({"U16": "<u2", "U32": "<u4", "I64": "<i8"}[entry["dtype"]])
        start, stop = entry["data_offsets"]
        return np.frombuffer(self._map, dtype, (stop - start) // dtype.itemsize, base + start)


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
    pieces = read_pieces(corpus, tokenizer.piece_limit, separator)
    opening = next(read_pieces(corpus, tokenizer.piece_limit, separator)).data
    shards = list(_whole_shards(index))
    passed = sum(shard.counts.pieces for shard in shards)
    next(islice(pieces, passed, passed), None)
    batches = encoded(tokenizer, _batches(pieces), corpus.size, workers)
    with closing(batches):
        for batch in batches:
            shards.append(_write_shard(index, len(shards), chain([batch], batches), tokenizer))
    first_id = int(shards[0].ids[0])
    first = _first_token(tokenizer, opening, first_id)
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
    content = {"facts": facts._asdict(), "shards": [len(shard.ids) for shard in shards]}
    with NewFile(index.parent) as new:
        new.file.write((json.dumps(content, indent=1) + "\n").encode())
        new.publish(index.name)


def _place(index: Path, number: int) -> Path:
    return index.with_name(f"{index.stem}.{number}.safetensors")


def _whole_shards(index: Path) -> Iterator[_Shard]:
    """Those of a process that was ended before it wrote the index."""
    for number in count():
        try:
            yield _Shard(index, number)
        except ThroughtimeError:
            return


def _write_shard(index: Path, number: int, batches: Iterable[tuple[Batch, list[Ids]]], tokenizer: Tokenizer) -> _Shard:
    """Write a shard of as many batches as it takes."""
    tokens, counts = 0, Counts(0, 0, 0, exact=True)
    documents = array("q")
    lengths = np.array([len(piece) for piece in tokenizer.pieces])
    if tokenizer.unknown is not None:
        lengths[tokenizer.unknown] = 0
    with NewFile(index.parent) as new:
        file = new.file
        file.seek(HEADER_ROOM)
        for batch, encoded_batch in batches:
            for piece, ids in zip(batch, encoded_batch, strict=True):
                if piece.opens_document:
                    documents.append(tokens)
                tokens += len(ids)
                file.write(ids.tobytes())
            joined = np.concatenate(encoded_batch)
            unknown = 0 if tokenizer.unknown is None else int(np.count_nonzero(joined == tokenizer.unknown))
            # An exchange of equal lengths, which the sums cannot show, is looked for in each batch's first piece.
            same = unknown > 0 or tokenizer.decode_bytes(encoded_batch[0].tolist()) == batch[0].data
            counts = Counts(
                counts.pieces + len(batch),
                counts.known_bytes + int(lengths[joined].sum()),
                counts.unknown + unknown,
                counts.exact and same,
            )
            if tokens >= SHARD_TOKENS:
                break
        file.write(np.array(documents, "<i8").tobytes())
        file.seek(0)
        file.write(_header(counts, tokens, tokenizer.dtype, len(documents)))
        new.publish(_place(index, number).name)
    return _Shard(index, number)


def _header(counts: Counts, tokens: int, dtype: np.dtype[np.unsignedinteger[Any]], documents: int) -> bytes:
    end = tokens * dtype.itemsize
    header = {
        "__metadata__": {"counts": json.dumps(counts._asdict())},
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


@contextmanager
def _reading(path: Path, index: Path) -> Iterator[None]:
    """What goes wrong with a file, in a line."""
    try:
        yield
    except OSError as error:
        raise ThroughtimeError(
            f"cannot read the ids {path}: {error.strerror}; delete {index} to make them anew"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, index, error) from None


def _damaged(path: Path, index: Path, what: object) -> ThroughtimeError:
    return ThroughtimeError(f"the ids {path} are damaged ({what}); delete {index} to make them anew")
