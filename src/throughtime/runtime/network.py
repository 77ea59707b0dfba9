"""Layers on packed weights: arrays in, arrays out, the state beside them.

Axes: T time, B batch (lane), D input, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self, final

import numpy as np
from numpy.typing import NDArray

from throughtime import engine
from throughtime.engine.forms import FORMS, Form
from throughtime.errors import SettingError
from throughtime.machine import usable_threads
from throughtime.runtime import reference
from throughtime.runtime.arguments import whole
from throughtime.runtime.backend import Backend
from throughtime.states import States
from throughtime.text.separator import Separator

Floats = NDArray[np.float32]
Int64 = NDArray[np.int64]
Marks = NDArray[np.bool_]

WEIGHTS = ("float32", "bf16", "int8")
UNBOUNDED = ("elman-relu",)
"""Kernels whose states can be above 1, which int8 weights are not multiplied with: theirs are bf16 then."""
LOGITS_AT_ONCE = 1 << 20
"""Entries held at once while targets are predicted (4 MB)."""
TABLE_BYTES = 1 << 24
"""Where what the first layer makes of every token takes no more than this, it is made once and looked up."""


class NoKernelError(SettingError):
    """A cell that PyTorch can run, where it is registered, and the runtime cannot."""


class Layer(NamedTuple):
    """A cell: its name, its arrays by their names, its options where they decide the kernel."""

    cell: str
    arrays: Mapping[str, Floats]
    options: Mapping[str, Any] = {}


@final
class Network:
    """Recurrent layers one above the other, with an embedding below and a linear head above them if given.

    It keeps no state: states go in as tuples of arrays, batch first, and come back.

    Args:
        layers: from the input up; each takes what the one below puts out.
        embedding: rows_VD that the inputs name by their ids; None: the inputs are vectors.
        head: W_OH and b_O that make the outputs O of the last layer's; None: these are the outputs.
        weights: `float32`; `bf16`, which rounds weights and what they are multiplied with; or `int8`, with a scale for
            each row, and for what they are multiplied with.
        threads: at most; 0: as many as the process may use. Small products take one, whatever is said here.

    Attributes:
        outputs: O.
        state_shapes: shape of each array of a state, without the batch.
        has_kernels: the runtime's own kernels, or their twin in NumPy, run the layers: same input, same bits.

    Raises:
        SettingError: where a cell has no form for the runtime, or an argument is out of range.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        embedding: Floats | None = None,
        head: tuple[Floats, Floats] | None = None,
        weights: str = "float32",
        threads: int = 0,
    ):
        check_weights(weights)
        if not layers:
            raise SettingError("a network needs at least one layer, got none")
        threads = whole("threads", threads, 0)
        most = threads or usable_threads()
        native = engine.network(TABLE_BYTES) or reference.Network()
        if embedding is not None:
            native.embed(_dense(embedding))
        for layer in layers:
            given = given_of(layer, weights)
            try:
                native.add(*given, most)
            except KeyError:
                raise SettingError(
                    f"the runtime has no kernel {given.kernel!r}; are the options of the cell {layer.cell!r} right?"
                ) from None
        if head is not None:
            native.head(weights, _dense(head[0]), _dense(head[1]), most)
        vectors = None if embedding is not None else (native.feed_vectors, native.step_vectors)
        self._run_on(native, weights, threads, vectors)
        self.has_kernels = True

    @classmethod
    def on(cls, backend: Backend) -> Self:
        """A network of ids whose layers another backend runs, for cells without a kernel."""
        network = cls.__new__(cls)
        network._run_on(backend, "float32", 0)
        network.has_kernels = False
        return network

    def _run_on(self, backend: Backend, weights: str, threads: int, vectors: Any = None) -> None:
        """`vectors`: how the backend reads stretches and steps of vectors; None: the network reads ids."""
        self._backend, self.weights = backend, weights
        feed, step = vectors or (backend.feed_ids, backend.step_ids)
        self._feed: Any = feed
        self._step: Any = step
        self.wanted_threads, self.threads = threads, threads or usable_threads()
        self.outputs = backend.outputs
        self.state_shapes = [array.shape[1:] for array in backend.initial_state(0)]

    @property
    def state_tolerance(self) -> float:
        return engine.STATE_TOLERANCE[self.weights]

    def initial_state(self, batch_size: int) -> States:
        return self._backend.initial_state(batch_size)

    def feed(
        self, inputs: Int64 | Floats, state: States, wanted: int | None = None, reset_TB: Marks | None = None
    ) -> tuple[Floats, States]:
        """A stretch of ids_TB or x_TBD: the outputs_TBO of the last `wanted` steps (None: all), and the state.

        Where `reset_TB` is true a lane's state is reset before the step.
        """
        fresh = None if reset_TB is None else np.ascontiguousarray(reset_TB).view(np.uint8)
        found: tuple[Floats, States] = self._feed(
            inputs, fresh, state, len(inputs) if wanted is None else wanted, self.threads
        )
        return found

    def step(self, inputs: Int64 | Floats, state: States) -> tuple[Floats, States]:
        """One step, ids_B or x_BD: the outputs_BO and the state."""
        found: tuple[Floats, States] = self._step(inputs, state, self.threads)
        return found

    def advance(self, inputs_TB: Int64, reset_TB: Marks, state: States) -> States:
        """The state after a stretch; nothing is predicted."""
        return self.feed(inputs_TB, state, 0, reset_TB)[1]

    def nats(
        self, inputs_TB: Int64, targets_TB: Int64, reset_TB: Marks | None, state: States
    ) -> tuple[NDArray[np.float64], States]:
        """-log P of each target (nats_TB, 0 where it is negative: none), and the state.

        No more than LOGITS_AT_ONCE logits are held at any time.
        """
        found = np.empty(targets_TB.shape)
        steps = max(1, LOGITS_AT_ONCE // (self.outputs * targets_TB.shape[1]))
        for start in range(0, len(targets_TB), steps):
            here = slice(start, start + steps)
            fresh = None if reset_TB is None else reset_TB[here]
            logits_TBV, state = self.feed(inputs_TB[here], state, None, fresh)
            targets_N, nats_N = np.maximum(targets_TB[here], 0).ravel(), np.empty(targets_TB[here].size)
            self._backend.nats(logits_TBV.reshape(-1, self.outputs), targets_N, nats_N)
            found[here] = np.where(targets_TB[here] < 0, 0.0, nats_N.reshape(targets_TB[here].shape))
        return found, state

    def probabilities(self, logits_BV: Floats, bias_V: Floats) -> NDArray[np.float64]:
        """softmax(logits + bias) as whole multiples of 2^-24, none of them 0, that sum to 1."""
        out = np.empty(logits_BV.shape)
        self._backend.probabilities(logits_BV, bias_V, out)
        return out

    def outputs_after(self, state: States) -> Floats:
        """The outputs_BO of a network with a head after a state, from what its last layer put out."""
        return self._backend.outputs_after(state, self.threads)

    def generate(
        self,
        logits_1BV: Floats,
        state: States,
        samplers: Sequence[Any],
        tokens: int,
        separator: Any = None,
        matched_B: Int64 | None = None,
        out_TB: Int64 | None = None,
    ) -> Int64:
        """So many tokens_TB, each drawn by its lane's sampler and read in turn; -1 from where a lane can draw none.

        Logits, states and `matched_B`, the bytes of the separator that each lane has matched, move on in place; those
        of a lane that can draw none stay as they are. Without a separator no document ends. The tokens go to `out_TB`
        where it is given.
        """
        drawn = np.empty((tokens, len(samplers)), np.int64) if out_TB is None else out_TB
        separator = separator or self.separator([], b"")
        matched_B = np.zeros(len(samplers), np.int64) if matched_B is None else matched_B
        self._backend.generate(logits_1BV, state, list(samplers), separator, matched_B, drawn, self.threads)
        return drawn

    def search(
        self,
        logits_V: Floats,
        state: States,
        separator: Any,
        matched: int,
        stops: Sequence[bytes],
        allowed: NDArray[np.uint8] | None,
        *,
        beams: int,
        best: int,
        tokens: int,
        length_penalty: float,
    ) -> list[tuple[bytes, float, float, States, int]]:
        """The best texts that follow, by beams, the best first: each with its nats, its score, the state after it and
        what it has matched of the separator.

        Args:
            logits_V: of what comes next.
            state: of the lane that they are of.
            separator: what the tokens stand for, and where documents end.
            matched: the bytes of it that the lane has matched.
            stops: what ends a text, and is left out of it.
            allowed: the tokens that may be used, a mask; None: all.
            beams: texts followed at once.
            best: texts wanted.
            tokens: of the longest text.
            length_penalty: as for `runtime.search`.
        """
        return self._backend.search(
            logits_V,
            state,
            separator,
            matched,
            stops,
            allowed,
            beams,
            best,
            tokens,
            length_penalty,
            self.threads,
        )

    def separator(self, pieces: Sequence[bytes], text: bytes) -> Any:
        """What finds the ends of documents in ids: `text.separator.Separator`, or its native twin."""
        return engine.separator(pieces, text) or Separator(pieces, text)

    def sampler(self, **choice: Any) -> Any:
        """One lane's way of choosing; the arguments of `reference.Sampler` but for the size of the vocabulary."""
        return engine.sampler(self.outputs, **choice) or reference.Sampler(self.outputs, **choice)


class Given(NamedTuple):
    """A layer as its kernel takes it."""

    kernel: str
    weights: str
    W: Floats
    U: Floats | None
    vectors: Floats


def given_of(layer: Layer, weights: str) -> Given:
    """What a kernel is given of a layer whose weights are to be held so."""
    form = form_of(layer.cell)
    kernel = form.kernel_of(layer.options)
    return Given(
        kernel,
        "bf16" if weights == "int8" and kernel in UNBOUNDED else weights,
        _dense(layer.arrays[form.W]),
        None if form.U is None else _dense(layer.arrays[form.U]),
        np.concatenate([_dense(layer.arrays[name]) for name in form.vectors]),
    )


def check_weights(weights: str) -> None:
    """Refuse what is none of WEIGHTS (SettingError)."""
    if weights not in WEIGHTS:
        raise SettingError(f"weights must be {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}, got {weights!r}")


def form_of(cell: str) -> Form:
    """How a cell runs.

    Raises:
        NoKernelError: where the runtime does not know it.
    """
    if cell not in FORMS:
        raise NoKernelError(
            f"the runtime has no kernel for the cell {cell!r}; it has {', '.join(FORMS)}; `throughtime evaluate`, "
            "`generate`, `score` and `inspect` run other cells with PyTorch"
        )
    return FORMS[cell]


def _dense(array: Floats) -> Floats:
    return np.ascontiguousarray(array, np.float32)
