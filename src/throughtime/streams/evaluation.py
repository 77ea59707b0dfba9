"""How a text is laid out to be measured: as lanes that are read side by side."""

from __future__ import annotations

from throughtime.streams.batch import Batch, Tokens, empty_batch, fill_lane


class EvaluationLanes:
    """A text as lanes of equal length, evenly spaced, each cut into windows in order.

    As long as nothing limits the lanes, they are contiguous: every token but the first is predicted exactly once, only
    the last lane may be shorter, and only the last window; missing targets are NO_TARGET. Lane 0 begins with a reset;
    every other lane begins in the middle of the text, with the state that its predecessor ends with.

    Args:
        tokens: the text.
        lanes: most lanes; each has something to predict.
        window: steps of a window.
        most: most tokens predicted in all lanes together, at least one a lane; None: all.

    Attributes:
        predictions: tokens of the text that can be predicted.
        spacing: tokens from the beginning of a lane to that of the next.
        lane_length: tokens predicted in each lane but the last.
        lanes: number of lanes.
        windows: number of windows in each lane.
        read: tokens predicted in all lanes together.
    """

    def __init__(self, tokens: Tokens, lanes: int, window: int, most: int | None = None):
        self.tokens, self.window = tokens, window
        self.predictions = max(len(tokens) - 1, 0)
        self.spacing = max(1, -(-self.predictions // lanes))
        self.lanes = -(-self.predictions // self.spacing)
        self.lane_length = self.spacing
        if most is not None and most < self.predictions:
            self.lane_length = max(1, min(self.spacing, most // self.lanes))
        self.windows = -(-self.lane_length // window) if self.lanes else 0
        self.read = sum(stop - start for start, stop in map(self._bounds, range(self.lanes)))

    def __getitem__(self, index: int) -> Batch:
        begin = index * self.window
        end = min(begin + self.window, self.lane_length)
        bounds = []
        for first, last in map(self._bounds, range(self.lanes)):
            bounds.append((first + begin, min(first + end, last)))
        count = sum(max(0, stop - start) for start, stop in bounds)
        batch = empty_batch(end - begin, self.lanes, count)
        for lane, (start, stop) in enumerate(bounds):
            if start < stop:
                fill_lane(batch, lane, self.tokens, start, stop)
        if index == 0:
            batch.reset_TB[0, 0] = True
        return batch

    def warm_up(self, steps: int) -> Batch:
        """The last steps before each lane, for a state to begin the lane with.

        A lane with fewer steps of text before it is reset where the text begins; what stands before that is padding.
        """
        batch = empty_batch(steps, self.lanes, 0)
        for lane in range(self.lanes):
            stop = lane * self.spacing
            start = max(0, stop - steps)
            if start < stop:
                inputs = self.tokens.read(start, stop)
                batch.inputs[steps - len(inputs) :, lane] = inputs
                marks = self.tokens.documents_within(start, stop)
                batch.reset_TB[steps - len(inputs) + marks, lane] = True
            if start == 0 and stop:
                batch.reset_TB[steps - stop, lane] = True
        return batch

    def _bounds(self, lane: int) -> tuple[int, int]:
        """The tokens that a lane reads, from the first to behind the last."""
        start = lane * self.spacing
        return start, min(start + self.lane_length, self.predictions)
