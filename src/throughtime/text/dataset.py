"""A recipe's text, ready to train on: tokeniser and ids of each split, made once and found again in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from throughtime.durable import NewFile
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.recipe import Text
from throughtime.text import tokenizer as tokenizers
from throughtime.text.cache import cache_folder, hash_of
from throughtime.text.corpus import Corpus, Scan, notes, open_corpus, read_pieces, scan, split_corpus
from throughtime.text.ids import FORMAT, TokenIds, write_ids
from throughtime.text.tokenizer import Tokenizer

FIT_PIECE = 1 << 16


class Dataset(NamedTuple):
    """Ids of each split, None where the recipe leaves it empty; and what is odd about the text, a line each."""

    tokenizer: Tokenizer
    train: TokenIds
    valid: TokenIds | None
    test: TokenIds | None
    notes: tuple[str, ...]

    def splits(self) -> dict[str, TokenIds]:
        """The splits that are there, by name, in the order of training, validation, test."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: ids for name, ids in named.items() if ids is not None}


def prepare(settings: Text) -> Dataset:
    """Read the recipe's text, build the vocabulary on the training split alone, and tokenise.

    Raises:
        ThroughtimeError: where a text is missing, unreadable, or too short to train on.
    """
    if not settings.sources:
        raise SettingError("no text is named; text.sources takes files, folders, globs, - or builtin")
    train, valid, test = _splits(settings)
    if train.size < 2:
        raise ThroughtimeError(
            f"there is too little text to train on: {', '.join(settings.sources)} gives {train.size} bytes to the "
            "training split; name more text, or give it a larger share by text.split"
        )
    scans = [scan(corpus, settings.tokens) for corpus in (train, valid, test)]
    tokenizer = _fitted(settings, train, scans[0])
    train_ids, valid_ids, test_ids = (
        _tokenised(corpus, found, tokenizer, settings) if corpus.size else None
        for corpus, found in zip((train, valid, test), scans, strict=True)
    )
    assert train_ids is not None
    for name, ids in (("valid", valid_ids), ("test", test_ids)):
        if ids is not None and len(ids) < 2:
            raise ThroughtimeError(f"the {name} text has 1 token, and nothing to predict; give it more by text.split")
    return Dataset(tokenizer, train_ids, valid_ids, test_ids, notes(scans))


def tokenise(sources: Sequence[str], tokenizer: Tokenizer, settings: Text) -> TokenIds:
    """Other texts, read by the same settings, in the ids of a tokeniser that is there already."""
    corpus = open_corpus(sources, settings)
    if not corpus.size:
        raise ThroughtimeError(f"there is no text in {', '.join(sources)}: it gives 0 bytes")
    return _tokenised(corpus, scan(corpus, settings.tokens), tokenizer, settings)


def held_out(settings: Text, tokenizer: Tokenizer) -> tuple[str, TokenIds]:
    """The test split of a recipe's text, else the validation split, and its name, in the ids of a tokeniser.

    Raises:
        ThroughtimeError: where the recipe has neither, or its text cannot be read again.
    """
    if "-" in (*settings.sources, *settings.valid, *settings.test):
        raise ThroughtimeError("the run was trained from standard input, which is gone; name a text")
    _, valid, test = _splits(settings)
    for name, corpus in (("test", test), ("valid", valid)):
        if corpus.size:
            return name, _tokenised(corpus, scan(corpus, settings.tokens), tokenizer, settings)
    raise ThroughtimeError("the run's recipe leaves no text to test or validate on; name a text")


def describe(name: str, tokenizer: Tokenizer, ids: TokenIds) -> str:
    """One line on a tokenised split."""
    facts = ids.facts
    line = f"{name} {len(ids):,} tokens, {facts.bytes:,} bytes, {len(ids) / facts.bytes:.4f} tokens per byte"
    if tokenizer.unknown is not None:
        line += f", {100 * facts.unknown / len(ids):.3g} % unknown"
    return line + f", decoding gives the text back: {'exactly' if facts.exact else 'no'}"


def _splits(settings: Text) -> tuple[Corpus, Corpus, Corpus]:
    """The texts to train, validate and test on: shares of the sources, or the files named for it."""
    train, valid, test = split_corpus(open_corpus(settings.sources, settings), settings.split)
    return (
        train,
        open_corpus(settings.valid, settings) if settings.valid else valid,
        open_corpus(settings.test, settings) if settings.test else test,
    )


def _fitted(settings: Text, train: Corpus, found: Scan) -> Tokenizer:
    decides = settings.model_dump_json(include={"tokens", "vocabulary_size", "minimum_count", "fit_bytes", "separator"})
    place = cache_folder("tokenizers") / f"{hash_of(decides, found.digest)}.json"
    if place.exists():
        return tokenizers.load(place)
    tokenizer = tokenizers.fit(settings, _to_fit(settings, train))
    with NewFile(cache_folder("tokenizers")) as new:
        new.file.write(tokenizer.to_json().encode())
        new.publish(place.name)
    return tokenizer


def _to_fit(settings: Text, train: Corpus) -> Iterator[bytes]:
    """The training text in pieces: all of it, or evenly spaced ones that hold `fit_bytes`."""
    share = 1.0 if settings.tokens == "char" else min(1.0, settings.fit_bytes / train.size)
    seen = taken = 0
    for piece in read_pieces(train, FIT_PIECE, settings.separator.encode()):
        seen += len(piece.data)
        if taken + len(piece.data) <= share * seen or not taken:
            taken += len(piece.data)
            yield piece.data


def _tokenised(corpus: Corpus, found: Scan, tokenizer: Tokenizer, settings: Text) -> TokenIds:
    separator = settings.separator
    place = cache_folder("ids") / f"{hash_of(str(FORMAT), found.digest, tokenizer.digest, separator)}.json"
    if not place.exists():
        write_ids(place, corpus, found, tokenizer, separator.encode(), settings.workers)
    ids = TokenIds(place)
    if (ids.facts.text, ids.facts.tokenizer) != (found.digest, tokenizer.digest):
        raise ThroughtimeError(f"the ids {place} belong to another text or tokeniser; delete the file to make it anew")
    return ids
