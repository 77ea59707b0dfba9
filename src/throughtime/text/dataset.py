"""A recipe's text, ready to train on: tokeniser and ids of each split, made once and found again in the cache."""

from __future__ import annotations

import filecmp
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from throughtime.errors import SettingError, ThroughtimeError
from throughtime.text import tokenizer as tokenizers
from throughtime.text.cache import (
    cache_folder,
    entry_name,
    find_entry,
    hash_of,
    new_entry,
    remove_entry,
    remove_leftovers,
)
from throughtime.text.corpus import Corpus, Document, Scan, oddities, open_corpus, read_pieces, scan, split_corpus
from throughtime.text.findings import Finding, lines
from throughtime.text.ids import FORMAT, TokenIds, write_ids
from throughtime.text.plain import changed
from throughtime.text.settings import Text
from throughtime.text.sources import STANDARD_INPUT
from throughtime.text.tokenizer import Tokenizer
from throughtime.untrusted import DOCUMENT_BYTES, printable

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


class Tokenised(NamedTuple):
    """A text in ids, and what is odd about it, a line each."""

    ids: TokenIds
    notes: tuple[str, ...]


class _Splits(NamedTuple):
    train: Corpus
    valid: Corpus
    test: Corpus
    findings: list[Finding]


def prepare(settings: Text) -> Dataset:
    """Read the recipe's text, build the vocabulary on the training split alone, and tokenise.

    Raises:
        ThroughtimeError: where a text is missing, unreadable, empty though it was named for validation or test, or too
            short to train on.
    """
    if not settings.sources:
        raise SettingError("no text is named; text.sources takes files, folders, globs, - or builtin")
    if sum(not {*STANDARD_INPUT}.isdisjoint(names) for names in (settings.sources, settings.valid, settings.test)) > 1:
        raise SettingError("standard input can be read only once, for one of the splits; write it to a file")
    remove_leftovers()
    splits = _splits(settings)
    corpora = splits[:3]
    for name, corpus in (("valid", splits.valid), ("test", splits.test)):
        if getattr(settings, name) and not corpus.size:
            raise ThroughtimeError(
                f"there is no text in {_named(getattr(settings, name))}, named by --{name}: it gives 0 bytes"
            )
    if splits.train.size < 2:
        raise ThroughtimeError(
            f"there is too little text to train on: {_named(settings.sources)} gives {splits.train.size} bytes to the "
            "training split, without what --valid and --test name; name more text, or give it a larger share by "
            "text.split"
        )
    scans = [_scan(corpus, settings) for corpus in corpora]
    tokenizer = _fitted(settings, splits.train, scans[0])
    train_ids, valid_ids, test_ids = (
        _tokenised(corpus, found, tokenizer, settings) if corpus.size else None
        for corpus, found in zip(corpora, scans, strict=True)
    )
    assert train_ids is not None
    for name, ids in (("valid", valid_ids), ("test", test_ids)):
        if ids is not None and len(ids) < 2:
            raise ThroughtimeError(f"the {name} text has 1 token, and nothing to predict; give it more by text.split")
    dataset = Dataset(tokenizer, train_ids, valid_ids, test_ids, lines([*splits.findings, *oddities(scans)]))
    return dataset._replace(notes=(*dataset.notes, *_notes(settings, dataset, scans)))


def tokenise(sources: Sequence[str], tokenizer: Tokenizer, settings: Text) -> Tokenised:
    """Other texts, read by the same settings, in the ids of a tokeniser that is there already."""
    remove_leftovers()
    findings: list[Finding] = []
    corpus = open_corpus(sources, settings, findings)
    if not corpus.size:
        raise ThroughtimeError(f"there is no text in {_named(sources)}: it gives 0 bytes")
    found = _scan(corpus, settings)
    ids = _tokenised(corpus, found, tokenizer, settings)
    return Tokenised(ids, (*lines([*findings, *oddities([found])]), *_unseparated(settings, [found])))


