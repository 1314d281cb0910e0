"""Samples at which a piecewise linear activation is exactly at its kink, and the Hessian that is chosen there.

Where the argument of such an activation is 0 at a sample, the Hessian has a limit from every smooth piece around x
and none that is preferred. Chosen is the element of least Frobenius norm of the convex hull of these limits (for
the hull: Clarke 1983, "Optimization and Nonsmooth Analysis", definition 2.6.1, with the Hessian of the pieces for
the Jacobian). The hull is joint: a piece has one weight, in all blocks and for all samples. Of many kinks the
matrix is the middle of ranges that hold the hull; see `kink_ranges`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mpi4py import MPI

import numpy as np

from sparsehess.errors import CheckError, InputError
from sparsehess.networks.activations import ElementwiseDerivatives, PiecewiseLinear
from sparsehess.networks.chunks import DEFAULT_WORKSPACE, product_numbers
from sparsehess.networks.kink_ranges import eigenvalue_radius, entry_ranges, is_feasible
from sparsehess.networks.problem import NetworkProblem
from sparsehess.networks.propagation import ForwardPass
from sparsehess.operators.tall_skinny_qr import sum_over_ranks, tall_qr
from sparsehess.runtime import agreement, on_root
from sparsehess.runtime.short_repr import ShortRepr

# Most kinks for which all pieces are looked at together: each kink doubles them.
MOST_KINKS = 6

# Most samples at kinks, beyond those.
_MOST_SAMPLES = 2**10

# Least part of the largest motion of an argument by which a direction into a piece moves every argument.
_LEAST_MOTION = 1e-9


@dataclass(frozen=True, eq=False, repr=False)
class Kinks(ShortRepr):
    """How the Hessian was chosen where activations are exactly at their kinks.

    *Not collective.*

    Attributes
    ----------
    count
        Arguments, over samples and units, that are 0 and that parameters move; 0: an ordinary Hessian.
    sides
        (pieces, count) bool: which arguments are positive in each smooth piece that meets x.
    weights
        (pieces,) of the Hessians of the pieces in the one that was chosen; they sum to 1. Of more than six kinks
        there are none: the matrix is the middle of ranges that hold the entries on all pieces.
    radius
        Eigenvalues of the Hessian on every piece, and of all in their convex hull, are within this of those of the
        matrix, one by one in ascending order (Weyl), but for rounding.

    Examples
    --------
    >>> from sparsehess.networks import Kinks
    >>> print(Kinks())
    no activation at its kink: an ordinary Hessian
    """

    count: int = 0
    sides: np.ndarray = field(default_factory=lambda: np.zeros((1, 0), bool))
    weights: np.ndarray = field(default_factory=lambda: np.ones(1))
    radius: float = 0.0

    def __str__(self) -> str:
        """Return one line for reports."""
        if not self.count:
            return "no activation at its kink: an ordinary Hessian"
        within = f"eigenvalues on every piece are within {self.radius:.3g} of these"
        if not len(self.weights):
            return f"{self.count} activations at their kinks: the middle of the ranges of entries; {within}"
        used = np.count_nonzero(self.weights)
        return (
            f"{self.count} activations at their kinks: the element of least norm of the hull of "
            f"{len(self.weights)} smooth pieces, made of {used} of them; {within}"
        )


@dataclass(frozen=True)
class Kink:
    """An activation at its kink.

    Attributes
    ----------
    function
        The activation.
    node, sample, unit
        Numbers of its node, of the sample and of the unit.
    parent
        Number of the node whose unit is its argument.
    """

    function: PiecewiseLinear
    node: int
    parent: int
    sample: int
    unit: int


class KinkSamples:
    """The samples at which an activation is at its kink, apart from all others.

    *Collective.*

    Parameters
    ----------
    problem
        Network, parameters and samples.

    Attributes
    ----------
    smooth
        The problem without the samples at kinks.
    count
        Kinks over all ranks.

    Raises
    ------
    InputError
        There are more kinks than can be looked at.
    """

    def __init__(self, problem: NetworkProblem):
        self.smooth, comm = problem, problem.comm
        self._problem = replace(problem, data={name: values[:0] for name, values in problem.data.items()})
        self._kinks: list[Kink] = []  # of this rank's samples
        activations = _kinked_activations(problem)
        if activations:
            with agreement(comm):  # nodes of the user's own may raise
                found = _find_kinks(problem, activations)
            samples = np.unique([kink.sample for kink in found]).astype(np.int64)
            self._kinks = [replace(kink, sample=int(np.searchsorted(samples, kink.sample))) for kink in found]
            at_kinks = {name: values[samples] for name, values in problem.data.items()}
            others = {name: np.delete(values, samples, axis=0) for name, values in problem.data.items()}
            self._problem, self.smooth = replace(problem, data=at_kinks), replace(problem, data=others)
        counts = comm.allgather(len(self._kinks))
        self.count, self._first = sum(counts), sum(counts[: comm.rank])
        own = self._by_sample()
        self._parallel = [_is_parallel(problem, {kink.node for kink in kinks}) for kinks in own]
        found_samples = comm.allreduce(len(own))
        most = comm.allreduce(
            max(
                (
                    len(kinks)
                    for kinks, free in zip(own, self._parallel, strict=True)
                    if not is_feasible(len(kinks), free)
                ),
                default=0,
            ),
            op=MPI.MAX,
        )
        if most or (self.count > MOST_KINKS and found_samples > _MOST_SAMPLES):
            many = f"{most} at one sample" if most else f"{found_samples} samples"
            raise InputError(
                f"{self.count} arguments of piecewise linear activations are exactly 0, and the Hessian is "
                f"another on either side of each; {many} are too many to look at: move x, for example "
                "biases that are 0"
            )

    def _by_sample(self) -> list[list[Kink]]:
        """Return the kinks of each of this rank's samples that have any."""
        found: dict[int, list[Kink]] = {}
        for kink in self._kinks:
            found.setdefault(kink.sample, []).append(kink)
        return [found[sample] for sample in sorted(found)]

    def choose_entries(
        self,
        smooth: np.ndarray,
        indptr: np.ndarray,
        entries_of: Callable[[list[ForwardPass]], np.ndarray],
    ) -> tuple[np.ndarray, Kinks]:
        """Return the entries of the chosen Hessian, and how it was chosen.

        *Collective.*

        Parameters
        ----------
        smooth
            (nnz_local,) entries of the samples that are at no kink.
        indptr
            (n_local + 1,) where the rows of entries begin.
        entries_of
            entries_of(forward passes) -> (nnz_local,) entries of others; collective.
        """
        if not self.count:
            return smooth, Kinks()
        comm = self._problem.comm
        if self.count > MOST_KINKS:
            middle, widths = self._ranges(smooth, entries_of)
            radius = eigenvalue_radius(comm, widths, indptr)
            return middle, Kinks(self.count, np.zeros((0, self.count), bool), np.zeros(0), radius)
        sides = self._adjacent_pieces()
        vertices = np.empty((len(smooth), len(sides)))
        for piece, positive in enumerate(sides):
            with agreement(comm):
                passes = self._passes_on_piece(positive)
            vertices[:, piece] = smooth + entries_of(passes)
        _, R = tall_qr(comm, vertices)
        weights = on_root(comm, _least_norm_weights, R)
        chosen = vertices @ weights
        widths = np.abs(vertices - chosen[:, None]).max(axis=1)
        return chosen, Kinks(self.count, sides, weights, eigenvalue_radius(comm, widths, indptr))

    def _ranges(
        self, smooth: np.ndarray, entries_of: Callable[[list[ForwardPass]], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the middle and half the width of ranges of entries, sample by sample of rank by rank."""
        comm, own = self._problem.comm, self._by_sample()
        middle, widths = smooth, np.zeros_like(smooth)
        mine = [(len(kinks), free) for kinks, free in zip(own, self._parallel, strict=True)]
        for rank, samples in enumerate(comm.allgather(mine)):
            for number, (count, parallel) in enumerate(samples):
                kinks = own[number] if rank == comm.rank else []

                def piece(positive: np.ndarray, kinks: list[Kink] = kinks) -> np.ndarray:
                    with agreement(comm):
                        passes = self._sample_on_piece(kinks, positive)
                    return entries_of(passes)

                found, half = entry_ranges(piece, count, parallel)
                middle, widths = middle + found, widths + half
        return middle, widths

    def _sample_on_piece(self, kinks: list[Kink], positive: np.ndarray) -> list[ForwardPass]:
        """Return the forward pass of the one sample of some kinks with the slopes of a piece, or none."""
        if not kinks:
            return []
        sample = kinks[0].sample
        forward = self._problem.forward_pass(
            {name: values[sample : sample + 1] for name, values in self._problem.data.items()}
        )
        for kink, side in zip(kinks, positive, strict=True):
            _slopes(forward, kink.node)[0, kink.unit] = kink.function.right if side else kink.function.left
        return [forward]

    def _passes_on_piece(self, positive: np.ndarray) -> list[ForwardPass]:
        """Return the forward pass of the samples at kinks with the slopes of a piece: a list of one or none."""
        if not self._kinks:
            return []
        forward = self._problem.forward_pass(self._problem.data)
        for kink, side in zip(self._kinks, positive[self._first :], strict=False):
            slope = kink.function.right if side else kink.function.left
            _slopes(forward, kink.node)[kink.sample, kink.unit] = slope
        return [forward]

    def _adjacent_pieces(self) -> np.ndarray:
        """Return (pieces, count) bool: the sides of the arguments in each piece that meets x, to first order.

        A piece meets x if some direction moves all arguments to its sides by their gradients in the piece.
        """
        plan, comm = self._problem.plan, self._problem.comm
        every = np.array(list(itertools.product([False, True], repeat=self.count)))
        gradients = np.zeros((self.count, len(every), plan.n))
        with agreement(comm):
            for piece, positive in enumerate(every):
                for forward in self._passes_on_piece(positive):
                    for number, kink in enumerate(self._kinks, self._first):
                        gradients[number, piece] = forward.unit_gradient(kink.parent, kink.sample, kink.unit)
        gradients = sum_over_ranks(comm, gradients)
        meets = on_root(comm, lambda: [_is_reachable(gradients[:, k], sides) for k, sides in enumerate(every)])
        if not any(meets):
            raise CheckError("no smooth piece was found around x: its kinks are too close to each other")
        return every[meets]


def _slopes(forward: ForwardPass, u: int) -> np.ndarray:
    """Return the slopes (N, d) of activation u in a forward pass, to be changed in place."""
    derivatives = forward.derivatives[u]
    if not isinstance(derivatives, ElementwiseDerivatives):
        raise TypeError(f"node {u} has no slopes")
    return derivatives.first


def _kinked_activations(problem: NetworkProblem) -> dict[int, PiecewiseLinear]:
    """Return {node: function} of the activations with a kink that count."""
    return {
        u: node.function
        for u, node in enumerate(problem.plan.nodes)
        if isinstance(node.function, PiecewiseLinear)
        and node.function.left != node.function.right
        and node.needed
        and node.depends
    }


def _is_parallel(problem: NetworkProblem, nodes: set[int]) -> bool:
    """Return whether none of some nodes is behind another of them."""
    behind: set[int] = set()  # nodes that some of them lead to
    for u, node in enumerate(problem.plan.nodes):
        if any(parent in nodes or parent in behind for parent in node.parents):
            behind.add(u)
    return nodes.isdisjoint(behind)


def _find_kinks(problem: NetworkProblem, activations: dict[int, PiecewiseLinear]) -> list[Kink]:
    """Return this rank's kinks, without those that no parameter moves, whatever the slopes at the others.

    The tangents of the arguments along a random direction tell which are moved.
    """
    plan, rng, found, first = problem.plan, np.random.default_rng(0), [], 0
    direction = rng.normal(size=(1, plan.n))
    parents = {u: plan.nodes[u].parents[0] for u in activations}
    for forward in problem.forward_passes(product_numbers(plan, 1), DEFAULT_WORKSPACE):
        is_zero = {u: forward.value(parent) == 0 for u, parent in parents.items()}
        if any(mask.any() for mask in is_zero.values()):
            for u, mask in is_zero.items():  # with random slopes nothing cancels
                _slopes(forward, u)[mask] = rng.uniform(0.5, 1.5, np.count_nonzero(mask))
            tangents = forward.parameter_tangents(direction)
            for u, mask in is_zero.items():
                moved = mask & (tangents[parents[u]][:, 0] != 0)
                for sample, unit in np.argwhere(moved):
                    found.append(Kink(activations[u], u, parents[u], first + int(sample), int(unit)))
        first += forward.sample_count
    return found


def _is_reachable(gradients: np.ndarray, positive: np.ndarray) -> bool:
    """Return whether a direction moves arguments with gradients (kinks, n) to these sides.

    Arguments without a gradient do not move, and may be on either side.
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
    return bool(found.status == 0 and -found.fun > _LEAST_MOTION)


def _least_norm_weights(R: np.ndarray) -> np.ndarray:
    """Return the weights, positive and of sum 1, for which |R weights| is least.

    The solution of min |R u|² + (Σu - 1)² over u >= 0 is a multiple of them, whatever |R weights| is (Lawson,
    Hanson 1974, chapter 23).
    """
    from scipy.optimize import nnls

    scale = np.linalg.norm(R, axis=0).max(initial=0.0)
    rows = np.vstack([R / scale if scale > 0 else R, np.ones(R.shape[1])])
    weights, _ = nnls(rows, np.r_[np.zeros(len(R)), 1.0])
    return weights / weights.sum()
