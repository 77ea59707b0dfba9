"""What was found, as figures for programs and as lines for people."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from throughtime.probe.examination import Examination
from throughtime.probe.inspection import Inspected
from throughtime.probe.jacobian import LayerJacobians

BEST = 6
"""Units named for a feature."""
FEATURES = 4
"""Features that have a line."""


def as_json(found: Inspected) -> dict[str, Any]:
    """The figures; what is not finite is None."""
    figures = {
        "text": found.text,
        "tokens": found.length,
        "read": len(found.reading.ids_T),
        "bits_per_token": found.bits_per_token,
        "perplexity": found.perplexity,
        "dependence": found.dependence_K,
        "reach": found.reach,
        "units": units(found),
    }
    plain: dict[str, Any] = _plain(figures | (_examined(found.examined) if found.examined else {}))
    return plain


def lines(found: Inspected) -> list[str]:
    """The figures that matter most."""
    kind, examined = found.loaded.tokenizer.kind, found.examined
    told = [
        f"{found.text}: {len(found.reading.ids_T):,} of {found.length:,} tokens of {kind} read, "
        f"{found.bits_per_token:.4f} bits each, perplexity {found.perplexity:.3f} per {kind}",
        f"reach:    nine tenths of what a prediction depends on lie within {found.reach} tokens",
    ]
    if examined is not None:
        factors = ", ".join(f"{math.exp(norms.slope):.3f}" for norms in examined.flow.loss)
        told.append(f"gradient: a step back multiplies it by {factors}")
        shares_K = examined.flow.thrown.window_K
        if found.window and found.window <= len(shares_K):
            share = shares_K[found.window - 1]
            told.append(f"window:   cutting every {found.window} tokens throws {share:.1%} of the gradient away")
        told.append(f"driven:   largest Lyapunov exponent {examined.driven.exponents_K[0]:+.4f} nats a token")
        told.append(f"alone:    {examined.alone.verdict}, when the text stops")
    for feature in units(found)[:FEATURES]:
        told += [
            f"unit:     {best['array']} {best['unit']} of layer {best['layer']} follows: {feature['feature']} "
            f"(r {best['r']:+.2f}, by chance {feature['chance']:.2f})"
            for best in feature["best"][:1]
        ]
    return told


def units(found: Inspected) -> list[dict[str, Any]]:
    """Each feature of the text, and the units that follow it best."""
    scores, told = found.scores, []
    for index, feature in enumerate(scores.features):
        followers = []
        for number in scores.best(index, BEST):
            track, unit = found.unit(number)
            layer, array, _ = found.reading.tracks[track]
            followers.append({"layer": layer, "array": array, "unit": unit, "r": float(scores.r_FU[index, number])})
        told.append({"feature": feature, "chance": float(scores.chance_F[index]), "best": followers})
    return told


def _examined(examined: Examination) -> dict[str, Any]:
    flow, alone, fixed = examined.flow, examined.alone, examined.fixed
    return {
        "gradient": {
            "loss": [norms._asdict() for norms in flow.loss],
            "state": [norms._asdict() for norms in flow.state],
            "thrown": flow.thrown._asdict(),
        },
        "layers": [_layer(layer) for layer in examined.layers],
        "lyapunov": examined.driven.exponents_K,
        "alone": {"verdict": alone.verdict, "paths": [path._asdict() for path in alone.paths]},
        "fixed_points": {
            "searches": fixed.searches,
            "fixed": int(fixed.fixed_F.sum()),
            "attracting": int(fixed.stable_F.sum()),
            "slow": int((~fixed.fixed_F).sum()),
            "radii": fixed.radii_F,
        },
    }


def _layer(layer: LayerJacobians) -> dict[str, Any]:
    return {
        "mean_radius": layer.mean_radius,
        "largest_singular_value": layer.singular_values_PN.max(),
        "recurrent_radii": layer.recurrent_radii,
        "gates": {name: gate._asdict() for name, gate in layer.gates.items()},
        "dead": layer.dead,
        "saturated": layer.saturated,
    }


def _plain(value: Any) -> Any:
    """Arrays as lists, and what JSON has no word for as None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