def held_out(settings: Text, tokenizer: Tokenizer, digests: Mapping[str, str]) -> tuple[str, TokenIds]:
    """The test split of a run's text, else the validation split, and its name, in the ids of its tokeniser.

    Args:
        settings: of the run. Somebody else may have written them: only regular files are read.
        tokenizer: of the run.
        digests: by the splits' names, what the run keeps of its texts. A text that differs is not used.

    Raises:
        ThroughtimeError: where there is no such split, or its text cannot be read again or is another.
    """
    if set(STANDARD_INPUT) & {*settings.sources, *settings.valid, *settings.test}:
        raise ThroughtimeError("the run was trained from standard input, which is gone; name a text")
    if not digests:
        raise ThroughtimeError("the run keeps no digests that would tell its texts from others; name a text")
    name = next((name for name in ("test", "valid") if name in digests), None)
    if name is None:
        raise ThroughtimeError("the run's recipe leaves no text to test or validate on; name a text")
    try:
        corpus = getattr(_splits(settings, recorded=True), name)
        found = _scan(corpus, settings)
    except ThroughtimeError as error:
        raise ThroughtimeError(f"what the run held out cannot be read again: {error}; name a text") from None
    if not corpus.size or found.digest != digests[name]:
        named = getattr(settings, name) or settings.sources
        raise ThroughtimeError(
            f"the {name} text is not the one that the run held out: {_named(named)} has changed since; name a text"
        )
    return name, _tokenised(corpus, found, tokenizer, settings)


def describe(name: str, tokenizer: Tokenizer, ids: TokenIds) -> str:
    """One line on a tokenised split."""
    facts = ids.facts
    line = f"{name} {len(ids):,} tokens, {facts.bytes:,} bytes, {len(ids) / facts.bytes:.4f} tokens per byte"
    if tokenizer.unknown is not None:
        line += f", {100 * facts.unknown / len(ids):.3g} % unknown"
    return line + f", decoding gives the text back: {'exactly' if facts.exact else 'no'}"


def _splits(settings: Text, recorded: bool = False) -> _Splits:
    """The texts to train, validate and test on: shares of the sources, or the files named for it."""
    findings: list[Finding] = []
    sources, *named = (
        open_corpus(names, settings, findings, recorded) for names in (settings.sources, settings.valid, settings.test)
    )
    for corpus, option in zip(named, ("--valid", "--test"), strict=True):
        sources = _without(sources, corpus, option, findings)
    findings += [
        Finding(document.name, "both", "is validated on and tested on: its figures are of one text")
        for document in _twins(named[1], named[0])
    ]
    train, valid, test = split_corpus(sources, settings.split)
    return _Splits(train, named[0] if settings.valid else valid, named[1] if settings.test else test, findings)


def _without(sources: Corpus, held: Corpus, option: str, findings: list[Finding]) -> Corpus:
    """The sources but for texts that are held out by name, or have the same bytes as such a text."""
    twins = _twins(sources, held)
    findings += [
        Finding(document.name, option, f"is not trained on: {option} names it, or a copy of it") for document in twins
    ]
    return Corpus(tuple(document for document in sources.documents if document not in twins))


def _twins(corpus: Corpus, others: Corpus) -> list[Document]:
    """The documents of a corpus that have the bytes of one among others."""
    sizes: dict[int, list[Document]] = {}
    for document in others.documents:
        sizes.setdefault(document.stop, []).append(document)
    return [
        document
        for document in corpus.documents
        if document.stop
        and any(filecmp.cmp(document.path, other.path, shallow=False) for other in sizes.get(document.stop, ()))
    ]


def _scan(corpus: Corpus, settings: Text) -> Scan:
    return scan(corpus, settings.tokens, settings.separator.encode())


def _named(names: Sequence[str]) -> str:
    return printable(", ".join(names))


