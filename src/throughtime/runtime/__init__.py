"""The runtime: a trained model in a product, without PyTorch."""

from throughtime.runtime.model import Model, Score, load
from throughtime.runtime.network import Layer, Network
from throughtime.runtime.state import State

__all__ = ["Layer", "Model", "Network", "Score", "State", "load"]
