"""Piecewise linear activations exactly at their kinks: the smooth pieces that meet there, and one element of them.

Where the argument of such an activation is 0 at a sample, the Hessian has a limit from every smooth piece around x
and none that is preferred. What is taken is the element of least Frobenius norm of the convex hull of all these
limits (for the hull: Clarke 1983, "Optimization and Nonsmooth Analysis", definition 2.6.1, with the Hessian of the
pieces for the Jacobian). The hull is joint: a piece has one weight, in all blocks and for all samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from sparsehess.errors import CheckError, InputError
from sparsehess.networks.activations import PiecewiseLinear
from sparsehess.networks.propagation import CHUNK, Sample, numbers_of_products
from sparsehess.operators.tall_skinny_qr import summed, tall_qr
from sparsehess.runtime import agreement, on_root

# Kinks that are looked at: each doubles the pieces.
MOST_KINKS = 6

# A piece is there if some direction moves every argument by this part of what it can be moved at least.
_MOVES = 1e-9


@dataclass(frozen=True, eq=False)
class Kinks:
    """What was chosen where activations were exactly at their kinks.

    Attributes
    ----------
    count
        Arguments, over samples and units, that were 0 and that parameters can move; 0: an ordinary Hessian.
    sides
        (pieces, count) bool: for each smooth piece that meets x, which arguments are positive in it.
    weights
        (pieces,) of the Hessians of these pieces in the one that was taken; they sum to 1.
    """

    count: int = 0
    sides: np.ndarray = field(default_factory=lambda: np.zeros((1, 0), bool))
    weights: np.ndarray = field(default_factory=lambda: np.ones(1))

    def __str__(self) -> str:
        if not self.count:
            return "no activation at its kink: an ordinary Hessian"
        used = np.count_nonzero(self.weights)
        return (
            f"{self.count} activations at their kinks: the element of least norm of the hull of "
            f"{len(self.weights)} smooth pieces, made of {used} of them"
        )


class ChosenKinks:
    """The samples at which an activation is at its kink, apart from all others.

    Collective to make and to use.

    Parameters
    ----------
    task
        Network, parameters and samples, see `networks.objective.Task`.

    Attributes
    ----------
    smooth
        The same task without the samples that are at kinks.
    count
        Kinks over all ranks that parameters can move.

    Raises
    ------
    InputError
        More kinks than can be looked at.
    """

    def __init__(self, task):
        self._task, self.smooth, comm = task, task, task.comm
        self._where: list[tuple[int, int, int]] = []  # (node, sample, unit) of this rank's
        self._rounded = [
            u
            for u, node in enumerate(task.plan.nodes)
            if isinstance(node.function, PiecewiseLinear)
            and node.function.left != node.function.right
            and node.needed
            and node.depends
        ]
        if self._rounded:
            with agreement(comm):  # nodes of the user's own may raise
                found = self._find()
            samples = np.unique([s for _, s, _ in found]).astype(np.int64)
            self._where = [(u, int(np.searchsorted(samples, s)), j) for u, s, j in found]
            self._data = {name: values[samples] for name, values in task.data.items()}
            self.smooth = replace(
                task, data={name: np.delete(values, samples, axis=0) for name, values in task.data.items()}
            )
        counts = comm.allgather(len(self._where))
        self.count, self._first = sum(counts), sum(counts[: comm.rank])
        if self.count > MOST_KINKS:
            raise InputError(
                f"{self.count} arguments of piecewise linear activations are exactly 0, and the Hessian is "
                f"another on either side of each; at most {MOST_KINKS} can be looked at: move x, for example "
                "biases that are 0"
            )

    def _find(self) -> list[tuple[int, int, int]]:
        """Return this rank's kinks, but for those that no parameter moves, whatever the slopes at the others."""
        plan, rng, found, first = self._task.plan, np.random.default_rng(0), [], 0
        direction = rng.normal(size=(1, plan.n))
        for sample in self._task.samples(self._task.x, numbers_of_products(plan, 1), CHUNK):
            at = {u: sample.value(plan.nodes[u].parents[0]) == 0 for u in self._rounded}
            if any(mask.any() for mask in at.values()):
                for u, mask in at.items():  # slopes at which nothing cancels
                    sample.locals[u].first[mask] = rng.uniform(0.5, 1.5, np.count_nonzero(mask))
                T = sample.tangents(direction)
                for u, mask in at.items():
                    moving = mask & (T[plan.nodes[u].parents[0]][:, 0] != 0)
                    found += [(u, first + int(s), int(j)) for s, j in np.argwhere(moving)]
            first += sample.N
        return found

    def choose(
        self, smooth: np.ndarray, hessian: Callable[[list[Sample]], np.ndarray]
    ) -> tuple[np.ndarray, Kinks]:
        """Return the entries of the Hessian that is taken, and how it was chosen.

        Parameters
        ----------
        smooth
            (nnz_local,) entries of the samples that are at no kink.
        hessian
            hessian(samples) -> (nnz_local,): entries of others; collective.
        """
        if not self.count:
            return smooth, Kinks()
        comm = self._task.comm
        sides = self._pieces()
        vertices = np.empty((len(smooth), len(sides)))
        for piece, positive in enumerate(sides):
            with agreement(comm):
                there = self._on(positive)
            vertices[:, piece] = smooth + hessian(there)
        _, R = tall_qr(comm, vertices)
        weights = on_root(comm, _least_norm, R)
        return vertices @ weights, Kinks(self.count, sides, weights)

    def _on(self, positive: np.ndarray) -> list[Sample]:
        """Return the network for the samples at kinks, as it is in one piece: a list of one or none."""
        if not self._where:
            return []
        sample = Sample(self._task.plan, self._task.x, self._data, self._task.share)
        for (u, s, j), side in zip(self._where, positive[self._first :], strict=False):
            function = self._task.plan.nodes[u].function
            sample.locals[u].first[s, j] = function.right if side else function.left
        return [sample]

    def _pieces(self) -> np.ndarray:
        """Return (pieces, count) bool: the sides on which arguments can be together near x, to first order.

        In a piece the arguments have gradients; it is there if some direction moves all of them to its sides.
        """
        plan, comm = self._task.plan, self._task.comm
        every = np.array(list(itertools.product([False, True], repeat=self.count)))
        gradients = np.zeros((self.count, len(every), plan.n))
        with agreement(comm):
            for piece, positive in enumerate(every):
                for sample in self._on(positive):
                    for kink, (u, s, j) in enumerate(self._where, self._first):
                        gradients[kink, piece] = sample.gradient_of(plan.nodes[u].parents[0], s, j)
        gradients = summed(comm, gradients)
        there = on_root(comm, lambda: [_moves(gradients[:, k], side) for k, side in enumerate(every)])
        if not any(there):
            raise CheckError("no smooth piece was found around x: its kinks are too close to each other")
        return every[there]


