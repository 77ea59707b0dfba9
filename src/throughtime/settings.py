"""The base of every part's settings: one frozen, validated branch of the recipe each.

The settings of a part stand beside it, in its `settings.py`: each with its meaning and its unit under it, and with
CHANGEABLE in its type where a run may be resumed with another value.
"""

from __future__ import annotations

import json
import os
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from throughtime.untrusted import is_utf8

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Natural = Annotated[int, Field(ge=1, lt=2**63)]
Whole = Annotated[int, Field(ge=0, lt=2**63)]
Units = Annotated[int, Field(ge=1, le=2**24)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

CHANGEABLE = "changeable"
"""Marks a setting that a run may be resumed with another value of."""


def _names(value: Any) -> Any:
    """One name as a list of one, and paths as their names."""
    listed = [value] if isinstance(value, str | os.PathLike) else value
    if not isinstance(listed, list | tuple):
        return listed
    return [os.fspath(name) if isinstance(name, os.PathLike) else name for name in listed]


Name = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Sources = Annotated[tuple[Name, ...], Field(strict=False), BeforeValidator(_names)]


class Settings(BaseModel):
    """A branch of the tree."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        for name, value in self:
            if not is_utf8(json.dumps(value, ensure_ascii=False, default=str)):
                raise ValueError(f"{name} should be UTF-8, as recipe.toml is, got {value!r}; a file can be renamed")
        return self
