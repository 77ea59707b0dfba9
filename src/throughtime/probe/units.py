"""Units found by what they follow: how closely each moves with each feature of the text.

The score is Pearson's correlation r of a unit's values with the feature's, over tokens; for a feature of two values
that is the point-biserial correlation. Among thousands of pairs some correlate by chance, and where both move slowly
chance is large. So r is taken on either half of the text, and the weaker of the two counts: what one half suggests the
other has to confirm. Beside it stands what the best of all units reaches with the same feature moved along the text.

Axes: T token, U unit, F feature.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
MOVES = 20
"""What no move reaches, chance would reach one time in 21."""


class Scores(NamedTuple):
    """How closely units follow features."""

    features: list[str]
    """F names: those whose best units follow closest come first."""
    r_FU: Floats
    """The weaker correlation of the two halves of the text; 0 where their signs differ."""
    chance_F: Floats
    """The largest |r| of any unit with the feature moved, over MOVES random moves."""

    def best(self, feature: int, count: int) -> list[int]:
        """The units that follow a feature closest, above chance, the closest first."""
        order = np.argsort(-np.abs(self.r_FU[feature]), kind="stable")[:count].tolist()
        return [unit for unit in order if abs(self.r_FU[feature, unit]) > self.chance_F[feature]]


def score(values_TU: Floats, features: dict[str, Floats], seed: int = 0) -> Scores:
    """Compare each unit with each feature; a feature that does not vary on both halves of the text is left out.

    Args:
        values_TU: of each unit at each token.
        features: values_T of each feature.
        seed: of the moves.
    """
    half = len(values_TU) // 2
    names = [name for name, v_T in features.items() if half and np.ptp(v_T[:half]) and np.ptp(v_T[half:])]
    if not names:
        return Scores([], np.zeros((0, values_TU.shape[1]), np.float32), np.zeros(0, np.float32))
    features_TF = np.stack([features[name] for name in names], 1)
    features_XTF = [_standard(features_TF[:half]), _standard(features_TF[half:])]
    values_XTU = [_standard(values_TU[:half]), _standard(values_TU[half:])]
    r_FU = _weaker(features_XTF, values_XTU)
    chance_F = np.zeros(len(names), np.float32)
    generator = np.random.default_rng(seed)
    for _ in range(MOVES):
        # By a quarter of a half at least: moved by little, a slow feature is still itself.
        moved_XTF = [np.roll(f_TF, generator.integers(half // 4, half - half // 4 + 1), 0) for f_TF in features_XTF]
        chance_F = np.maximum(chance_F, np.abs(_weaker(moved_XTF, values_XTU)).max(1))
    order = np.argsort(-np.abs(r_FU).max(1), kind="stable")
    return Scores([names[index] for index in order], r_FU[order], chance_F[order])


def _standard(values_TX: Floats) -> Floats:
    """Mean 0, variance 1; all 0 where nothing varies."""
    centred_TX = values_TX - values_TX.mean(0)
    spread_X = centred_TX.std(0)
    standard_TX: Floats = centred_TX / np.where(spread_X > 1e-6, spread_X, np.inf)
    return standard_TX


def _weaker(features_XTF: list[Floats], values_XTU: list[Floats]) -> Floats:
    """The correlation, of either half, that is nearer to 0; 0 where one is positive and one negative."""
    first_FU, second_FU = (f.T @ v / len(v) for f, v in zip(features_XTF, values_XTU, strict=True))
    weaker_FU: Floats = np.where(np.abs(first_FU) < np.abs(second_FU), first_FU, second_FU)
    return weaker_FU * (first_FU * second_FU > 0)
