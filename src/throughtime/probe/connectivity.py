"""Which past tokens a prediction depends on: gradients back to what was read, one prediction a lane.

A prediction's gradient must not mix with another's, so each has a lane of its own, that begins with the state of the
text K tokens earlier. What came before that does not change the gradient in the window: it is exact.

Axes: N prediction, K lag, B prediction at once (a lane), D input.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from throughtime.cells.state import select_rows
from throughtime.models.language import LanguageModel
from throughtime.probe.reading import Reading

LANES = 256


@torch.enable_grad()
def connectivity(
    model: LanguageModel, reading: Reading, places: NDArray[np.int64], lags: int = 40
) -> NDArray[np.float32]:
    """The Euclidean norm of d(-log P of token t) / d(embedding of token t - k), for each place t and k = 1 ... K.

    Zero beyond the beginning of the text or the document: the state is reset there.

    Args:
        model: the one that read.
        reading: its text.
        places: t of each prediction, from 1 up.
        lags: K.
    """
    norms_NK = np.zeros((len(places), lags), np.float32)
    for first in range(0, len(places), LANES):
        places_B = torch.from_numpy(places[first : first + LANES])
        steps_KB = places_B - lags + torch.arange(lags)[:, None]
        ids_KB = reading.ids_T[steps_KB.clamp(min=0)]
        # Lanes that would begin before the text repeat its first token, and reset their state at each.
        reset_KB = reading.reset_T[steps_KB.clamp(min=0)]
        state = select_rows(reading.states, (steps_KB[0] - 1).clamp(min=0))
        x_KBD = model.embedded(ids_KB).detach().requires_grad_()
        y_KBH, _ = model.stack(x_KBD, state, reset_KB if reset_KB.any() else None)
        nats = cross_entropy(model.logits(y_KBH[-1]), reading.ids_T[places_B], reduction="sum")
        (slope_KBD,) = torch.autograd.grad(nats, x_KBD)
        norms_NK[first : first + LANES] = slope_KBD.norm(dim=2).flip(0).T.numpy()
    return norms_NK
