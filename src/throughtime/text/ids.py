"""Ids on disk: a memory-mapped file that says what it was made from.

The file is a safetensors file: `ids` (uint16 or uint32, one a token) and `documents` (int64, where each document
begins, counted in tokens), with the counts and hashes below as its metadata. It is written in one pass, in bounded
memory: the header's room is kept free and filled in last.
"""

from __future__ import annotations

import json
import mmap
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from throughtime.durable import NewFile
from throughtime.errors import ThroughtimeError
from throughtime.text.cache import cache_folder
from throughtime.text.corpus import Corpus, Piece, Scan, read_pieces
from throughtime.text.tokenizer import Tokenizer

FORMAT = 2
"""Raised whenever the file or the encoding changes: ids in the cache are then made anew."""
HEADER_ROOM = 4096
BATCH_BYTES = 1 << 21
"""Text encoded at once; the library's encodings take some fifty times as much memory."""
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


class IdsFile:
    """A tokenised text, read from disk as needed.

    Attributes:
        facts: counts and hashes.
        documents: where each document begins, counted in tokens, ascending.
    """

    def __init__(self, path: Path):
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            length = int.from_bytes(self._map[:8], "little")
            header = json.loads(self._map[8 : 8 + length])
            self.facts = Facts(**json.loads(header["__metadata__"]["facts"]))
            self._ids = self._array(header["ids"], 8 + length)
            self.documents = self._array(header["documents"], 8 + length).astype(np.int64)
        except OSError as error:
            raise ThroughtimeError(f"cannot read the ids {path}: {error.strerror}; delete it to make it anew") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ThroughtimeError(f"the ids {path} are damaged ({error}); delete the file to make it anew") from None
        self._reads = 0

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Ids `start` to `stop`, copied: PyTorch indexes with int64."""
        self._reads += 1
        if self._reads % READS_BETWEEN_RELEASES == 0:
            self._release()
        return self._ids[start:stop].astype(np.int64)

    def documents_within(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Where documents begin in `start` to `stop`, counted from `start`."""
        first, last = np.searchsorted(self.documents, (start, stop))
        return self.documents[first:last] - start

    def _release(self) -> None:
        """Give the pages read so far back to the system, which keeps them as long as it has room.

        They would otherwise count as this process's memory until the whole file did.
        """
        if advice := getattr(mmap, "MADV_DONTNEED", None):
            self._map.madvise(advice)

    def _array(self, entry: dict[str, Any], base: int) -> npt.NDArray[np.integer[Any]]:
        dtype = np.dtype({"U16": "<u2", "U32": "<u4", "I64": "<i8"}[entry["dtype"]])
        start, stop = entry["data_offsets"]
        return np.frombuffer(self._map, dtype, (stop - start) // dtype.itemsize, base + start)


def write_ids(name: str, corpus: Corpus, scan: Scan, tokenizer: Tokenizer, separator: bytes) -> Path:
    """Tokenise a corpus into a file of the cache that appears whole or not at all."""
    tokens, unknown, known_bytes = 0, 0, 0
    first, first_unknown = b"", False
    exact = True
    documents = array("q")
    lengths = np.array([len(piece) for piece in tokenizer.pieces])
    if tokenizer.unknown is not None:
        lengths[tokenizer.unknown] = 0
    with NewFile(cache_folder("ids")) as new:
        file = new.file
        file.seek(HEADER_ROOM)
        for batch in _batches(read_pieces(corpus, tokenizer.piece_limit, separator)):
            encoded = tokenizer.encode_many([piece.data for piece in batch])
            if not tokens:
                first = _first_token(tokenizer, batch[0].data, int(encoded[0][0]))
                first_unknown = int(encoded[0][0]) == tokenizer.unknown
            for piece, ids in zip(batch, encoded, strict=True):
                if piece.opens_document:
                    documents.append(tokens)
                tokens += len(ids)
                file.write(ids.tobytes())
            joined = np.concatenate(encoded)
            known_bytes += int(lengths[joined].sum())
            unknown += 0 if tokenizer.unknown is None else int(np.count_nonzero(joined == tokenizer.unknown))
            # An exchange of equal lengths, which the sums cannot show, is looked for in each batch's first piece.
            exact = exact and (unknown > 0 or tokenizer.decode_bytes(encoded[0].tolist()) == batch[0].data)
        hidden = corpus.size - known_bytes
        facts = Facts(
            text=scan.digest,
            tokenizer=tokenizer.digest,
            bytes=corpus.size,
            characters=scan.characters,
            unknown=unknown,
            hidden_bytes=hidden,
            first_bytes=len(first),
            first_characters=sum(byte & 0xC0 != 0x80 for byte in first),
            first_unknown=first_unknown,
            exact=exact and not hidden and not unknown,
        )
        file.write(np.array(documents, "<i8").tobytes())
        file.seek(0)
        file.write(_header(facts, tokens, tokenizer.dtype, len(documents)))
        return new.publish(name)


def _header(facts: Facts, tokens: int, dtype: np.dtype[np.uint16] | np.dtype[np.uint32], documents: int) -> bytes:
    end = tokens * dtype.itemsize
    header = {
        "__metadata__": {"facts": json.dumps(facts._asdict())},
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
