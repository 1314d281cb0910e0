"""Processes that somebody has stopped, as by SIGSTOP: they do nothing, and neither does who waits for them."""

from __future__ import annotations

import time

from sparsehess.service.resident.keeper import list_descendants

# States of /proc: stopped by a signal.
_STOPPED = "T"

# Seconds between two looks.
_LOOK = 1.0


class StoppedProcesses:
    """Looks for how long processes that descend from one have been stopped.

    Parameters
    ----------
    root
        Its number.
    """

    def __init__(self, root: int):
        self._root = root
        self._since: dict[int, float] = {}
        self._looked = 0.0

    def longest(self) -> float:
        """Return the seconds that one of them has been stopped for at a stretch. Not collective."""
        now = time.monotonic()
        if now - self._looked > _LOOK:
            self._looked = now
            there = list_descendants(self._root)
            stopped = [process for process, state in there.items() if state == _STOPPED]
            self._since = {process: self._since.get(process, now) for process in stopped}
        return max((now - since for since in self._since.values()), default=0.0)
