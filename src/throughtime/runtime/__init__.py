"""The runtime: a trained model in a product, without PyTorch."""

from throughtime.runtime.beam import Found, search
from throughtime.runtime.lanes import Choice
from throughtime.runtime.model import Model, Score, load
from throughtime.runtime.network import Layer, Network
from throughtime.runtime.state import State
from throughtime.runtime.streams import Streams

__all__ = ["Choice", "Found", "Layer", "Model", "Network", "Score", "State", "Streams", "load", "search"]
