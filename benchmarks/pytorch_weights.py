"""PyTorch's own modules with the weights of our cells. They have a second bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from throughtime.cells.base import Cell

MODULES = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def named(cell: Cell) -> dict[str, Tensor]:
    """The weights by the names that most cells give them: W on the input, U on the state, b."""
    usual = {"W_hx": "W", "W_hh": "U", "b_h": "b"}
    return {usual.get(name, name): value.detach() for name, value in cell.named_parameters()}


def module_like(name: str, cell: Cell) -> nn.RNNBase:
    """The module of one of MODULES, with the weights of our cell."""
    module: nn.RNNBase = MODULES[name](cell.input_size, cell.hidden_size)
    put_weights(module, cell)
    return module


def put_weights(module: nn.RNNBase, cell: Cell) -> None:
    """Our weights into the module, which computes the same from them."""
    weights = named(cell)
    second = torch.zeros_like(weights["b"])
    if "c_n" in weights:
        second[-cell.hidden_size :] = weights["c_n"]
    values = (weights["W"], weights["U"], weights["b"], second)
    module.load_state_dict(dict(zip(module.state_dict(), values, strict=True)))


@torch.no_grad()
def take_weights(module: nn.RNNBase, cell: Cell) -> None:
    """The module's weights into our cell: the two biases as one, but for a candidate's that is reset."""
    weights, (W, U, b, second) = named(cell), module.state_dict().values()
    if "c_n" in weights:
        weights["c_n"].copy_(second[-cell.hidden_size :])
        second = torch.cat([second[: -cell.hidden_size], torch.zeros(cell.hidden_size)])
    for name, value in (("W", W), ("U", U), ("b", b + second)):
        weights[name].copy_(value)
