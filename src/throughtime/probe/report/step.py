"""Pictures of what one step does to the state, and of the units at work.

Axes: P position, N entries of a layer's state, T time.
"""

from __future__ import annotations

from collections.abc import Sequence

from throughtime.probe.jacobian import LayerJacobians
from throughtime.probe.report.figures import Figure, Part, Series, counted, of_layer

NORMS_SHOWN = 1000
"""Tokens along which the state's norm is drawn."""


def step(layers: Sequence[LayerJacobians]) -> Part:
    """What one step does."""
    return Part(
        "step",
        "What one step does",
        "The Jacobian of a step says what becomes of small differences between two states: it is the factor that "
        "back-propagation multiplies with at every step.",
        [_eigenvalues(layers), _singular_values(layers), *_gates(layers), _norms(layers)],
    )


def _eigenvalues(layers: Sequence[LayerJacobians]) -> Figure:
    series = []
    for level, layer in enumerate(layers):
        values = layer.eigenvalues_PN.flatten()
        notes = [f"|λ| {abs(value):.3f}" for value in values.tolist()]
        name, x, y = of_layer("", level, len(layers)), values.real.tolist(), values.imag.tolist()
        series.append(Series(name, x, y, line=False, points=True, notes=notes))
    return Figure(
        "eigenvalues",
        "Eigenvalues of the step",
        f"Of the Jacobian at {len(layers[0].at_P)} places of the text, with the unit circle. What lies near 1 is "
        "remembered, near the circle elsewhere it turns round, outside it grows; near 0 it is forgotten in a step.",
        "real part",
        "imaginary part",
        series,
        kind="points",
        equal=True,
        circle=True,
    )


def _singular_values(layers: Sequence[LayerJacobians]) -> Figure:
    series = []
    for level, layer in enumerate(layers):
        means_N = layer.singular_values_PN.mean(0)
        ranks, top_N = counted(means_N), layer.singular_values_PN.max(0)
        series += [
            Series(of_layer("mean", level, len(layers)), ranks, means_N.tolist(), colour=level, dash=0),
            Series(of_layer("largest", level, len(layers)), ranks, top_N.tolist(), faint=True, colour=level, dash=1),
        ]
    return Figure(
        "singular",
        "Singular values of the step",
        "How much a step stretches or shrinks a difference, direction by direction, the most stretched first. A "
        "gradient cannot explode where all are below 1, and must vanish in the directions far below.",
        "direction",
        "factor",
        series,
        log_y=True,
        y_range=(1e-6, None),
    )


def _gates(layers: Sequence[LayerJacobians]) -> list[Figure]:
    gates = [
        (f"{level + 1}·{name}" if len(layers) > 1 else name, gate)
        for level, layer in enumerate(layers)
        for name, gate in layer.gates.items()
    ]
    if not gates:
        return []
    x = [float(index) for index in range(len(gates))]
    return [
        Figure(
            "gates",
            "Gates",
            "Each gate's mean over units and tokens, and how much of it stands shut (below 0.1) or open (above 0.9). A "
            "gate that is always either is a constant: its unit no longer chooses.",
            "",
            "share",
            [
                Series("shut", x, [gate.shut for _, gate in gates], line=False, bars=True),
                Series("mean", x, [gate.mean for _, gate in gates], line=False, bars=True, colour=5),
                Series("open", x, [gate.open for _, gate in gates], line=False, bars=True, colour=1),
            ],
            x_names=[name for name, _ in gates],
            y_range=(0, 1),
        )
    ]


def _norms(layers: Sequence[LayerJacobians]) -> Figure:
    said = [
        of_layer(f"{layer.dead:.0%} of the units are dead" + _saturated(layer), level, len(layers))
        for level, layer in enumerate(layers)
    ]
    return Figure(
        "norms",
        "Length of the state",
        "The Euclidean norm of the state along the text; jumps are where it is cleared or filled. "
        f"{'; '.join(said).capitalize()}.",
        "token",
        "norm",
        [
            Series(of_layer("", level, len(layers)), counted(norms_T), norms_T.tolist())
            for level, norms_T in enumerate(layer.state_norms_T[:NORMS_SHOWN] for layer in layers)
        ],
        y_range=(0, None),
    )


def _saturated(layer: LayerJacobians) -> str:
    return "" if layer.saturated is None else f", {layer.saturated:.0%} saturated"
