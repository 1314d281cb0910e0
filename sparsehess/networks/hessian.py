"""`NetworkHessian`: the exact Hessian of a network as a distributed matrix, assembled block by block.

Every rank computes the part that its samples have in the blocks of one node, or in some rows of them; one
reduction sends every rank the rows that it owns. No rank ever has an array of the size of the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.errors import CheckError
from sparsehess.networks.activation_kinks import Kinks, KinkSamples
from sparsehess.networks.block_rows import BlockPiece, block_rows
from sparsehess.networks.chunks import DEFAULT_WORKSPACE, block_numbers, fewest_block_samples
from sparsehess.networks.plan import Planned, check_part
from sparsehess.networks.problem import NetworkProblem
from sparsehess.networks.propagation import ForwardPass
from sparsehess.networks.second_derivatives import hessian_blocks
from sparsehess.operators.operator import Operator
from sparsehess.runtime import PETSc, agreement, aij
from sparsehess.runtime.citations import cite

if TYPE_CHECKING:
    from mpi4py import MPI


class NetworkHessian(Operator):
    """The exact Hessian of a network's weighted mean loss, assembled.

    *Collective.*

    A context manager; `close()` destroys the matrix. The block of parameters that nodes share is the sum of the
    nodes' own blocks, as the congruence TᵀHT with `Network.sharing` makes it.

    Exactly at the kink of a piecewise linear activation the Hessian has a limit from every smooth piece that meets
    there. The matrix is then the element of least Frobenius norm of the convex hull of these limits, with one
    weight for a piece as a whole; see `kinks`. With more than six kinks at a time it is the middle of ranges that
    hold the entries on all pieces. Either way eigenvalues on every piece are within `kinks.radius` of those of the
    matrix. Jumps of the gradient at kinks are no part of it.

    Parameters
    ----------
    network
        The same on every rank.
    x
        (n,) parameters, the same on every rank.
    data
        {input: (N, width)}: this rank's samples, perhaps none; see `networks.shard_samples`.
    part
        `whole`; `gauss-newton`, Σ Jᵀ∇²loss J; `functional`, the rest. The two add up to the whole.
    workspace
        Numbers of 8 bytes that the arrays of a chunk of samples may take, and the blocks that are made at a time.
    comm
        Communicator. Default: this process alone.

    Attributes
    ----------
    mat
        PETSc AIJ matrix.
    pattern
        Full in every block of `Network.block_pattern`.
    kinks
        How the element was chosen at kinks; `kinks.count` is 0 for an ordinary Hessian.
    network, part
        As given.

    Raises
    ------
    InputError
        Parameters or data do not fit the network; there is no such part; more kinks at a sample than can be
        looked at.
    CheckError
        Entries are not finite; derivatives that a node of the user's own states do not fit differences.
    EvaluationError
        A node raised, or computed an array of another shape than it should.

    References
    ----------
    Gower, Mello 2012, "A new framework for the computation of Hessians", section 4: edge pushing.
    Clarke 1983, "Optimization and Nonsmooth Analysis", definition 2.6.1: the hull, of Jacobians there.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> from sparsehess.networks import Affine, SquaredError, tanh
    >>> network = sh.Network()
    >>> names = network.input("x", 1), network.input("t", 1)
    >>> names = network.add("W", Affine(1, bias=False), "x"), network.add("a", tanh(), "W")
    >>> name = network.loss("loss", SquaredError(), "a", "t")
    >>> data = {"x": np.array([[1.0], [2.0]]), "t": np.zeros((2, 1))}
    >>> with sh.NetworkHessian(network, np.zeros(1), data) as H:  # the mean of x² for w = 0
    ...     print(H.mat.getValue(0, 0))
    2.5
    """

    def __init__(
        self,
        network: Planned,
        x: np.ndarray,
        data: dict[Hashable, np.ndarray],
        *,
        part: str = "whole",
        workspace: int = DEFAULT_WORKSPACE,
        comm: MPI.Comm | None = None,
    ):
        self.part, self.network = check_part(part), network
        self._problem, self._workspace = NetworkProblem.from_arguments(network, x, data, comm), workspace
        self._rows = block_rows(self._problem.plan, part, comm)
        self.pattern = self._rows.pattern()
        entries, self.kinks = self._entries()
        self._take_matrix(aij(self._rows.layout, self.pattern.indptr, self.pattern.indices, entries))

    def update(self, x: np.ndarray) -> None:
        """Take the Hessian at another point.

        *Collective.*

        Parameters
        ----------
        x
            (n,) parameters, the same on every rank.

        Raises
        ------
        InputError, CheckError, EvaluationError
            As at construction.
        """
        self._problem = NetworkProblem.from_arguments(self.network, x, self._problem.data, self._problem.comm)
        entries, self.kinks = self._entries()
        self._forget()
        index = PETSc.IntType
        self.mat.setValuesCSR(self.pattern.indptr.astype(index), self.pattern.indices.astype(index), entries)
        self.mat.assemble()

    def _entries(self) -> tuple[np.ndarray, Kinks]:
        """Return the local entries (nnz_local,)."""
        cite("edge pushing")
        plan, at_kinks = self._problem.plan, KinkSamples(self._problem)

        def smooth_passes(w: int) -> Iterator[ForwardPass]:
            sizes = block_numbers(plan, w), self._workspace, fewest_block_samples(plan, w)
            return at_kinks.smooth.forward_passes(*sizes)

        smooth = self._sum_blocks(smooth_passes)
        entries, kinks = at_kinks.choose_entries(
            smooth, self.pattern.indptr, lambda passes: self._sum_blocks(lambda w: passes)
        )
        self._check_finite(entries)
        return entries, kinks

    def _sum_blocks(self, passes: Callable[[int], Iterable[ForwardPass]]) -> np.ndarray:
        """Return the local entries of the sum over the samples of all ranks.

        Parameters
        ----------
        passes
            passes(w) -> forward passes of this rank's samples, for the blocks of node w.
        """
        plan, rows = self._problem.plan, self._rows
        entries = np.zeros(len(self.pattern.indices))
        views, coupled = rows.views(entries), plan.node_coupling(self.part)
        for w in plan.parametric_nodes:
            size = plan.nodes[w].size
            partners = {v: plan.nodes[v].size for v in plan.parametric_nodes if v >= w and coupled[v, w]}
            for wanted in _split_rows(partners, max(1, self._workspace // size)):
                blocks = {v: np.zeros((cut.stop - cut.start, size)) for v, cut in wanted.items()}
                with agreement(rows.layout.comm):
                    for forward in passes(w):
                        for v, block in hessian_blocks(forward, w, wanted, self.part):
                            blocks[v] += block
                pieces = []
                for v, block in blocks.items():
                    piece = BlockPiece(plan.nodes[v].group, wanted[v], plan.nodes[w].group, slice(0, size), block)
                    pieces += [piece] if v == w else [piece, piece.transposed()]
                rows.add_pieces(pieces, views)
        return entries

    def _check_finite(self, entries: np.ndarray) -> None:
        with agreement(self._rows.layout.comm):
            bad = np.flatnonzero(~np.isfinite(entries))
            if len(bad):
                i, j = self.pattern.entry(int(bad[0]))
                raise CheckError(
                    f"the Hessian of the network is not finite: entry ({i}, {j}) is {entries[bad[0]]}"
                )


def _split_rows(sizes: dict[int, int], most: int) -> Iterator[dict[int, slice]]:
    """Yield the rows of nodes, {node: number of rows}, in portions {node: slice} of `most` rows together."""
    portion: dict[int, slice] = {}
    left = most
    for v, size in sizes.items():
        first = 0
        while first < size:
            last = min(size, first + left)
            portion[v] = slice(first, last)
            left -= last - first
            first = last
            if not left:
                yield portion
                portion, left = {}, most
    if portion:
        yield portion
