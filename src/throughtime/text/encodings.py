"""Which encoding a text is in, told by its bytes: by a byte-order mark or UTF-16's zeros for certain, else by guess."""

from __future__ import annotations

import codecs
import re

import numpy as np

SAMPLE = 1 << 16
"""Bytes that are looked at."""
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""UTF-32's come first: in little endian it begins with UTF-16's."""
_ACCENTED = "\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff\u0152\u0153\u0160\u0161\u017d\u017e\u0178"
_CENTRAL = (
    "\u0100-\u017f\u00c1-\u00c4\u00c9\u00cd\u00d3-\u00d6\u00da-\u00df\u00e1-\u00e4\u00e9\u00ed\u00f3-\u00f6"
    "\u00fa-\u00fd"
)
_MARKS_OF_PRINT = "\u2018\u2019\u201c\u201d\u201e\u2013\u2014\u2026\u2022\u20ac\u00a3\u00a7\u00a9\u00ab\u00bb\u00b0"
_COMMON_HANZI = (
    "的一是不了在人有我他这這个個们們中来來上大为為和国國地到以说說时時要就出会會可也你对對生能而子那得于於着下自之年"
)
_CYRILLIC = "(?<![A-Za-z])[\u0410-\u042f\u0401]?[\u0430-\u044f\u0451]+(?![A-Za-z])"
_KANA = "[\u3041-\u3093\u30a1-\u30f6\u30fc\u3001\u3002]"
_WIDE = "[\u3001\u3002\u3041-\u30fc\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff1f]"
USUAL = {
    "cp1252": f"[{_MARKS_OF_PRINT}\u00a1\u00bf]|(?<=[A-Za-z{_ACCENTED}])[{_ACCENTED}]|[{_ACCENTED}](?=[a-z])",
    "cp1250": f"(?<=[A-Za-z{_CENTRAL}])[{_CENTRAL}]|[{_CENTRAL}](?=[a-z])|[\u201e\u201d\u2013]",
    "cp1251": _CYRILLIC,
    "koi8-r": _CYRILLIC,
    "cp866": _CYRILLIC,
    "cp1253": "(?<![A-Za-z])[\u0386-\u03ab]?[\u03ac-\u03ce]+(?![A-Za-z])",
    "shift_jis": _KANA,
    "euc-jp": _KANA,
    "euc-kr": "[\uac00-\ud7a3]",
    "gb18030": f"[{_COMMON_HANZI}\uff0c\u3002\u3001]",
    "big5": f"[{_COMMON_HANZI}\uff0c\u3002\u3001]",
    "utf-16-le": _WIDE,
    "utf-16-be": _WIDE,
}
"""For each encoding, what most of the characters outside ASCII should be in a text that is in it."""
ENOUGH = {"gb18030": 0.1, "big5": 0.1, "shift_jis": 0.3, "euc-jp": 0.3}
"""Share of them that is needed; else 0.8."""


def marked(head: bytes) -> str | None:
    """UTF-16 or UTF-32, where a text begins with its byte-order mark."""
    return next((name for mark, name in MARKS.items() if head.startswith(mark)), None)


def unmarked(head: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, told by its zeros; None where the bytes do not show it.

    In UTF-16 one byte of each pair tells the script: most are below 32, and 0 where there are spaces and digits.
    """
    if b"\0" not in head:
        return None
    for name in ("utf-32-le", "utf-32-be"):
        if len(head) >= 8 and (text := _decoded(head[: len(head) // 4 * 4], name)) and "\0" not in text:
            return name
    pairs_N2 = np.frombuffer(head[: len(head) // 2 * 2], np.uint8).reshape(-1, 2)
    if len(pairs_N2) < 4:
        return None
    low_2, zero_2 = (pairs_N2 < 32).mean(0), (pairs_N2 == 0).mean(0)
    for name, high, other in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        if low_2[high] > 0.7 and zero_2[high] > 0.02 and low_2[other] < 0.3 and zero_2[other] < 0.02:
            return name
    return None


def guessed(sample: bytes) -> str | None:
    """The likeliest encoding of a text that is not UTF-8; None where none is likely."""
    if found := unmarked(sample):
        return found
    scores = {}
    for name, usual in USUAL.items():
        if name.startswith("utf-16") and b"\0" not in sample:
            continue  # Latin letters, taken two at a time, are Chinese characters
        text = _decoded(sample, name)
        others = sum(character > "\x7f" for character in text)
        matched = sum(character > "\x7f" for found in re.finditer(usual, text) for character in found.group())
        if others and matched / others >= ENOUGH.get(name, 0.8):
            scores[name] = matched / others / ENOUGH.get(name, 0.8)
    return max(scores, key=scores.__getitem__, default=None)


def _decoded(data: bytes, encoding: str) -> str:
    """The text; empty where it is not in the encoding. A character may be cut at the end."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeError:
        return ""
