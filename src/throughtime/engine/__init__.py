"""The engine: native kernels for whole sequences. It knows arrays, not PyTorch."""

from throughtime.engine.choice import PRECISIONS, describe, kernel, level, levels, memory

__all__ = ["PRECISIONS", "describe", "kernel", "level", "levels", "memory"]
