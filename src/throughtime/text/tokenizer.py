"""Text to ids and back: byte, character, word and byte pair, behind one interface.

Each kind is a Hugging Face tokenizer (`tokenizer.json` loads in `tokenizers.Tokenizer.from_file`) whose tokens, put one
after the other, are the text. Bytes and characters are encoded by array operations that give the library's ids; words
and byte pairs by the library. Every line end is a token of its own in all four.
"""

from __future__ import annotations

import codecs
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from throughtime.errors import ThroughtimeError
from throughtime.text.cache import hash_of
from throughtime.text.prompt import opening_of
from throughtime.text.settings import Text
from throughtime.untrusted import parse_json, read_text

UNKNOWN = "<unk>"

ANY_CHARACTER = r"[\s\S]"
# A word brings the one space before it along: tokens then join to exactly the text, and "cat" after a space and "cat"
# after a bracket are two tokens. An apostrophe inside a word belongs to it; any other mark stands alone. `<unk>`, which
# prepared corpora write for a rare word, is one.
WORD = r"\n| ?<unk>| ?\w+(?:['’]\w+)*| ?[^\w\s]|[^\S\n]"
# Merges stay inside a word, a run of marks or a run of spaces.
PAIR = r"\n| ?\w+| ?[^\w\s]+|[^\S\n]+(?!\S)|[^\S\n]+"

Ids = npt.NDArray[np.unsignedinteger[Any]]
"""uint16, or uint32 where the vocabulary needs it."""


class Tokenizer(ABC):
    """Text to ids and back.

    Attributes:
        kind: `byte`, `char`, `word` or `bpe`.
        pieces: for each id the bytes it stands for; decoding puts them one after the other.
        unknown: the id of what the vocabulary lacks; None where it lacks nothing.
    """

    kind: str
    piece_limit: int
    """Bytes that are best encoded at once."""
    by_workers = False
    """Whether several processes encode faster than one."""

    def __init__(self, library: Library, pieces: Sequence[bytes], unknown: int | None):
        self.library = library
        self.pieces = tuple(pieces)
        self.unknown = unknown

    @abstractmethod
    def encode_many(self, pieces: Sequence[bytes]) -> list[Ids]:
        """The ids of each piece of UTF-8 (any bytes for `byte`), each encoded by itself."""

    @final
    def encode(self, text: str) -> Ids:
        return self.encode_many([text.encode()])[0]

    @final
    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        return b"".join([self.pieces[index] for index in ids])

    @final
    def decode(self, ids: Iterable[int]) -> str:
        """The text; bytes that are no UTF-8 (a byte or pair model may write them) show as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    @final
    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text as it comes, a string for each id; it is empty until a character is complete."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for index in ids:
            yield decoder.decode(self.pieces[index])
        yield decoder.decode(b"", final=True)

    @final
    def opening(self, prompt: str, separator: str = "") -> list[int]:
        """The ids a model reads first: the prompt's, or those of the separator or a line end (see `opening_of`).

        Raises:
            ThroughtimeError: where the vocabulary lacks a part of the prompt.
        """
        return opening_of(self, prompt, separator)

    @final
    @property
    def vocabulary_size(self) -> int:
        return len(self.pieces)

    @final
    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        return np.dtype("<u2" if len(self.pieces) <= 1 << 16 else "<u4")

    @final
    @property
    def digest(self) -> str:
        """Hash of everything that decides which ids a text gets."""
        return hash_of(self.library.to_str())

    @final
    @property
    def fingerprint(self) -> str:
        """Hash of the tokens and merges, which is the same whatever version of the library wrote them down."""
        merges = json.loads(self.library.to_str())["model"].get("merges", ())
        pairs = (merge if isinstance(merge, str) else " ".join(merge) for merge in merges)
        return hash_of(self.kind, str(self.unknown), *self.pieces, *pairs)

    @final
    def to_json(self) -> str:
        """What `tokenizer.json` holds."""
        return self.library.to_str(pretty=True) + "\n"


class ByteTokenizer(Tokenizer):
    """256 tokens, the id is the byte. Needs no vocabulary and takes any file."""

    kind = "byte"
    piece_limit = 1 << 20

    def encode_many(self, pieces: Sequence[bytes]) -> list[Ids]:
        return [np.frombuffer(piece, np.uint8).astype(self.dtype) for piece in pieces]


class CharTokenizer(Tokenizer):
    """A token for each character (Unicode code point) of the training text, in order of number; 0 is unknown."""

    kind = "char"
    piece_limit = 1 << 20

    def __init__(self, library: Library, pieces: Sequence[bytes], unknown: int | None):
        super().__init__(library, pieces, unknown)
        self._id_of = np.full(0x110000, unknown, self.dtype)
        for index, piece in enumerate(pieces):
            if index != unknown:
                self._id_of[ord(piece.decode())] = index

    def encode_many(self, pieces: Sequence[bytes]) -> list[Ids]:
        return [self._id_of[_code_points(piece)] for piece in pieces]


class LibraryTokenizer(Tokenizer):
    """Words or byte pairs, encoded by the library on every core."""

    piece_limit = 1 << 16
    by_workers = True

    def __init__(self, kind: str, library: Library, pieces: Sequence[bytes], unknown: int | None):
        super().__init__(library, pieces, unknown)
        self.kind = kind

    def encode_many(self, pieces: Sequence[bytes]) -> list[Ids]:
        texts = [piece.decode() for piece in pieces]
        encodings = self.library.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, self.dtype) for encoding in encodings]


def fit(settings: Text, pieces: Iterable[bytes]) -> Tokenizer:
    """Build the vocabulary from pieces of the training text."""
    match settings.tokens:
        case "byte":
            return _of(_byte_library())
        case "char":
            return _of(_char_library(pieces))
        case "word":
            return _of(_word_library(pieces, settings))
        case "bpe":
            return _of(_pair_library(pieces, settings))


def load(path: Path) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        ThroughtimeError: where the file is missing, damaged, or not one that this project writes.
    """
    content = read_text(path)
    try:
        return from_json(content)
    except (KeyError, TypeError, ValueError) as error:  # ThroughtimeError is a ValueError
        what = " ".join(str(error).split())
        raise ThroughtimeError(f"{path} is not a tokeniser of this project: {what}") from None


