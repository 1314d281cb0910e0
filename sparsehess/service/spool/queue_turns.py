"""In which order jobs are taken from a queue: users take turns, each in the order that he has given his jobs."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from pathlib import Path

# The user of what we may not look at, as what others have mounted.
_HIDDEN = -1


class QueueTurns:
    """What waits in a queue, by users. Not collective.

    A priority ranks the jobs of one user: otherwise whoever gives all of his the highest would be the only one.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, deque[str]] = {}
        self._owners: dict[str, int] = {}
        self._last: dict[int, int] = {}
        self._count = 0

    def __bool__(self) -> bool:
        """Return whether anything waits."""
        return bool(self._waiting)

    def fill(self, folder: Path, names: list[str]) -> None:
        """Let the names of a folder wait instead of those that did."""
        owners: dict[str, int] = {}
        for name in names:
            with suppress(FileNotFoundError):  # somebody has taken it
                owners[name] = self._owners[name] if name in self._owners else _owner(folder / name)
        self._owners = owners
        by_user: dict[int, list[str]] = {}
        for name, owner in owners.items():
            by_user.setdefault(owner, []).append(name)
        self._waiting = {owner: deque(sorted(some)) for owner, some in by_user.items()}

    def take(self) -> str | None:
        """Return the first name of the user whose last turn is the longest ago, None where nothing waits."""
        if not self._waiting:
            return None
        owner = min(self._waiting, key=lambda one: (self._last.get(one, 0), self._waiting[one][0]))
        self._count += 1
        self._last[owner] = self._count
        name = self._waiting[owner].popleft()
        if not self._waiting[owner]:
            del self._waiting[owner]
        return name


def _owner(path: Path) -> int:
    """Return the user of a file, _HIDDEN where we are not told."""
    try:
        return os.lstat(path).st_uid
    except FileNotFoundError:
        raise
    except OSError:
        return _HIDDEN
