"""The settings of minibatches."""

from __future__ import annotations

from typing import Literal

from throughtime.settings import Natural, Settings


class Streams(Settings):
    """Ids to windows: how the stream is cut into minibatches."""

    partition: Literal["sequential", "random"] = "sequential"
    """`sequential`: lanes in order, the state is carried; `random`: windows in any order, the state is reset."""
    lanes: Natural = 32
    """Sequences side by side in a minibatch."""
    window: Natural = 64
    """Tokens of each lane in a minibatch; their mean where `gradient.truncation` is `variable`."""
