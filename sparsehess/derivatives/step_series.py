"""Differences of two numbers that should be one, at steps of several lengths: what explains them.

With c a contradiction, what one function says and what another one's differences say along h d are apart by

    D(h) = c + T(h) + N(h) / h,

T what steps leave out, and N the noise, which does not know of h. T is of the order of h² (to one side, of h)
where the function is smooth. Where it has kinks, such as those of ReLU, T is made of those that lie between
x - h d and x + h d: at short steps there are none. So D is the same at all steps if c is all there is, and
nothing else makes it so: noise changes it by the ratio of two steps, smooth T by that ratio too or by its square,
and kinks leave at last.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

# Two functions agree in a row if they differ by no more than this part of the larger one. Single precision leaves
# up to 1e-3 where much cancels; users' mistakes are factors and lost terms.
TOLERANCE = 1e-2

# Step k is FIRST times RATIO to the k, in typical lengths.
FIRST, RATIO = 2.0**-10, 8.0
LONGEST, SHORTEST = 2, -4

# Differences are the same at two steps if they differ by this part.
_SAME = 0.05

# Noise of this part of a difference at the longer step of two must not show at any shorter one.
_NOISE = 0.2

# By this factor at least what steps leave out grows with the step, and what noise makes with its inverse.
_GROWTH = 4.0

# Two functions have nothing in common in a row if they differ by more than this part.
_LOST = 0.5

# A change of this many quanta is seen though values are rounded to multiples of one.
_QUANTA = 4.0

# Where nothing changes at all, values may be printed ones: the coarsest quantum that is taken for one.
PRINTED = 1e-3


@dataclass(frozen=True, eq=False)
class Look:
    """Two functions side by side, at one step.

    Attributes
    ----------
    one, other
        (m,) what they say: the other one by its differences.
    size
        (m,) what their difference is judged against.
    rounding
        (m,) what last digits make of the difference at least.
    change, grain
        (m,) the numerator of `other`, and below what it may be hidden by values of few digits.
    step
        h.
    """

    one: np.ndarray
    other: np.ndarray
    size: np.ndarray
    rounding: np.ndarray
    change: np.ndarray
    grain: np.ndarray
    step: float

    @property
    def difference(self) -> np.ndarray:
        """(m,) by what they are apart."""
        return self.one - self.other

    @property
    def agrees(self) -> np.ndarray:
        """(m,) whether they say the same."""
        return np.abs(self.difference) <= np.maximum(TOLERANCE * self.size, self.rounding)


def same(one: Look, other: Look) -> np.ndarray:
    """Return (m,) whether what two looks differ by is the same, and something, and differences were seen.

    Not collective. Differences that fall with the inverse of the step show noise, or steps that are too long.
    """
    a, b = one.difference, other.difference
    least = np.minimum(np.abs(a), np.abs(b))
    seen = np.maximum(np.abs(one.other), np.abs(other.other))
    steady = np.abs(one.other - other.other) <= 2 * _SAME * seen
    return (least > 0) & (np.abs(a - b) <= _SAME * least) & steady


class StepSeries:
    """Looks at several steps along one line, and the rows that none of them has cleared.

    Parameters
    ----------
    rows
        (m,) those that are looked at.
    reaches
        Whether the longest step is a long one for every variable: then a value that does not change there is none
        that is rounded.

    Attributes
    ----------
    looks
        By the number of the step.
    open
        (m,) rows in which no agreement was seen.
    """

    def __init__(self, comm: MPI.Comm, rows: np.ndarray, reaches: bool) -> None:
        self._comm, self._reaches = comm, reaches
        self.looks: dict[int, Look] = {}
        self.open = rows.copy()

    def add(self, number: int, look: Look) -> None:
        """Take a look into account: rows that agree are cleared. Not collective."""
        self.looks[number] = look
        self.open &= ~look.agrees

    def wants(self, number: int) -> bool:
        """Return whether a look at this step may tell more of any row. Collective.

        Longer steps do not where what steps leave out grows already, shorter ones not where noise does.
        """
        near = number - int(np.sign(number))
        wanted = self.open
        before = near - int(np.sign(number))
        if near in self.looks and before in self.looks:
            last, first = (np.abs(self.looks[k].difference) for k in (near, before))
            wanted = wanted & ~(last > _GROWTH * first)
        return bool(self._comm.allreduce(bool(wanted.any()), op=MPI.LOR))

    @property
    def lost(self) -> np.ndarray:
        """(m,) open rows in which the longest step shows nothing like agreement: it may be too long for them.

        Noise and rounding show least there.
        """
        if not self.looks:
            return self.open
        longest = self.looks[max(self.looks)]
        return self.open & (np.abs(longest.difference) > _LOST * longest.size)

    def candidates(self) -> list[tuple[int, np.ndarray]]:
        """Return (k, rows) where differences at the steps k and k + 1 are the same, and noise does not explain it.

        Collective. `rows` (m,) says for each row whether it is so. The pair with most rows comes first, those
        without any are left out.
        """
        quantum = self._quantum()
        found: list[tuple[int, int, np.ndarray]] = []
        for k in sorted(self.looks):
            if k + 1 in self.looks:
                rows = self.open & same(self.looks[k], self.looks[k + 1])
                rows &= self._without_noise(k) & self._not_rounded_away(k, quantum)
                found.append((int(self._comm.allreduce(int(rows.sum()))), k, rows))
        found.sort(key=lambda pair: -pair[0])
        return [(k, rows) for count, k, rows in found if count]

    def _without_noise(self, k: int) -> np.ndarray:
        """Return (m,) whether shorter steps than k show no noise that would be felt at k + 1."""
        long = self.looks[k + 1]
        allowed = _NOISE * np.abs(long.difference) * long.step
        quiet = np.ones(len(allowed), bool)
        for shorter in self.looks:
            if shorter < k:
                look = self.looks[shorter]
                quiet &= np.abs(look.difference - long.difference) * look.step <= allowed
        return quiet

    def _not_rounded_away(self, k: int, quantum: float) -> np.ndarray:
        """Return (m,) whether values that do not change at the steps k and k + 1 are no rounded ones.

        Rounded values would change at some longer step, by a quantum at least, which others show.
        """
        frozen = (self.looks[k].change == 0) & (self.looks[k + 1].change == 0)
        if not self._reaches:
            return ~frozen
        longest = self.looks[max(self.looks)]
        seen = np.abs(longest.difference) * longest.step > np.maximum(_QUANTA * quantum, longest.grain)
        for longer in self.looks:
            if longer > k + 1:
                seen &= self.looks[longer].change == 0
        return ~frozen | seen

    def _quantum(self) -> float:
        """Return the least change that any look has seen, that of printed values if there was none. Collective."""
        least = np.inf
        for look in self.looks.values():
            changes = np.abs(look.change[look.change != 0])
            least = min(least, float(changes.min(initial=np.inf)))
        least = float(self._comm.allreduce(least, op=MPI.MIN))
        return least if least < np.inf else PRINTED
