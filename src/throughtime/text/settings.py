"""The settings of a text: where it comes from, and what a token is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from throughtime.settings import CHANGEABLE, Natural, Settings, Share, Sources, Whole


class Text(Settings):
    """Bytes to ids: where the text comes from and what a token is."""

    sources: Annotated[Sources, CHANGEABLE] = ()
    """Files, folders, globs, `-` (standard input), `builtin` (Python's language reference), `builtin:stdlib`."""
    valid: Annotated[Sources, CHANGEABLE] = ()
    """Texts to validate on; when given, `split` takes no share for it."""
    test: Annotated[Sources, CHANGEABLE] = ()
    """Texts to test on; when given, `split` takes no share for it."""
    split: Annotated[tuple[Share, Share, Share], Field(strict=False)] = (0.9, 0.05, 0.05)
    """Shares of the bytes for training, validation and test, in the order of the text; they sum to 1."""
    encoding: str = "utf-8"
    """Encoding of the texts, by Python's name; `utf-8-sig` leaves out a byte-order mark. Bytes need none."""
    newlines: Literal["keep", "lf"] = "keep"
    """`lf` turns every CR LF into LF."""
    separator: Annotated[str, Field(max_length=1000)] = ""
    """Text that ends a document inside a file; empty: every file is one document."""
    tokens: Literal["byte", "char", "word", "bpe"] = "char"
    """What a token is."""
    vocabulary_size: Annotated[int, Field(ge=2, le=2**31)] = 8192
    """Most tokens a `word` or `bpe` vocabulary may hold."""
    minimum_count: Natural = 2
    """A `word`, or a pair that `bpe` would merge, seen less often in the training text is not in the vocabulary."""
    fit_bytes: Natural = 268_435_456
    """Most bytes of training text a vocabulary is built from, taken in evenly spaced pieces (`char`: all of it)."""
    workers: Annotated[Whole, CHANGEABLE] = 0
    """Processes that make words or byte pairs of a large text; 0: as many as there are cores."""

    @model_validator(mode="before")
    @classmethod
    def _files_take_no_share(cls, values: Any) -> Any:
        """Files named for validation or test stand in for the default split, not for one the user wrote.

        A test text alone leaves the validation share: without one, nothing would tell the best model.
        """
        if isinstance(values, Mapping) and "split" not in values and (values.get("valid") or values.get("test")):
            return {**values, "split": (1.0, 0.0, 0.0) if values.get("valid") else (0.95, 0.05, 0.0)}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if abs(sum(self.split) - 1) > 1e-6:
            raise ValueError(f"split must sum to 1, got {list(self.split)}, which sums to {sum(self.split):g}")
        for name, share in zip(("valid", "test"), self.split[1:], strict=True):
            if getattr(self, name) and share:
                raise ValueError(f"{name} names files, so split must give it 0, got {list(self.split)}")
        if not self.split[0]:
            raise ValueError(f"split must leave a share for training, got {list(self.split)}")
        try:
            "".encode(self.encoding)
        except (LookupError, UnicodeError):
            raise ValueError(f"encoding must be one that Python knows, got {self.encoding!r}; try 'latin-1'") from None
        return self
