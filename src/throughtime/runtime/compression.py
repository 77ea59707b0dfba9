"""Lossless compression by a model's own predictions and an arithmetic coder.

A file is cut into blocks, a block into lanes that the model reads side by side, each from a line end on. At every step
the model gives the probabilities of the next token of each lane, as whole multiples of 2^-24 that sum to 1; the coder
takes as many bits as they say. Reading does the same steps in the same order, so that it finds the same probabilities:
they come from the same kernels, whose results do not depend on the number of threads.

    file    MAGIC, length of the header (u32), its CRC-32 (u32), header (JSON), blocks
    block   kind (u8), bytes of content (u32), bytes of payload (u32), CRC-32 of these and of the payload (u32),
            SHA-256 of the content, payload
    kinds   END (content: nothing), SAME (payload: the byte that fills it), STORED (payload: the content),
            CODED (payload: number of lanes (u32), tokens of each lane (u32), the coder's words (u32))

All numbers are little-endian. A file that is read may come from anybody: what its numbers say is checked before memory
or time is spent on it. Axes: T time, B lane, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import count
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from throughtime import engine
from throughtime.errors import ThroughtimeError
from throughtime.runtime.model import Model
from throughtime.runtime.network import WEIGHTS
from throughtime.states import select
from throughtime.text.tokenizer import Tokenizer
from throughtime.untrusted import parse_json, printable

MAGIC = b"throughtime\x001"
BLOCK = 1 << 20
"""Bytes of content at most."""
BYTES_WORTH_A_LANE = 1 << 14
MOST_LANES = 64
LARGEST_HEADER = 1 << 14
RATE = 0.02
"""Of what the adapted biases learn at a step, divided by the number of lanes."""
END, SAME, STORED, CODED = range(4)
_START = struct.Struct("<II")
_BLOCK = struct.Struct("<BIII32s")
_NO_UTF_8 = re.compile("([\udc80-\udcff]+)")
"""Bytes that are no UTF-8, as `surrogateescape` decodes them."""

Int64 = NDArray[np.int64]
Probabilities = NDArray[np.float64]
Code = Callable[[int, Probabilities], Int64]
"""`(step, probabilities of each active lane) -> their tokens`: writes them or reads them."""


class Header(NamedTuple):
    """What reading has to agree with."""

    model: str
    """Hash of the weights."""
    tokenizer: str
    weights: str
    kernels: str
    """The level of the engine: others round differently."""
    adapt: bool
    separator: str = ""
    """Text after which a lane's state is reset; older files have none, whatever their model's is."""


class Sizes(NamedTuple):
    """Bytes before and after."""

    content: int
    compressed: int


def compress(model: Model, source: BinaryIO, target: BinaryIO, adapt: bool = True) -> Sizes:
    """Read all of a source and write it compressed. The tokens of every block are decoded again and compared with it.

    Args:
        model: of bytes or byte pairs, which any bytes can be made of.
        source: read to its end.
        target: written to.
        adapt: let the biases of the output learn from what was read.

    Raises:
        ThroughtimeError: where the model's tokens cannot make up every file, or its tokeniser does not give back what
            it reads.
    """
    _singles(model.tokenizer)
    header = json.dumps(_header_of(model, adapt)._asdict()).encode()
    written = target.write(MAGIC + _START.pack(len(header), zlib.crc32(header)) + header)
    adapted, total = Adapted(model, adapt, model.separator), 0
    while content := source.read(BLOCK):
        kind, payload = _packed(model, content, adapted)
        written += target.write(_block(kind, content, payload) + payload)
        total += len(content)
    written += target.write(_block(END, b"", b""))
    return Sizes(total, written)


def decompress(model: Model, source: BinaryIO) -> Iterator[bytes]:
    """What was compressed, block by block; each is checked before it is handed out.

    Raises:
        ThroughtimeError: where the model is another one, or the file is damaged or incomplete.
    """
    _singles(model.tokenizer)
    told = read_header(source)
    here = _header_of(model, told.adapt)
    for name, what in (
        ("model", "model"),
        ("tokenizer", "tokeniser"),
        ("weights", "form of weights"),
        ("kernels", "level of kernels"),
    ):
        if getattr(told, name) != getattr(here, name):
            raise ThroughtimeError(
                f"the file was compressed with {what} {printable(getattr(told, name)[:16])}, this is "
                f"{getattr(here, name):.16}"
            )
    adapted = Adapted(model, told.adapt, told.separator)
    for number in count():
        start = source.read(_BLOCK.size)
        if len(start) < _BLOCK.size:
            raise _damaged(number, "it ends too early")
        kind, size, length, check, digest = _BLOCK.unpack(start)
        if kind > CODED or size > BLOCK:
            raise _damaged(number, "it cannot be so large")
        if not _fits(kind, size, length):
            raise _damaged(number, "its sizes do not fit its kind")
        payload = source.read(length)
        if len(payload) < length or check != _check(kind, size, payload):
            raise _damaged(number, "its check sum is another")
        content = _unpacked(model, kind, size, payload, adapted, number)
        if hashlib.sha256(content).digest() != digest:
            raise _damaged(number, "it comes out differently; was it compressed on another kind of processor?")
        if kind == END:
            if source.read(1):
                raise _damaged(number, "something follows its end")
            return
        yield content


def read_header(source: BinaryIO) -> Header:
    """What a compressed file begins with.

    Raises:
        ThroughtimeError: where it is none, damaged, or of another version.
    """
    magic = source.read(len(MAGIC))
    if magic[:-1] != MAGIC[:-1]:
        raise ThroughtimeError("this is no file that `throughtime compress` wrote")
    if magic != MAGIC:
        raise ThroughtimeError("the file was compressed by another version of throughtime; decompress it by that one")
    start = source.read(_START.size)
    length, check = _START.unpack(start) if len(start) == _START.size else (0, 0)
    header = source.read(length) if length <= LARGEST_HEADER else b""
    if not header or zlib.crc32(header) != check:
        raise ThroughtimeError("the compressed file is damaged in its header; copy it anew")
    content = parse_json(header, "the header of the compressed file")
    kinds = {name: bool if name == "adapt" else str for name in Header._fields}
    given = {name: type(value) for name, value in content.items()} if isinstance(content, dict) else {}
    if {name: kinds[name] for name in Header._field_defaults} | given != kinds:
        raise ThroughtimeError(
            f"the header of the compressed file does not have {', '.join(kinds)}; was it written by another version?"
        )
    if content["weights"] not in WEIGHTS:
        raise ThroughtimeError(
            f"the header of the compressed file has an unknown form of weights: {printable(content['weights'][:16])}"
        )
    return Header(**content)


def _fits(kind: int, size: int, length: int) -> bool:
    """Whether a block of so many bytes of content can have so many of payload."""
    if kind == END:
        return size == length == 0
    return size > 0 and (length == 1 if kind == SAME else length == size if kind == STORED else length < size)


class Adapted:
    """Biases added to the logits. By the gradient of the bits they learn how often each token comes.

    Attributes:
        documents: where the states of lanes are reset.
    """

    def __init__(self, model: Model, learns: bool, separator: str):
        self.documents = model.network.separator(model.tokenizer.pieces, separator.encode())
        self.bias_V = np.zeros(model.vocabulary_size, np.float32)
        self._learns = learns

    def learn(self, tokens_B: Int64, probabilities_BV: Probabilities) -> None:
        """From one step of all lanes. Only sums and products, which every processor rounds alike."""
        if self._learns:
            gradient_V = -probabilities_BV.sum(0)
            np.add.at(gradient_V, tokens_B, 1.0)
            self.bias_V += (gradient_V * (RATE / len(tokens_B))).astype(np.float32)


def _packed(model: Model, content: bytes, adapted: Adapted) -> tuple[int, bytes]:
    if content.count(content[:1]) == len(content):
        return SAME, content[:1]
    from constriction import stream

    encoder, family = stream.queue.RangeEncoder(), stream.model.Categorical(perfect=False)
    size = _lane_size(len(content))
    tokens = [_tokens(model.tokenizer, content[at : at + size]) for at in range(0, len(content), size)]
    counts = np.array([len(ids) for ids in tokens])
    order = _order(counts)
    tokens_BT = np.zeros((len(tokens), counts.max()), np.int64)
    for row, lane in enumerate(order):
        tokens_BT[row, : counts[lane]] = tokens[lane]

    def write(step: int, probabilities_BV: Probabilities) -> Int64:
        tokens_B = tokens_BT[: len(probabilities_BV), step]
        encoder.encode(tokens_B.astype(np.int32), family, probabilities_BV)
        return tokens_B

    _walk(model, counts[order], adapted, write)
    payload = counts.astype("<u4").tobytes() + encoder.get_compressed().astype("<u4").tobytes()
    payload = struct.pack("<I", len(counts)) + payload
    return (CODED, payload) if len(payload) < len(content) else (STORED, content)


def _unpacked(model: Model, kind: int, size: int, payload: bytes, adapted: Adapted, number: int) -> bytes:
    if kind != CODED:
        return payload * size if kind == SAME else payload
    from constriction import stream

    lanes, lane_size = int.from_bytes(payload[:4], "little"), _lane_size(size)
    if lanes != -(-size // lane_size) or len(payload) < 4 + 4 * lanes or len(payload) % 4:
        raise _damaged(number, "its lanes are not what they should be")
    counts = np.frombuffer(payload, "<u4", lanes, 4).astype(np.int64)
    if counts.min() < 1 or counts.max() > lane_size or counts.sum() > size:
        raise _damaged(number, "it has more tokens than bytes, or a lane without one")
    decoder = stream.queue.RangeDecoder(np.frombuffer(payload, "<u4", offset=4 + 4 * lanes).astype(np.uint32))
    family = stream.model.Categorical(perfect=False)
    order = _order(counts)
    tokens_BT = np.zeros((lanes, counts.max()), np.int64)

    def read(step: int, probabilities_BV: Probabilities) -> Int64:
        tokens_B: Int64 = decoder.decode(family, probabilities_BV).astype(np.int64)
        tokens_BT[: len(tokens_B), step] = tokens_B
        return tokens_B

    try:
        _walk(model, counts[order], adapted, read)
    except AssertionError as error:  # so the coder says that no token has these bits
        raise _damaged(number, str(error)) from None
    pieces = model.tokenizer.pieces
    found: dict[int, list[bytes]] = {}
    for row, lane in enumerate(order.tolist()):
        found[lane] = [pieces[token] for token in tokens_BT[row, : counts[lane]].tolist()]
    if sum(len(piece) for lane in found.values() for piece in lane) != size:
        raise _damaged(number, "its tokens are not as long as its content")
    return b"".join(piece for lane in range(lanes) for piece in found[lane])


def _lane_size(size: int) -> int:
    """Bytes of each lane, but for the last, of a block of so many bytes."""
    return -(-size // max(1, min(MOST_LANES, size // BYTES_WORTH_A_LANE)))


def _walk(model: Model, counts_B: Int64, adapted: Adapted, code: Code) -> None:
    """Step by step through the lanes, the longest first: those that have ended are at the end, and left out."""
    network = model.network
    state = network.initial_state(len(counts_B))
    tokens_B, matched_B = np.full(len(counts_B), model.tokenizer.opening("")[-1], np.int64), np.zeros_like(counts_B)
    for step in range(int(counts_B[0])):
        active = int(np.searchsorted(-counts_B, -step))
        if active < len(tokens_B):
            tokens_B, state = tokens_B[:active], select(state, slice(active))
            matched_B = matched_B[:active].copy()
        reset_1B = adapted.documents.starts(tokens_B[None], matched_B).view(np.bool_)
        logits_1BV, state = network.feed(tokens_B[None], state, None, reset_1B)
        logits_BV = logits_1BV[0]
        probabilities_BV = network.probabilities(logits_BV, adapted.bias_V)
        tokens_B = code(step, probabilities_BV)
        adapted.learn(tokens_B, probabilities_BV)


def _order(counts: Int64) -> Int64:
    """The lanes, the longest first."""
    return np.argsort(-counts, kind="stable")


def _tokens(tokenizer: Tokenizer, content: bytes) -> Int64:
    """Tokens that give back exactly these bytes.

    Raises:
        ThroughtimeError: where the tokeniser has none: what it made could never be decompressed.
    """
    ids = _encode(tokenizer, content)
    if len(ids) > len(content) or tokenizer.decode_bytes(ids.tolist()) != content:
        raise ThroughtimeError(
            "the model's tokeniser does not give back what it reads, so that nothing compressed by it could be "
            "decompressed; copy tokenizer.json from the run again"
        )
    return ids


def _encode(tokenizer: Tokenizer, content: bytes) -> Int64:
    """The tokens of these bytes. What is no UTF-8 is made of single bytes."""
    if tokenizer.kind == "byte":
        return np.frombuffer(content, np.uint8).astype(np.int64)
    # UTF-8 and other bytes in turn. In binary content the same short texts come again and again.
    parts = _NO_UTF_8.split(content.decode("utf-8", "surrogateescape"))
    texts = list(dict.fromkeys(parts[::2]))
    encoded = tokenizer.encode_many([text.encode() for text in texts])
    ids_of = {text: ids.tolist() for text, ids in zip(texts, encoded, strict=True)}
    singles = _singles(tokenizer)
    for part in dict.fromkeys(parts[1::2]):
        ids_of[part] = [singles[byte] for byte in part.encode("utf-8", "surrogateescape")]
    return np.array([index for part in parts for index in ids_of[part]], np.int64)


def _singles(tokenizer: Tokenizer) -> dict[int, int]:
    """The token of every single byte.

    Raises:
        ThroughtimeError: where there is none for some.
    """
    found = {piece[0]: index for index, piece in enumerate(tokenizer.pieces) if len(piece) == 1}
    if len(found) < 256 or tokenizer.kind not in ("byte", "bpe"):
        raise ThroughtimeError(
            f"a model of {tokenizer.kind} tokens cannot make up every file; train one with --tokens byte or bpe"
        )
    return found


def _header_of(model: Model, adapt: bool) -> Header:
    if not model.network.has_kernels:
        raise ThroughtimeError(
            f"a model of the cell {model.settings.cell!r} cannot compress: only kernels give the same bits again, "
            "and this cell has none"
        )
    kernels = engine.level() or "reference"
    return Header(model.digest, model.tokenizer.digest, model.network.weights, kernels, adapt, model.separator)


def _check(kind: int, size: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<BII", kind, size, len(payload))))


def _block(kind: int, content: bytes, payload: bytes) -> bytes:
    check = _check(kind, len(content), payload)
    return _BLOCK.pack(kind, len(content), len(payload), check, hashlib.sha256(content).digest())


def _damaged(number: int, why: str) -> ThroughtimeError:
    return ThroughtimeError(f"the compressed file is damaged in block {number}: {why}")
