"""Lossless compression by a model's own predictions and an arithmetic coder.

A file is cut into blocks, a block into lanes that the model reads side by side, each from a line end on. At every step
the model gives the probabilities of the next token of each lane, as whole multiples of 2^-24 that sum to 1; the coder
takes as many bits as they say. Reading does the same steps in the same order, so that it finds the same probabilities:
they come from the same kernels, whose results do not depend on the number of threads.

    file    MAGIC, length of the header (u32), its CRC-32 (u32), header (JSON), blocks
    block   kind (u8), bytes of content (u32), bytes of payload (u32), CRC-32 of these and of the payload (u32),
            SHA-256 of the content, payload
    kinds   END (content: nothing), SAME (payload: the byte that fills it), STORED (payload: the content),
            CODED (payload: tokens of each lane (u32), the coder's words (u32))

All numbers are little-endian. Axes: T time, B lane, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
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
from throughtime.text.tokenizer import Tokenizer

MAGIC = b"throughtime\x001"
BLOCK = 1 << 20
"""Bytes of content at most."""
BYTES_WORTH_A_LANE = 1 << 14
MOST_LANES = 64
LARGEST_HEADER = 1 << 12
RATE = 0.02
"""Of what the adapted biases learn at a step, divided by the number of lanes."""
END, SAME, STORED, CODED = range(4)
_START = struct.Struct("<II")
_BLOCK = struct.Struct("<BIII32s")

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


class Sizes(NamedTuple):
    """Bytes before and after."""

    content: int
    compressed: int


def compress(model: Model, source: BinaryIO, target: BinaryIO, adapt: bool = True) -> Sizes:
    """Read all of a source and write it compressed.

    Args:
        model: of bytes or byte pairs, which any bytes can be made of.
        source: read to its end.
        target: written to.
        adapt: let the biases of the output learn from what was read.

    Raises:
        ThroughtimeError: where the model's tokens cannot make up every file.
    """
    _singles(model.tokenizer)
    header = json.dumps(_header_of(model, adapt)._asdict()).encode()
    written = target.write(MAGIC + _START.pack(len(header), zlib.crc32(header)) + header)
    adapted, total = Adapted(model, adapt), 0
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
                f"the file was compressed with {what} {getattr(told, name)!s:.16}, this is {getattr(here, name)!s:.16}"
            )
    adapted = Adapted(model, told.adapt)
    for number in count():
        start = source.read(_BLOCK.size)
        if len(start) < _BLOCK.size:
            raise _damaged(number, "it ends too early")
        kind, size, length, check, digest = _BLOCK.unpack(start)
        if size > BLOCK or length > 2 * BLOCK or kind > CODED:
            raise _damaged(number, "it cannot be so large")
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
        ThroughtimeError: where it is none, or damaged.
    """
    if source.read(len(MAGIC)) != MAGIC:
        raise ThroughtimeError("this is no file that `throughtime compress` wrote")
    start = source.read(_START.size)
    length, check = _START.unpack(start) if len(start) == _START.size else (0, 0)
    header = source.read(length) if length <= LARGEST_HEADER else b""
    if not header or zlib.crc32(header) != check:
        raise ThroughtimeError("the compressed file is damaged in its header; copy it anew")
    return Header(**json.loads(header))


class Adapted:
    """Biases added to the logits. By the gradient of the bits they learn how often each token comes."""

    def __init__(self, model: Model, learns: bool):
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
    lanes = max(1, min(MOST_LANES, len(content) // BYTES_WORTH_A_LANE))
    size = -(-len(content) // lanes)
    tokens = [_encode(model.tokenizer, content[at : at + size]) for at in range(0, len(content), size)]
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

    lanes = int.from_bytes(payload[:4], "little")
    if not 1 <= lanes <= MOST_LANES + 1 or len(payload) < 4 + 4 * lanes or len(payload) % 4:
        raise _damaged(number, "its lanes are not what they should be")
    counts = np.frombuffer(payload, "<u4", lanes, 4).astype(np.int64)
    if counts.sum() > size:
        raise _damaged(number, "it has more tokens than bytes")
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
    contents = {
        int(lane): model.tokenizer.decode_bytes(tokens_BT[row, : counts[lane]].tolist())
        for row, lane in enumerate(order)
    }
    return b"".join(contents[lane] for lane in range(lanes))


def _walk(model: Model, counts_B: Int64, adapted: Adapted, code: Code) -> None:
    """Step by step through the lanes, the longest first: those that have ended are at the end, and left out."""
    network = model.network
    state_SBH = network.initial_state(len(counts_B))
    tokens_B = np.full(len(counts_B), model.tokenizer.opening("")[-1], np.int64)
    for step in range(int(counts_B[0])):
        active = int(np.searchsorted(-counts_B, -step))
        if active < len(tokens_B):
            tokens_B, state_SBH = tokens_B[:active], np.ascontiguousarray(state_SBH[:, :active])
        logits_BV, state_SBH = network.step(tokens_B, state_SBH)
        probabilities_BV = network.probabilities(logits_BV, adapted.bias_V)
        tokens_B = code(step, probabilities_BV)
        adapted.learn(tokens_B, probabilities_BV)


def _order(counts: Int64) -> Int64:
    """The lanes, the longest first."""
    return np.argsort(-counts, kind="stable")


def _encode(tokenizer: Tokenizer, content: bytes) -> Int64:
    """Tokens that give back exactly these bytes. What is no UTF-8 is made of single bytes."""
    if tokenizer.kind == "byte":
        return np.frombuffer(content, np.uint8).astype(np.int64)
    singles, parts, at = _singles(tokenizer), [np.empty(0, np.int64)], 0
    while at < len(content):
        try:
            content[at:].decode()
            wrong, after = len(content), len(content)
        except UnicodeDecodeError as error:
            wrong, after = at + error.start, at + error.end
        parts.append(tokenizer.encode_many([content[at:wrong]])[0].astype(np.int64))
        parts.append(np.array([singles[byte] for byte in content[wrong:after]], np.int64))
        at = after
    return np.concatenate(parts)


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
    return Header(model.digest, model.tokenizer.digest, model.network.weights, engine.level() or "reference", adapt)


def _check(kind: int, size: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<BII", kind, size, len(payload))))


def _block(kind: int, content: bytes, payload: bytes) -> bytes:
    check = _check(kind, len(content), payload)
    return _BLOCK.pack(kind, len(content), len(payload), check, hashlib.sha256(content).digest())


def _damaged(number: int, why: str) -> ThroughtimeError:
    return ThroughtimeError(f"the compressed file is damaged in block {number}: {why}")
