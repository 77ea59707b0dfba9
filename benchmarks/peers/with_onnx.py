"""A recurrent layer, and a language model of one, in ONNX Runtime: a step at a time, the state handed in and out.

Axes: B batch, D input, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from pipe import serve_passes

GATES = {"gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}
"""Where the operator's gates stand among ours."""


def session(cell: str, given: dict[str, np.ndarray], batch: int, threads: int) -> onnxruntime.InferenceSession:
    """One step: x and the state in, the state out; with `embedding`, ids in and logits out."""
    size = given["U"].shape[1]

    def ordered(array: np.ndarray) -> np.ndarray:
        blocks = array.reshape(len(GATES[cell]), size, -1)[GATES[cell]]
        return np.ascontiguousarray(blocks.reshape(array.shape), np.float32)[None]

    second = np.zeros_like(given["b"])
    if "c_n" in given:
        second[-size:] = given["c_n"]
    constants = {
        "W": ordered(given["W"]),
        "R": ordered(given["U"]),
        "B": np.concatenate([ordered(given["b"])[0], ordered(second)[0]])[None],
    }
    states = ["h", "c"] if cell == "lstm" else ["h"]
    options = {"linear_before_reset": 1} if cell == "gru" else {}
    recur = helper.make_node(
        cell.upper(),
        ["x", "W", "R", "B", "", *states],
        ["", *(name + "_next" for name in states)],
        hidden_size=size,
        **options,
    )
    state = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, batch, size]) for name in states]
    after = [helper.make_tensor_value_info(name + "_next", TensorProto.FLOAT, [1, batch, size]) for name in states]
    if "embedding" not in given:
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, batch, given["W"].shape[1]])]
        nodes, outputs = [recur], []
    else:
        constants |= {"embedding": given["embedding"], "W_o": given["W_o"], "b_o": given["b_o"]}
        inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, batch])]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, len(given["W_o"])])]
        nodes = [
            helper.make_node("Gather", ["embedding", "ids"], ["x"]),
            recur,
            helper.make_node("Squeeze", ["h_next", "first"], ["top"]),
            helper.make_node("Gemm", ["top", "W_o", "b_o"], ["logits"], transB=1),
        ]
        constants["first"] = np.array([0], np.int64)
    initial = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "step", [*inputs, *state], [*outputs, *after], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def prepare(what: str, cell: str, arrays: str, batch: int, threads: int) -> Callable[[], list[Any]]:
    """`step`: of the layer, from the same state each time. `draw`: a token for each lane, the state carried."""
    with np.load(arrays) as file:
        given = dict(file)
    x = given.pop("x", None)
    run = session(cell, given, batch, threads).run
    size = given["U"].shape[1]
    names = ["h", "c"] if cell == "lstm" else ["h"]
    state = {name: np.zeros((1, batch, size), np.float32) for name in names}
    if what == "step":
        fed = {"x": x[None], **state}
        return lambda: run(None, fed)[:1]

    rng = np.random.default_rng(0)
    held = {"ids": np.zeros((1, batch), np.int64), **state}

    def draw() -> list[Any]:
        logits_BV, *after = run(None, held)
        parts = np.exp(logits_BV - logits_BV.max(1, keepdims=True))
        sums = parts.cumsum(1)
        drawn = (sums < rng.random((batch, 1)) * sums[:, -1:]).sum(1)
        held.update(zip(names, after, strict=True), ids=drawn[None])
        return [logits_BV]

    return draw


if __name__ == "__main__":
    serve_passes({"onnxruntime": onnxruntime.__version__}, prepare, lambda: None)
