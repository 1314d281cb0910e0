"""Modes at one value of a parameter, and which are which at two of them, told by the spaces of clusters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from mpi4py import MPI

import numpy as np

from sparsehess.runtime import on_root

# A mode is another one with this much of it, and a space another one with cosines no smaller than this.
_PAIR, _SPACE = 0.7, 0.8


@dataclass(eq=False)
class Point:
    """The modes at one value of the parameter.

    Attributes
    ----------
    value
        Of the parameter.
    comm
        The ranks that have the rows of the vectors.
    eigenvalues
        (m,) ascending.
    panel
        (m, n_local) their vectors, M-orthonormal.
    groups
        (first, stop) of the eigenvalues that are taken for one cluster.
    wanted
        (m,) which of them were asked for; the others are beside them.
    counted
        Whether an inertia count has certified that none was missed.
    labels
        (m,) the number of the curve that each is on, -1 where it is not known yet.
    free
        Whether no vector of a cluster has a history, at the first value.
    """

    value: float
    comm: MPI.Comm
    eigenvalues: np.ndarray
    panel: np.ndarray
    groups: list[tuple[int, int]]
    wanted: np.ndarray
    counted: bool
    labels: np.ndarray
    free: bool = False

    def group_of(self, i: int) -> tuple[int, int]:
        """Return the group of a mode. Not collective."""
        return next(one for one in self.groups if one[0] <= i < one[1])

    def turn(self, Q: np.ndarray) -> None:
        """Have the vectors be combinations of them, by the columns of Q. Not collective."""
        self.panel = Q.T @ self.panel


class Link(NamedTuple):
    """Products of the modes at two values, all in the mass of one of the two.

    Attributes
    ----------
    table
        (m_left, m_right) XᵀMY.
    left, right
        XᵀMX and YᵀMY.
    """

    table: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @property
    def mac(self) -> np.ndarray:
        """(m_left, m_right) the modal assurance criterion (Allemang and Brown 1982), squares of cosines."""
        sizes = np.outer(np.diag(self.left).real, np.diag(self.right).real)
        return np.asarray(np.abs(self.table) ** 2 / sizes)

    def cosines(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the cosines of the principal angles between two spaces, descending (Björck and Golub 1973).

        Not collective.
        """
        inner = np.linalg.solve(
            np.linalg.cholesky(self.left[np.ix_(rows, rows)]), self.table[np.ix_(rows, columns)]
        )
        both = np.linalg.solve(np.linalg.cholesky(self.right[np.ix_(columns, columns)]), inner.conj().T)
        return np.minimum(np.linalg.svd(both, compute_uv=False), 1.0)

    def turned(self, L: np.ndarray, R: np.ndarray) -> Link:
        """Return the products after the modes were combined by the columns of L and R. Not collective."""
        left, right = L.conj().T @ self.left @ L, R.conj().T @ self.right @ R
        return Link(L.conj().T @ self.table @ R, left, right)


@dataclass(eq=False)
class Match:
    """Which mode at the left is which at the right.

    Attributes
    ----------
    link
        The products, of the vectors as they are to be aligned.
    turn_left, turn_right
        Combinations that align them.
    partner
        (m_left,) the mode at the right, -1 where none is it.
    open_left, open_right
        Wanted modes that have no partner.
    split
        Modes at the left of a cluster that other vectors of its space follow than led to it.
    """

    link: Link
    turn_left: np.ndarray
    turn_right: np.ndarray
    partner: np.ndarray
    open_left: np.ndarray
    open_right: np.ndarray
    split: np.ndarray


def match(left: Point, right: Point, link: Link) -> Match:
    """Match the modes at two values, as rank 0 does; see `_matched`. Collective."""
    light = [replace(one, comm=MPI.COMM_NULL, panel=np.empty((0, 0))) for one in (left, right)]
    return on_root(left.comm, _matched, *light, link)


def _matched(left: Point, right: Point, link: Link) -> Match:
    """Match the modes at two values, and align the vectors of clusters and all signs at the right with the left.

    Not collective. Vectors of a cluster are any basis of its space:
    at the right they are turned to be nearest to those at the left (Schönemann 1966), at the left where none has a
    history, or where what led to the cluster does not go on.
    """
    split: list[int] = []
    L = np.eye(len(left.eigenvalues), dtype=link.table.dtype)
    R, partner = _assigned(link, right)
    for first, stop in left.groups:
        rows = np.arange(first, stop)
        others = None
        if len(rows) > 1 and (left.free or (partner[rows] < 0).any()):
            others = _nearest(link, rows, right)
        if others is not None:
            L[np.ix_(rows, rows)] = _polar(link.table[np.ix_(rows, others)])
            split += [] if left.free else rows.tolist()
    now = link.turned(L, np.eye(len(right.eigenvalues)))
    R, partner = _assigned(now, right)
    taken = np.isin(np.arange(len(right.eigenvalues)), partner)
    return Match(
        now.turned(np.eye(len(L)), R),
        L,
        R,
        partner,
        np.flatnonzero((partner < 0) & left.wanted),
        np.flatnonzero(~taken & right.wanted),
        np.array(split, int),
    )


def _assigned(link: Link, right: Point) -> tuple[np.ndarray, np.ndarray]:
    """Return how clusters at the right are to be turned, and (m_left,) the partners then, -1 for none."""
    from scipy.optimize import linear_sum_assignment  # 100 ms on every rank, and seldom needed

    R = np.eye(len(right.eigenvalues), dtype=link.table.dtype)
    weights = np.empty(link.table.shape)
    for first, stop in right.groups:
        columns = np.arange(first, stop)
        for i in range(len(weights)):
            weights[i, first:stop] = link.cosines(np.array([i]), columns)[0] ** 2
    rows, columns = linear_sum_assignment(-weights)
    for first, stop in right.groups:
        inside = (columns >= first) & (columns < stop)
        if np.count_nonzero(inside) == stop - first:
            theirs = np.arange(first, stop)
            R[np.ix_(theirs, theirs)] = _polar(link.table[np.ix_(rows[inside], theirs)].conj().T)
            columns[inside] = theirs
    partner = np.full(len(weights), -1)
    sure = link.turned(np.eye(len(weights)), R).mac[rows, columns] >= _PAIR
    partner[rows[sure]] = columns[sure]
    return R, partner


def same_space(link: Link, rows: np.ndarray, columns: np.ndarray) -> bool:
    """Return whether two spaces are the same, but for small angles. Not collective."""
    return len(rows) == len(columns) > 0 and bool(link.cosines(rows, columns)[-1] >= _SPACE)


def angle(link: Link, rows: np.ndarray, columns: np.ndarray) -> float:
    """Return the largest principal angle between two spaces, in degrees. Not collective."""
    return float(np.degrees(np.arccos(link.cosines(rows, columns)[-1])))


def _nearest(link: Link, rows: np.ndarray, right: Point) -> np.ndarray | None:
    """Return as many modes at the right as have most of a space at the left; None where they are not in it."""
    weights = np.array([link.cosines(rows, np.array([j]))[0] for j in range(len(right.eigenvalues))])
    others = np.sort(np.argsort(-weights, kind="stable")[: len(rows)])
    return others if same_space(link, rows, others) else None


def _polar(T: np.ndarray) -> np.ndarray:
    """Return the orthogonal factor of T."""
    U, _, Vh = np.linalg.svd(T)
    return np.asarray(U @ Vh)
