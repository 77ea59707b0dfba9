"""What the page knows of the text and of the units: arrays as base64, a byte a value where that will do.

Axes: T token, U unit, N token with connectivity, K lag or guess, F feature.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from throughtime.probe.inspection import SHOWN, Inspected
from throughtime.probe.summary import BEST
from throughtime.untrusted import printable

ACTIVATIONS = 2_400_000
"""Values of units in a report, a byte each, at most."""
FEWEST_SHOWN = 1_500
FULL = 0.98
"""The share of a unit's values that its colours tell apart; the few beyond would leave the others pale."""


def pieces(found: Inspected, count: int) -> list[str]:
    """The first tokens of the text."""
    return [visible(found.loaded.tokenizer.pieces[index]) for index in found.reading.ids_T[:count].tolist()]


def visible(piece: bytes) -> str:
    """A token's text, with what would not show, or would steer the page, written out."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in piece)
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def text(found: Inspected) -> dict[str, Any]:
    """What the page knows of the text."""
    shown = _shown(found)
    reading, known = found.reading, found.loaded.tokenizer.pieces
    ids_T, past_NK = reading.ids_T[:shown].numpy(), found.past_NK[:shown]
    guesses_TK = reading.guesses_TK[:shown]
    peaks_N = past_NK.max(1)
    share_NK = past_NK / np.where(peaks_N > 0, peaks_N, 1)[:, None]
    bits = [None, *(round(nats / math.log(2), 3) for nats in reading.nats_T[1:shown].tolist())]
    return {
        "lead": (
            f"The first {shown:,} of {found.length:,} tokens of {printable(found.text)}. The stronger the colour, the "
            "more a token surprised the network. Move over it to see what was expected, and which tokens that came "
            "from."
        ),
        "meaning": (
            "Surprise is −log₂ P of a token, given all before it: 1 bit where it was one of two equally likely ones. "
            "Green bars on the tokens before show how strongly the prediction depends on each: the length of the "
            "gradient of its surprise by the token's vector, exact, as a share of the longest. "
            "A unit is coloured by its value after each token: orange above zero, blue below."
        ),
        "tokens": pieces(found, shown),
        "ids": ids_T.tolist(),
        "bits": bits,
        "guesses": _packed(guesses_TK.astype("<u4")),
        "chances": _packed(np.rint(np.nan_to_num(reading.chances_TK[:shown]) * 65535).astype("<u2")),
        "guesses_each": guesses_TK.shape[1],
        "guessed": {str(index): visible(known[index]) for index in np.unique(guesses_TK).tolist()},
        "lags": past_NK.shape[1],
        "past": _packed(np.rint(share_NK * 255).astype(np.uint8)),
        "past_peaks": _rounded(peaks_N),
    }


def units(found: Inspected) -> dict[str, Any]:
    """The units that are shown: all, or where they are too many those that follow a feature best."""
    shown, scores, tracks = _shown(found), found.scores, found.reading.tracks
    above_FU = np.abs(scores.r_FU) - scores.chance_F[:, None]
    strength_U = above_FU.max(0) if len(above_FU) else np.zeros(scores.r_FU.shape[1])
    kept = np.sort(np.argsort(-strength_U, kind="stable")[: max(1, ACTIVATIONS // shown)])
    place = {number: index for index, number in enumerate(kept.tolist())}
    several = tracks[-1].layer > 1
    told, first = [], 0
    for layer, name, values_TH in tracks:
        of_track = kept[(kept >= first) & (kept < first + values_TH.shape[1])]
        values_UT = values_TH[:shown, of_track - first].T
        peaks_U = np.abs(values_UT).max(1)
        share_UT = values_UT / np.where(peaks_U > 0, peaks_U, 1)[:, None]
        fulls_U = np.maximum(np.quantile(np.abs(values_UT), FULL, 1), 0.01 * peaks_U + 1e-9)
        told.append(
            {
                "name": f"layer {layer} {name}" if several else name,
                "short": f"{layer}·{name}" if several else name,
                "units": (of_track - first).tolist(),
                "scales": _rounded(peaks_U),
                "fulls": _rounded(fulls_U),
                "follows": [_followed(scores.r_FU[:, unit], above_FU[:, unit]) for unit in of_track.tolist()],
                "values": _packed(np.rint(share_UT * 127).astype(np.int8)),
            }
        )
        first += values_TH.shape[1]
    features = [
        {
            "name": name,
            "chance": float(scores.chance_F[index]),
            "best": [
                (place[unit], round(float(scores.r_FU[index, unit]), 3))
                for unit in scores.best(index, BEST)
                if unit in place
            ],
        }
        for index, name in enumerate(scores.features)
    ]
    return {"tracks": told, "features": features}


def _followed(r_F: NDArray[np.float32], above_F: NDArray[np.float32]) -> tuple[int, float] | None:
    """The feature that a unit follows best, and how closely; None where chance would do."""
    if not len(above_F) or above_F.max() <= 0:
        return None
    feature = int(above_F.argmax())
    return feature, round(float(r_F[feature]), 3)


def _shown(found: Inspected) -> int:
    """Tokens in the page: fewer where there are many units."""
    units: int = sum(track.values_TH.shape[1] for track in found.reading.tracks)
    return min(max(ACTIVATIONS // units, FEWEST_SHOWN), SHOWN, len(found.reading.ids_T))


def _packed(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()).decode()


def _rounded(array: NDArray[Any]) -> list[float]:
    return [float(f"{value:.4g}") for value in array.tolist()]
