"""Small models as files for the C library, of every kind of tokens, weights and cell: what `fuzz.cpp` damages.

python tests/engine/fuzz/models.py FOLDER
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from throughtime.folder import RECIPE, TOKENIZER, Description, write_description, write_weights
from throughtime.models.settings import Model
from throughtime.recipe import build, to_toml
from throughtime.runtime.embedded import embed
from throughtime.runtime.parts import shapes
from throughtime.text.settings import Text
from throughtime.text.tokenizer import fit

TEXT = "the cat sat on thé mat\n"
MODELS = [
    ("byte", "float32", {"cell": "gru", "hidden_size": 6}),
    ("char", "float32", {"cell": "lstm", "hidden_size": 7, "layers": 2, "tied": True}),
    ("char", "int8", {"cell": "gru", "hidden_size": 17}),
    ("char", "bf16", {"cell": "mingru", "hidden_size": 8, "embedding_size": 3}),
    ("char", "bf16", {"cell": "lstm", "hidden_size": [5, 9, 4], "tied": True}),
    ("word", "int8", {"cell": "layernorm-lstm", "hidden_size": 5}),
    ("bpe", "bf16", {"cell": "elman", "hidden_size": 4, "cell_options": {"activation": "relu"}}),
]


def embedded(place: Path, tokens: str, weights: str, values: dict[str, object], separator: str = "\n") -> bytes:
    """A model with random weights, by way of its folder, which is left behind."""
    tokenizer = fit(Text(tokens=tokens, minimum_count=1, vocabulary_size=260), [TEXT.encode()])
    settings, rng = Model.model_validate(values), np.random.default_rng(0)
    arrays = {
        name: rng.normal(0, 0.5, shape).astype(np.float32)
        for name, shape in shapes(settings, tokenizer.vocabulary_size).items()
    }
    place.mkdir()
    (place / TOKENIZER).write_text(tokenizer.to_json(), "utf-8")
    write_weights(place, arrays)
    write_description(place, Description(settings, tokenizer.vocabulary_size), "0", {})
    recipe = build({"text": {"tokens": tokens, "separator": separator}})
    (place / RECIPE).write_text(to_toml(recipe), "utf-8")
    return embed(place, weights)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        for number, model in enumerate(MODELS):
            (folder / f"{number}.bin").write_bytes(embedded(Path(place) / str(number), *model))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
