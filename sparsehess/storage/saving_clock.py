"""The clock that says when a run saves: as often as that is cheap, or every so many seconds."""

from __future__ import annotations

import statistics
import time
from collections import deque

# What saving may take of the time, as a part; seconds after which a run saves whatever it takes.
SHARE, LONGEST = 0.01, 60.0

# Saves whose cost is remembered: one that the disk has held up is not taken for what they cost.
_REMEMBERED = 3


class SavingClock:
    """When to save next. Not collective: each rank has its own.

    Parameters
    ----------
    interval
        Seconds from one save to the next; None: at least 1 / SHARE times what a save has lately cost, and at most
        LONGEST.
    guess
        Seconds that a save costs, before there was one.
    """

    def __init__(self, interval: float | None, guess: float = 0.0) -> None:
        self._interval = interval
        self.start(guess)

    def start(self, guess: float) -> None:
        """Begin anew, for what costs about so much to save. Not collective."""
        self._costs = deque([guess], maxlen=_REMEMBERED)
        self._last = self._began = time.monotonic()

    @property
    def cost(self) -> float:
        """Seconds that a save costs, as far as is known: the middle one of the last."""
        return statistics.median_low(self._costs)

    @property
    def is_due(self) -> bool:
        """Whether to save now."""
        wait = min(self.cost / SHARE, LONGEST) if self._interval is None else self._interval
        return time.monotonic() - self._last >= wait

    def begin(self) -> None:
        """Note that a save begins. Not collective."""
        self._began = time.monotonic()

    def end(self) -> None:
        """Note that it has ended: the time to the next one counts from here. Not collective."""
        self._last = time.monotonic()
        self._costs.append(self._last - self._began)
