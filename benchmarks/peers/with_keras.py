"""The layers of Keras on TensorFlow, with their defaults.

They run as `Model.fit` would run them: inside a `tf.function`, which Keras does not hand to XLA where there is only a
processor, and with the policy `mixed_bfloat16` for bf16 (with pure bfloat16 a layer cannot make its initial weights).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="2")

import keras
import numpy as np
import tensorflow as tf

from pipe import serve_passes

LAYERS = {"elman": "SimpleRNN", "gru": "GRU", "lstm": "LSTM"}


def prepare(cell: str, arrays: str, precision: str, backward: bool) -> Callable[[], list[Any]]:
    with np.load(arrays) as file:
        given = dict(file)
    units = given["dy"].shape[-1]
    policy, kind = {"float32": ("float32", tf.float32), "bf16": ("mixed_bfloat16", tf.bfloat16)}[precision]
    # Keras has the batch before the time.
    x_BTD, dy_BTH = (tf.cast(given[name].swapaxes(0, 1), kind) for name in ("x", "dy"))
    layer = getattr(keras.layers, LAYERS[cell])(units, return_sequences=True, dtype=policy)
    layer.build(x_BTD.shape)
    layer.set_weights(weights(cell, given))

    @tf.function  # type: ignore[untyped-decorator]
    def infer(x_BTD: Any) -> Any:
        return layer(x_BTD)

    @tf.function  # type: ignore[untyped-decorator]
    def learn(x_BTD: Any, dy_BTH: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x_BTD)
            y_BTH = layer(x_BTD)
        variables = [variable.value for variable in layer.trainable_variables]
        return y_BTH, *tape.gradient(y_BTH, [x_BTD, *variables], dy_BTH)

    def forwards() -> list[Any]:
        return [infer(x_BTD)]

    def both() -> list[Any]:
        return list(learn(x_BTD, dy_BTH)[:4])  # not the biases

    return both if backward else forwards


def weights(cell: str, given: dict[str, Any]) -> list[Any]:
    """Our weights in the order of a Keras layer: a GRU has its update gate first, and a second bias."""
    W, U, b = given["W"], given["U"], given["b"]
    if cell != "gru":
        return [W.T, U.T, b]
    second = np.concatenate([np.zeros_like(b[: -len(given["c_n"])]), given["c_n"]])
    reset, update, candidate = np.split(np.arange(len(b)), 3)
    order = np.concatenate([update, reset, candidate])
    return [W[order].T, U[order].T, np.stack([b, second])[:, order]]


if __name__ == "__main__":
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    serve_passes(versions, prepare, keras.backend.clear_session)
