"""The engine: native kernels for whole sequences. It knows arrays, not PyTorch."""

from throughtime.engine.choice import (
    PRECISIONS,
    STATE_TOLERANCE,
    describe,
    kernel,
    level,
    levels,
    memory,
    network,
    obstacle,
    sampler,
    separator,
)

__all__ = [
    "PRECISIONS",
    "STATE_TOLERANCE",
    "describe",
    "kernel",
    "level",
    "levels",
    "memory",
    "network",
    "obstacle",
    "sampler",
    "separator",
]
