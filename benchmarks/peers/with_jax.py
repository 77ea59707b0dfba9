"""The cells in JAX, as its users write them: `lax.scan` over the steps, compiled as a whole.

What needs no state is computed for all steps at once, before the scan, and matrices stand as x @ W needs them: what
whoever cares for speed would do.

Axes: T time, B batch, D input, H hidden, G gates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.nn import log_sigmoid, sigmoid

from pipe import serve_passes

Arrays = dict[str, Array]
State = tuple[Array, ...]
"""The output first."""


def affine(p: Arrays, x_TBD: Array) -> Array:
    return x_TBD @ p["W"] + p["b"]


def normalised(p: Arrays, x_TBD: Array) -> Array:
    return layer_norm(x_TBD @ p["W"], p["gain_x"]) + p["b"]


def layer_norm(v: Array, gain: Array) -> Array:
    mean, variance = v.mean(-1, keepdims=True), v.var(-1, keepdims=True)
    return gain * (v - mean) * lax.rsqrt(variance + 1e-5)


def minimal_gru(p: Arrays, x_TBD: Array) -> tuple[Array, Array]:
    z, n = jnp.split(affine(p, x_TBD), 2, -1)
    z = sigmoid(z)
    return 1 - z, z * n


def minimal_lstm(p: Arrays, x_TBD: Array) -> tuple[Array, Array]:
    f, i, n = jnp.split(affine(p, x_TBD), 3, -1)
    odds = log_sigmoid(f) - log_sigmoid(i)
    return sigmoid(odds), sigmoid(-odds) * n


def elman(p: Arrays, a: Array, state: State) -> State:
    return (jnp.tanh(a + state[0] @ p["U"]),)


def gru(p: Arrays, a: Array, state: State) -> State:
    return gru_gates(p, a, state[0] @ p["U"], state[0])


def gru_gates(p: Arrays, a: Array, u: Array, h: Array) -> State:
    a_r, a_z, a_n = jnp.split(a, 3, -1)
    u_r, u_z, u_n = jnp.split(u, 3, -1)
    n = jnp.tanh(a_n + sigmoid(a_r + u_r) * (u_n + p["c_n"]))
    z = sigmoid(a_z + u_z)
    return ((1 - z) * n + z * h,)


def lstm(p: Arrays, a: Array, state: State) -> State:
    h, c = state
    c, o = lstm_gates(a + h @ p["U"], c)
    return o * jnp.tanh(c), c


def lstm_gates(gates: Array, c: Array) -> tuple[Array, Array]:
    i, f, g, o = jnp.split(gates, 4, -1)
    return sigmoid(f) * c + sigmoid(i) * jnp.tanh(g), sigmoid(o)


def layernorm_gru(p: Arrays, a: Array, state: State) -> State:
    return gru_gates(p, a, layer_norm(state[0] @ p["U"], p["gain_h"]), state[0])


def layernorm_lstm(p: Arrays, a: Array, state: State) -> State:
    h, c = state
    c, o = lstm_gates(a + layer_norm(h @ p["U"], p["gain_h"]), c)
    return o * jnp.tanh(layer_norm(c, p["gain_c"]) + p["shift_c"]), c


def minimal(_: Arrays, a: tuple[Array, Array], state: State) -> State:
    kept, new = a
    return (kept * state[0] + new,)


CELLS: dict[str, tuple[Callable[..., Any], Callable[..., State], int]] = {
    "elman": (affine, elman, 1),
    "gru": (affine, gru, 1),
    "lstm": (affine, lstm, 2),
    "layernorm-gru": (normalised, layernorm_gru, 1),
    "layernorm-lstm": (normalised, layernorm_lstm, 2),
    "mingru": (minimal_gru, minimal, 1),
    "minlstm": (minimal_lstm, minimal, 1),
}
"""Before the scan, a step, and how many arrays a state has."""


def prepare(cell: str, arrays: str, precision: str, backward: bool) -> Callable[[], list[Array]]:
    kind = {"float32": jnp.float32, "bf16": jnp.bfloat16}[precision]
    before, step, states = CELLS[cell]
    with np.load(arrays) as given:
        p = {name: jnp.asarray(given[name].T if name in ("W", "U") else given[name], kind) for name in given}
    x_TBD, dy_TBH = p.pop("x"), p.pop("dy")

    def forward(p: Arrays, x_TBD: Array) -> Array:
        def one(state: State, a: Any) -> tuple[State, Array]:
            state = step(p, a, state)
            return state, state[0]

        zeros = jnp.zeros(dy_TBH.shape[1:], kind)
        outputs: Array = lax.scan(one, (zeros,) * states, before(p, x_TBD))[1]
        return outputs

    def loss(p: Arrays, x_TBD: Array, dy_TBH: Array) -> tuple[Array, Array]:
        y_TBH = forward(p, x_TBD)
        return (y_TBH * dy_TBH).sum(), y_TBH

    infer = jax.jit(forward)
    learn = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

    def forwards() -> list[Array]:
        return [infer(p, x_TBD).block_until_ready()]

    def both() -> list[Array]:
        (_, y_TBH), (dp, dx_TBD) = jax.block_until_ready(learn(p, x_TBD, dy_TBH))
        return [y_TBH, dx_TBD, *(dp[name] for name in ("W", "U") if name in dp)]

    return both if backward else forwards


if __name__ == "__main__":
    serve_passes({"jax": jax.__version__}, prepare, jax.clear_caches)