def from_json(content: str) -> Tokenizer:
    """The tokeniser that `to_json` wrote.

    The library never reads the content: a tokeniser is made anew from the tokens and merges in it, and must then be the
    one that the content describes, so that nothing in it can make the library cut, fill or change a text.

    Raises:
        ValueError, KeyError, TypeError: where the content is anything else.
    """
    description = parse_json(content, "it")
    library = _made_anew(description)
    wanted = json.loads(library.to_str())
    difference: str | None = next(iter(sorted(wanted.keys() - description.keys())), None)
    difference = difference or _differs(description, wanted)
    if difference is not None:
        raise ValueError(f"its {difference or 'content'} is not as this project writes it")
    return _of(library)


def _made_anew(description: Any) -> Library:
    """A library tokeniser with the tokens and merges of a description, and nothing else of it."""
    model = description["model"]
    vocabulary = model["vocab"]
    if not isinstance(vocabulary, dict) or any(type(index) is not int for index in vocabulary.values()):
        raise ValueError("its vocabulary does not give each token an id")
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[token] for token in tokens] != list(range(len(tokens))):
        raise ValueError("its ids are not 0, 1, 2, ...")
    match model["type"]:
        case "WordLevel":
            if tokens[:1] != [UNKNOWN]:
                raise ValueError(f"its first token is not {UNKNOWN}")
            pattern = description["pre_tokenizer"]["pattern"]["Regex"]
            if pattern not in (ANY_CHARACTER, WORD):
                raise ValueError("it is neither of characters nor of words")
            if pattern == ANY_CHARACTER and any(len(token) != 1 for token in tokens[1:]):
                raise ValueError("a token is not one character")
            if "" in tokens:
                raise ValueError("a token is empty")
            return _level_library(tokens[1:], pattern)
        case "BPE":
            merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
            return _merging_library(tokens, merges)
    raise ValueError("it is neither of bytes, characters, words nor byte pairs")


