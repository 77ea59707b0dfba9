"""A model as one file for the C library (`include/throughtime.h`).

MAGIC with the version, CRC-32 of all that follows, then in this order, every number an int64, little-endian:
weights (text); kind of tokens (text); the unknown token, -1: none; V; V pieces (text); the separator between documents
(text, empty: none); the embedding (array); version 2: H; layers; for each: version 3: H; kernel (text), its weights
(text), W (array), U (array, where the kernel has one), vectors (array [1, n]); W_o (array), b_o (array [1, V])

Version 3 is for layers of different H. Others are written in version 2, which older libraries read too.

text: length, bytes. array: kind (0 float32, 1 int8), rows, columns; for int8 a float32 scale for each row; numbers
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from throughtime.folder import Floats, whole_numbers
from throughtime.runtime.network import check_weights, given_of
from throughtime.runtime.parts import built, read_parts

MAGIC = b"throughtime embedded 2\n"
MAGIC_OF_SIZES = b"throughtime embedded 3\n"


def embed(run: str | Path, weights: str | None = None) -> bytes:
    """The file of a run's best model, or of a model folder.

    Args:
        run: the folder.
        weights: one of `network.WEIGHTS`: how they are held while the model runs; None: as they are in the folder.

    Raises:
        ThroughtimeError: where a part is missing, damaged, or does not belong to the others.
    """
    found = read_parts(run)
    tokenizer, settings, weights = found.tokenizer, found.settings, weights or found.weights.held
    check_weights(weights)
    layers, embedding, (W_o, b_o) = built(settings, found.weights.arrays)
    parts = [_text(weights.encode()), _text(tokenizer.kind.encode())]
    parts += [_number(-1 if tokenizer.unknown is None else tokenizer.unknown), _number(tokenizer.vocabulary_size)]
    parts += [_text(piece) for piece in tokenizer.pieces]
    parts.append(_text(found.separator.encode()))
    one_size = len(set(settings.widths)) == 1
    parts += [_array(embedding, "float32"), *([_number(settings.widths[0])] if one_size else [])]
    parts.append(_number(len(layers)))
    for given, width in zip((given_of(layer, weights) for layer in layers), settings.widths, strict=True):
        parts += [] if one_size else [_number(width)]
        parts += [_text(given.kernel.encode()), _text(given.weights.encode())]
        parts += [_array(matrix, given.weights) for matrix in (given.W, given.U) if matrix is not None]
        parts.append(_array(given.vectors[None], "float32"))
    parts += [_array(W_o, weights), _array(b_o[None], "float32")]
    content = b"".join(parts)
    return (MAGIC if one_size else MAGIC_OF_SIZES) + _number(zlib.crc32(content)) + content


def _number(value: int) -> bytes:
    return struct.pack("<q", value)


def _text(content: bytes) -> bytes:
    return _number(len(content)) + content


def _array(array: Floats, held: str) -> bytes:
    shape = b"".join(_number(size) for size in array.shape)
    if held != "int8":
        return _number(0) + shape + np.ascontiguousarray(array, "<f4").tobytes()
    whole, scale = whole_numbers(array)
    return _number(1) + shape + scale.astype("<f4").tobytes() + whole.tobytes()