def _notes(settings: Text, dataset: Dataset, scans: Sequence[Scan]) -> Iterator[str]:
    """Notes on the texts as a whole."""
    yield from _unseparated(settings, scans)
    if dataset.valid is None:
        yield "no text is left to validate on: best/ will be the last model, however good it is"
    if settings.tokens == "byte" and settings.encoding != "utf-8":
        yield f"text.encoding = {settings.encoding!r} does nothing: byte tokens are the bytes of the texts as they are"
    if not scans[0].line_ends:
        yield "the training text has no line end, which is what a text without a prompt begins after: give a prompt"
    unknown = dataset.train.facts.unknown / len(dataset.train)
    if unknown > 0.5:
        yield (
            f"{unknown:.0%} of the training tokens are not in the vocabulary; lower text.minimum_count, raise "
            "text.vocabulary_size, or use --tokens char or bpe"
        )


def _unseparated(settings: Text, scans: Sequence[Scan]) -> Iterator[str]:
    """A note on a separator that never occurs."""
    if settings.separator and not any(found.separators for found in scans):
        escaped = "; in TOML, \\n is a line end in double quotes only" if "\\" in settings.separator else ""
        yield f"text.separator {settings.separator!r} is nowhere in the text: every file is one document{escaped}"


def _fitted(settings: Text, train: Corpus, found: Scan) -> Tokenizer:
    decides = settings.model_dump_json(include={"tokens", "vocabulary_size", "minimum_count", "fit_bytes", "separator"})
    folder, key = cache_folder("tokenizers"), hash_of(decides, found.digest)
    if place := find_entry(folder, key, ".json"):
        with suppress(ThroughtimeError):  # written by another version of the library: made anew
            if (tokenizer := tokenizers.load(place)).kind == settings.tokens:
                return tokenizer
    digest = hashlib.sha256()
    tokenizer = tokenizers.fit(settings, _to_fit(settings, train, digest))
    if settings.tokens != "byte" and digest.hexdigest()[:32] != found.digest:
        raise changed(", ".join(dict.fromkeys(document.name for document in train.documents)))
    content = tokenizer.to_json().encode()
    if len(content) > DOCUMENT_BYTES:
        raise SettingError(
            f"text.vocabulary_size {settings.vocabulary_size:,} gives a tokenizer.json of {len(content):,} bytes, and "
            f"one of {DOCUMENT_BYTES:,} can be read; lower it"
        )
    with new_entry(folder) as new:
        new.file.write(content)
        new.publish(entry_name(key, hashlib.sha256(content).digest(), ".json"))
    return tokenizer


def _to_fit(settings: Text, train: Corpus, digest: Any) -> Iterator[bytes]:
    """The training text in pieces: all of it, or evenly spaced ones that hold `fit_bytes`. All is read and hashed."""
    share = 1.0 if settings.tokens == "char" else min(1.0, settings.fit_bytes / train.size)
    seen = taken = 0
    for piece in read_pieces(train, FIT_PIECE, settings.separator.encode(), digest):
        seen += len(piece.data)
        if taken + len(piece.data) <= share * seen or not taken:
            taken += len(piece.data)
            yield piece.data


def _tokenised(corpus: Corpus, found: Scan, tokenizer: Tokenizer, settings: Text) -> TokenIds:
    """The ids of a text, from the cache where there are some that hold."""
    separator = settings.separator
    place = cache_folder("ids") / f"{hash_of(str(FORMAT), found.digest, tokenizer.digest, separator)}.json"
    if place.is_file():
        with suppress(ThroughtimeError):
            ids = TokenIds(place, tokenizer.vocabulary_size)
            if (ids.facts.text, ids.facts.tokenizer) == (found.digest, tokenizer.digest):
                return ids
        remove_entry(place)  # damaged, or of another text: it is made anew from the shards that hold
    write_ids(place, corpus, found, tokenizer, separator.encode(), settings.workers)
    return TokenIds(place, tokenizer.vocabulary_size)