def _differs(found: Any, wanted: Any) -> str | None:
    """Where a description is not as it should be, as a path; None where it is. Other versions of the library write
    fewer settings, and merges as strings."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key, value in found.items():
            if key not in wanted:
                return str(key)
            if key == "merges":
                value = [merge.split(" ") if isinstance(merge, str) else merge for merge in value]
            inner = _differs(value, wanted[key])
            if inner is not None:
                return f"{key}.{inner}".rstrip(".")
        return None
    return None if type(found) is type(wanted) and found == wanted else ""


def _of(library: Library) -> Tokenizer:
    """The tokeniser around a library one that this file made."""
    vocabulary = library.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    description = json.loads(library.to_str())
    if description["model"]["type"] == "WordLevel":
        pieces = [token.encode() for token in tokens]
        if description["pre_tokenizer"]["pattern"]["Regex"] == ANY_CHARACTER:
            return CharTokenizer(library, pieces, vocabulary[UNKNOWN])
        return LibraryTokenizer("word", library, pieces, vocabulary[UNKNOWN])
    byte_of = {character: byte for byte, character in enumerate(_byte_characters())}
    pieces = [bytes(byte_of[character] for character in token) for token in tokens]
    if description["pre_tokenizer"]["type"] == "ByteLevel":
        return ByteTokenizer(library, pieces, None)
    return LibraryTokenizer("bpe", library, pieces, None)


def _byte_library() -> Library:
    library = Library(models.BPE({character: byte for byte, character in enumerate(_byte_characters())}, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    return library


def _char_library(pieces: Iterable[bytes]) -> Library:
    seen = np.zeros(0x110000, bool)
    for piece in pieces:
        seen[_code_points(piece)] = True
    return _level_library([chr(point) for point in np.flatnonzero(seen)], ANY_CHARACTER)


def _word_library(pieces: Iterable[bytes], settings: Text) -> Library:
    trainer = trainers.WordLevelTrainer(
        vocab_size=settings.vocabulary_size - 1, min_frequency=settings.minimum_count, show_progress=False
    )
    counted = _level_library([], WORD)
    counted.train_from_iterator((piece.decode() for piece in pieces), trainer)
    vocabulary = counted.get_vocab()
    words = [word for word in sorted(vocabulary, key=vocabulary.__getitem__) if word != UNKNOWN]
    if not words:
        raise ThroughtimeError(
            f"no word stands {settings.minimum_count} times in the training text, so that the vocabulary would be "
            "empty; set text.minimum_count = 1, name more text, or use --tokens char or bpe"
        )
    return _level_library(words, WORD)


def _level_library(tokens: Sequence[str], pattern: str) -> Library:
    """One id for each stretch that `pattern` matches; 0 is unknown."""
    library = Library(models.WordLevel({token: index for index, token in enumerate([UNKNOWN, *tokens])}, UNKNOWN))
    library.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    library.decoder = decoders.Fuse()
    return library


def _pair_library(pieces: Iterable[bytes], settings: Text) -> Library:
    if settings.vocabulary_size <= 256:
        raise ThroughtimeError(
            f"text.vocabulary_size must be over 256 for bpe (the bytes come first), got {settings.vocabulary_size}"
        )
    library = _in_pairs(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary_size,
        min_frequency=settings.minimum_count,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator((piece.decode() for piece in pieces), trainer)
    return library


def _in_pairs(model: models.BPE) -> Library:
    library = Library(model)
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PAIR), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    return library


def _merging_library(tokens: Sequence[str], merges: Sequence[tuple[str, str]]) -> Library:
    """Bytes, or byte pairs, from their tokens and merges.

    Raises:
        ValueError: where a byte has no token, a token is not of bytes, or a merge is not of two tokens that make one.
    """
    characters, known = _byte_characters(), set(tokens)
    if not merges and list(tokens) == characters:
        return _byte_library()
    if not known.issuperset(characters) or not all(token and set(token) <= set(characters) for token in tokens):
        raise ValueError("its tokens are not bytes and sequences of them")
    for merge in merges:
        if len(merge) != 2 or not known.issuperset((*merge, "".join(merge))):
            raise ValueError(f"the merge {merge!r} is not of two tokens that make a third")
    return _in_pairs(models.BPE({token: index for index, token in enumerate(tokens)}, list(merges)))


def _code_points(piece: bytes) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint32]:
    if piece.isascii():
        return np.frombuffer(piece, np.uint8)
    return np.frombuffer(piece.decode().encode("utf-32-le"), np.dtype("<u4"))


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2's table).

    A byte that is printable in Latin-1 is itself; the others are, in order, the characters from 256 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
