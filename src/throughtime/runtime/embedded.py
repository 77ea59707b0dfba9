"""A model as one file for the C library (`include/throughtime.h`).

MAGIC, CRC-32 of all that follows, then in this order, every number an int64, little-endian:
the most a table may take; weights (text); kind of tokens (text); the unknown token, -1: none; V;
V pieces (text); the embedding (array); H; layers; for each: kernel (text), its weights (text), W (array), U (array,
where the kernel has one), vectors (array [1, n]); W_o (array), b_o (array [1, V])

text: length, bytes. array: kind (0 float32, 1 int8), rows, columns; for int8 a float32 scale for each row; numbers
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from throughtime import folder as folders
from throughtime.errors import SettingError
from throughtime.folder import Floats, whole_numbers
from throughtime.recipe import Model as Settings
from throughtime.runtime.model import shapes
from throughtime.runtime.network import TABLE_BYTES, UNBOUNDED, WEIGHTS, form_of
from throughtime.text import tokenizer as tokenizers

MAGIC = b"throughtime embedded 1\n"


def embed(run: str | Path, weights: str | None = None) -> bytes:
    """The file of a run's best model, or of a model folder.

    Args:
        run: the folder.
        weights: one of `network.WEIGHTS`: how they are held while the model runs; None: as they are in the folder.

    Raises:
        ThroughtimeError: where a part is missing, damaged, or does not belong to the others.
    """
    place = folders.find(run)
    tokenizer = tokenizers.load(place.home / folders.TOKENIZER)
    settings: Settings = folders.read_description(place.folder, tokenizer.vocabulary_size).settings
    found = folders.read_weights(place.folder, shapes(settings, tokenizer.vocabulary_size))
    weights, arrays = weights or found.held, found.arrays
    if weights not in WEIGHTS:
        raise SettingError(f"weights must be {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}, got {weights!r}")
    form = form_of(settings.cell)
    kernel = form.kernel_of(settings.cell_options)
    held = "bf16" if weights == "int8" and kernel in UNBOUNDED else weights
    scale = np.float32(settings.hidden_size**0.5 if settings.tied else 1.0)
    parts = [_number(TABLE_BYTES), _text(weights.encode()), _text(tokenizer.kind.encode())]
    parts += [_number(-1 if tokenizer.unknown is None else tokenizer.unknown), _number(tokenizer.vocabulary_size)]
    parts += [_text(piece) for piece in tokenizer.pieces]
    parts += [_array(arrays["embedding"] * scale, "float32"), _number(settings.hidden_size), _number(settings.layers)]
    for level in range(settings.layers):
        parts += [_text(kernel.encode()), _text(held.encode())]
        parts += [_array(arrays[f"stack.cells.{level}.{name}"], held) for name in (form.W, form.U) if name]
        vectors = np.concatenate([arrays[f"stack.cells.{level}.{name}"] for name in form.vectors])
        parts.append(_array(vectors[None], "float32"))
    parts += [_array(arrays["embedding" if settings.tied else "W_o"], weights), _array(arrays["b_o"][None], "float32")]
    content = b"".join(parts)
    return MAGIC + _number(zlib.crc32(content)) + content


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