def _moves(gradients: np.ndarray, positive: np.ndarray) -> bool:
    """Return whether a direction moves arguments of these gradients (kinks, n) to these sides.

    Those without a gradient do not move, and may be on either.
    """
    from scipy.optimize import linprog

    lengths = np.linalg.norm(gradients, axis=1)
    moved = lengths > 0
    if not moved.any():
        return True
    rows = np.where(positive, 1.0, -1.0)[moved, None] * gradients[moved] / lengths[moved, None]
    # Within the span of the gradients: maximise t with rows·d >= t, |d| <= 1 in each coordinate.
    rows = rows @ np.linalg.qr(rows.T)[0]
    k = rows.shape[1]
    found = linprog(
        np.r_[np.zeros(k), -1.0], A_ub=np.c_[-rows, np.ones(len(rows))], b_ub=np.zeros(len(rows)),
        bounds=[(-1.0, 1.0)] * k + [(None, 1.0)],
    )  # fmt: skip
    return found.status == 0 and -found.fun > _MOVES


def _least_norm(R: np.ndarray) -> np.ndarray:
    """Return the weights, positive and of sum 1, for which |R weights| is least.

    Of min |R u|² + (Σu - 1)² over u >= 0 the solution is a multiple of it, whatever |R weights| is (Lawson,
    Hanson 1974, chapter 23).
    """
    from scipy.optimize import nnls

    scale = np.linalg.norm(R, axis=0).max(initial=0.0)
    rows = np.vstack([R / scale if scale > 0 else R, np.ones(R.shape[1])])
    weights, _ = nnls(rows, np.r_[np.zeros(len(R)), 1.0])
    return weights / weights.sum()
