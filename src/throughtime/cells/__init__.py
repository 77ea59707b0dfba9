"""Recurrent cells: `create(name, input_size, hidden_size, **options)`, one contract for all."""

# Each of these files registers its cell.
from throughtime.cells import elman, gru, layernorm_gru, layernorm_lstm, lstm, mingru, minlstm
from throughtime.cells.base import Cell
from throughtime.cells.bidirectional import Bidirectional
from throughtime.cells.masks import Masks
from throughtime.cells.registry import create, family, names, register, unregister
from throughtime.cells.stack import Stack

__all__ = [
    "Bidirectional",
    "Cell",
    "Masks",
    "Stack",
    "create",
    "elman",
    "family",
    "gru",
    "layernorm_gru",
    "layernorm_lstm",
    "lstm",
    "mingru",
    "minlstm",
    "names",
    "register",
    "unregister",
]
