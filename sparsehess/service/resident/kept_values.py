"""A cache with a budget of bytes; the values used longest ago are dropped first."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class _Kept:
    value: Any
    size: int
    free: Callable[[], None] | None


class KeptValues:
    """A cache of values under keys, which frees what it drops.

    Every rank calls the same methods with the same keys in the same order, so all hold the same values.

    Parameters
    ----------
    most
        Bytes over all ranks; 0 keeps nothing.

    Attributes
    ----------
    hits
        Number of values found, by the first word of the key.
    """

    def __init__(self, most: int):
        self.most = most
        self.hits: Counter[str] = Counter()
        self._size = 0
        self._kept: OrderedDict[tuple[Any, ...], _Kept] = OrderedDict()  # the last used at the end
        self._dropped: list[Callable[[], None]] = []

    @property
    def largest(self) -> int:
        """Largest size of a value that is kept, in bytes over all ranks."""
        return self.most // 2

    def get(self, key: tuple[Any, ...]) -> Any:
        """Return the value of a key, None where there is none. Not collective."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        self.hits[key[0]] += 1
        return self._kept[key].value

    def hand_out(self, key: tuple[Any, ...]) -> Any:
        """Return the value of a key, and remove it from the cache; None where there is none. Not collective."""
        value = self.get(key)
        if value is not None:
            self._size -= self._kept.pop(key).size
        return value

    def keep(self, key: tuple[Any, ...], value: Any, size: int, free: Callable[[], None] | None = None) -> bool:
        """Keep a value, and drop others where the budget is short; return whether it is kept.

        Not collective.

        Parameters
        ----------
        size
            Bytes over all ranks.
        free
            Destroys the value after it was dropped; collective.
        """
        if size > self.largest or b"" in key:
            return False
        if key in self._kept:
            self._drop(key)
        self._kept[key] = _Kept(value, size, free)
        self._size += size
        while self._size > self.most:
            self._drop(next(iter(self._kept)))
        return True

    def free_later(self, free: Callable[[], None]) -> None:
        """Free something with the next `free_dropped`; the present job may still use it. Not collective."""
        self._dropped.append(free)

    def free_dropped(self) -> None:
        """Free dropped values. Collective."""
        for free in self._dropped:
            free()
        self._dropped.clear()

    def close(self) -> None:
        """Free everything. Collective."""
        while self._kept:
            self._drop(next(iter(self._kept)))
        self.free_dropped()

    def _drop(self, key: tuple[Any, ...]) -> None:
        kept = self._kept.pop(key)
        self._size -= kept.size
        if kept.free is not None:
            self.free_later(kept.free)
