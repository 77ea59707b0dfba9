"""How a text is laid out to be measured: every token but the first is predicted exactly once."""

from __future__ import annotations

from throughtime.streams.window import Tokens, Window, empty_window, fill_lane


class EvaluationLanes:
    """A text as contiguous lanes of equal length, each cut into windows in order.

    Only the last lane may be shorter, and only the last window: what is missing there is NO_TARGET. Lane 0 begins
    fresh; every other begins in the middle of the text, with the state that its predecessor ends with.

    Attributes:
        lanes: at most as many as were asked for; each has something to predict.
        windows: in each lane.
    """

    def __init__(self, tokens: Tokens, lanes: int, window: int):
        self.tokens, self.window = tokens, window
        self.predictions = max(len(tokens) - 1, 0)
        self.lane_length = max(1, -(-self.predictions // lanes))
        self.lanes = -(-self.predictions // self.lane_length)
        self.windows = -(-self.lane_length // window) if self.lanes else 0

    def __getitem__(self, index: int) -> Window:
        begin = index * self.window
        end = min(begin + self.window, self.lane_length)
        cut = empty_window(end - begin, self.lanes)
        for lane in range(self.lanes):
            start = lane * self.lane_length + begin
            stop = min(lane * self.lane_length + end, self.predictions)
            if start < stop:
                fill_lane(cut, lane, self.tokens, start, stop)
        if index == 0:
            cut.fresh_TB[0, 0] = True
        return cut
