"""The settings of the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, PlainSerializer, PlainValidator, TypeAdapter, model_validator

from throughtime.settings import CHANGEABLE, Finite, Name, Probability, Settings, Units

MOST_LAYERS = 1000
_SIZE = TypeAdapter(Units, config=ConfigDict(strict=True))
_SIZE_EACH = TypeAdapter(Annotated[tuple[Units, ...], Field(strict=False)], config=ConfigDict(strict=True))


def _sizes(value: Any) -> Any:
    """One size, or one for each layer. Not a union, whose errors would speak of both."""
    if not isinstance(value, list | tuple):
        return _SIZE.validate_python(value)
    if not 1 <= len(value) <= MOST_LAYERS:
        raise ValueError(f"should be one whole number or a list of 1 to {MOST_LAYERS:,}, got {len(value):,} of them")
    return _SIZE_EACH.validate_python(value)


Sizes = Annotated[int | tuple[int, ...], PlainValidator(_sizes), PlainSerializer(lambda sizes: sizes, return_type=Any)]


class Model(Settings):
    """Cells to outputs: the network."""

    cell: str = "lstm"
    """A name that `throughtime cells` lists, or MODULE:CLASS of a cell that --import brings."""
    registered_by: Annotated[Name, CHANGEABLE] = ""
    """Module or file of a cell from outside this package, as the training found it; named in messages, never imported
    because it stands here."""
    cell_options: dict[str, bool | int | Finite | str] = Field(default_factory=dict)
    """Options of the cell, such as `forget_bias` of an LSTM."""
    hidden_size: Sizes = 256
    """Units of every layer; or a list, from the input up, with the units of each: [400, 1150, 400]."""
    layers: Annotated[int, Field(ge=1, le=MOST_LAYERS)] = 1
    """Layers of the stack; left out where `hidden_size` lists them."""
    embedding_size: Annotated[int, Field(ge=0, le=2**24)] = 0
    """Size of a token's vector; 0: as the last layer where `tied`, else as the first."""
    tied: bool = False
    """The output layer uses the embedding's matrix."""
    dropout: Probability = 0.0
    """Probability that a unit is dropped on the embedding, between layers and before the output."""
    weight_drop: Probability = 0.0
    """Probability that a weight on the state is dropped, for a window (Wan et al. 2013, Merity et al. 2017)."""
    recurrent_dropout: Probability = 0.0
    """Probability that a unit of the state is dropped from its product, for a window (Gal & Ghahramani 2016)."""
    engine: Literal["auto", "native", "torch", "reference"] = "auto"
    """What runs a sequence: `native` the kernel, `torch` PyTorch's fused form, `reference` the cell's own step, `auto`
    the first of these that there is."""
    precision: Literal["float32", "bf16"] = "float32"
    """Of the products in the native engine; `bf16` rounds what is multiplied to 16 bits, and nothing else."""

    @model_validator(mode="before")
    @classmethod
    def _count_layers(cls, values: Any) -> Any:
        """A list of sizes says how many layers there are."""
        if isinstance(values, Mapping) and "layers" not in values:
            sizes = values.get("hidden_size")
            if isinstance(sizes, list | tuple) and 0 < len(sizes) <= MOST_LAYERS:
                return {**values, "layers": len(sizes)}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.hidden_size, tuple) and len(self.hidden_size) != self.layers:
            raise ValueError(
                f"layers must be {len(self.hidden_size)}, as many as hidden_size lists, or be left out, "
                f"got {self.layers}"
            )
        if self.tied and self.embedding_size not in (0, self.widths[-1]):
            last = "hidden_size" if isinstance(self.hidden_size, int) else "the last hidden_size"
            raise ValueError(
                f"tied needs embedding_size equal to {last} ({self.widths[-1]}) or 0, got {self.embedding_size}"
            )
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each layer, from the input up."""
        return self.hidden_size if isinstance(self.hidden_size, tuple) else (self.hidden_size,) * self.layers

    @property
    def embedding_width(self) -> int:
        """Size of a token's vector."""
        return self.embedding_size or self.widths[-1 if self.tied else 0]

    @property
    def units(self) -> str:
        """The units of the layers for people: `256`, or `400-1150-400` where they are listed."""
        return f"{self.hidden_size:,}" if isinstance(self.hidden_size, int) else "-".join(map(str, self.hidden_size))
