"""Recurrent cells: `create(name, input_size, hidden_size, **options)`, one contract for all."""

from throughtime.cells import elman, gru, lstm  # each registers its cell
from throughtime.cells.base import Cell, create, family, names, register
from throughtime.cells.stack import Stack

__all__ = ["Cell", "Stack", "create", "elman", "family", "gru", "lstm", "names", "register"]
