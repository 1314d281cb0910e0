"""`NetworkHessian`: the exact Hessian of a network as a distributed matrix, made block by block.

Every rank has its samples and makes their part of the blocks of one node at a time, or of a piece of them; one
reduction for each sends every rank the rows that it owns. Nothing of the size of the matrix is ever on one rank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sparsehess.errors import CheckError
from sparsehess.networks.activation_kinks import ChosenKinks, Kinks
from sparsehess.networks.network import Network, Plan, check_part
from sparsehess.networks.objective import Task
from sparsehess.networks.propagation import CHUNK, least_of_blocks, numbers_of_blocks
from sparsehess.operators.operator import Operator
from sparsehess.pattern import Layout, Pattern
from sparsehess.runtime import PETSc, agreement, aij
from sparsehess.runtime.citations import cite


@dataclass(frozen=True, eq=False)
class BlockRows:
    """Rows of a matrix of full or empty blocks: in each row the blocks that are there, one after another.

    A diagonal block that is empty has its diagonal stored all the same, as a `Pattern` has.

    Attributes
    ----------
    coupled
        (blocks, blocks) bool.
    offsets
        (blocks + 1,) where each begins.
    layout
        Rows of each rank.
    """

    coupled: np.ndarray
    offsets: np.ndarray
    layout: Layout

    def own(self, a: int, rank: int) -> slice:
        """Return which of the rows of block a a rank has."""
        first, last = self.layout.starts[rank : rank + 2]
        low, high = np.clip([first, last], self.offsets[a], self.offsets[a + 1]) - self.offsets[a]
        return slice(int(low), int(high))

    @cached_property
    def widths(self) -> np.ndarray:
        """(blocks, blocks) numbers that each block has in a row."""
        sizes = np.diff(self.offsets)
        out = np.where(self.coupled, sizes[None, :], 0)
        np.fill_diagonal(out, np.where(self.coupled.diagonal(), sizes, 1))
        return out

    @cached_property
    def indptr(self) -> np.ndarray:
        """(n_local + 1,) of the local rows."""
        own = [self.own(a, self.layout.comm.rank) for a in range(len(self.coupled))]
        lengths = np.repeat(self.widths.sum(axis=1), [rows.stop - rows.start for rows in own])
        return np.concatenate([[0], np.cumsum(lengths)])

    def parts(self, values: np.ndarray) -> list[np.ndarray]:
        """Return local values (nnz_local,) as views (rows of block a here, numbers in a row), one for each a."""
        out, at = [], 0
        for a, length in enumerate(self.widths.sum(axis=1)):
            rows = self.own(a, self.layout.comm.rank)
            size = (rows.stop - rows.start) * int(length)
            out.append(values[at : at + size].reshape(-1, int(length)))
            at += size
        return out

    def columns(self, a: int, b: int) -> slice:
        """Return where in the rows of block a those numbers are that belong to block b."""
        first = int(self.widths[a, :b].sum())
        return slice(first, first + int(self.widths[a, b]))

    def pattern(self) -> Pattern:
        """Return the pattern. Collective."""
        indices = np.empty(int(self.indptr[-1]), np.int64)
        for a, part in enumerate(self.parts(indices)):
            own = self.own(a, self.layout.comm.rank)
            for b in np.flatnonzero(self.coupled[a]):
                part[:, self.columns(a, b)] = np.arange(self.offsets[b], self.offsets[b + 1])
            if not self.coupled[a, a]:
                part[:, self.columns(a, a)] = self.offsets[a] + np.arange(own.start, own.stop)[:, None]
        found = Pattern.from_csr(self.indptr, indices, comm=self.layout.comm, source="network")
        flat = ~self.coupled.diagonal()
        if not flat.any():
            return found
        number = np.searchsorted(self.offsets, np.arange(self.layout.start, self.layout.stop), side="right") - 1
        return replace(found, hollow=flat[number])


def block_rows(plan: Plan, part: str, comm) -> BlockRows:
    """Return the rows of the Hessian of a network. Collective."""
    return BlockRows(plan.coupled(check_part(part)), plan.offsets, Layout.from_size(plan.n, comm))


class NetworkHessian(Operator):
    """The exact Hessian of a network's weighted mean loss, assembled.

    Collective to make and to use. A context manager; `close()` destroys the matrix. Blocks of parameters that
    nodes share are the sums of the nodes' own, as the congruence TᵀHT with `Network.sharing` makes them.

    Where a piecewise linear activation is exactly at its kink, on either side of which the Hessian is another,
    the matrix is the element of least Frobenius norm of the convex hull of the Hessians of all smooth pieces that
    meet at x, one weight for a piece as a whole (the joint hull, after Clarke 1983, definition 2.6.1); see
    `kinks`. Jumps of the gradient at kinks are no part of it.

    Parameters
    ----------
    network
        The same on every rank.
    x
        (n,) parameters, the same on every rank.
    data
        {input: (N, width)}: this rank's samples, perhaps none; see `deal`.
    part
        `whole`; `gauss-newton`, Σ Jᵀ∇²loss J; `functional`, the rest. The two add up to the whole.
    room
        Numbers, of 8 bytes, that a sweep over a chunk of samples may take, and that are made at a time.
    comm
        Communicator.

    Attributes
    ----------
    mat
        PETSc AIJ matrix.
    pattern
        Full in every block of `Network.block_pattern`.
    kinks
        How the element was chosen where kinks were hit; `kinks.count` is 0 for an ordinary Hessian.

    Raises
    ------
    InputError
        Parameters or data do not fit the network; too many kinks to look at every piece.
    CheckError
        Entries that are not finite; derivatives that a node of the user's own states do
        not fit differences.
    """

    def __init__(
        self, network: Network, x, data: dict, *, part: str = "whole", room: int = CHUNK, comm=None
    ):  # fmt: skip
        self.part, self.network = check_part(part), network
        self._task, self._room = Task.of(network, x, data, comm), room
        self._rows = block_rows(self._task.plan, part, comm)
        self.pattern = self._rows.pattern()
        values, self.kinks = self._values()
        self._finite(values)
        self._assembled(aij(self._rows.layout, self.pattern.indptr, self.pattern.indices, values))

    def update(self, x) -> None:
        """Take the Hessian at x (n,), the same on every rank.

        Collective.
        """
        self._task = Task.of(self.network, x, self._task.data, self._task.comm)
        values, self.kinks = self._values()
        self._finite(values)
        self._forget()
        index = PETSc.IntType
        self.mat.setValuesCSR(self.pattern.indptr.astype(index), self.pattern.indices.astype(index), values)
        self.mat.assemble()

    def _values(self) -> tuple[np.ndarray, Kinks]:
        """Return the local entries (nnz_local,)."""
        cite("edge pushing")
        task, chosen = self._task, ChosenKinks(self._task)

        def chunks(w):
            numbers, least = numbers_of_blocks(task.plan, w), least_of_blocks(task.plan, w)
            return chosen.smooth.samples(task.x, numbers, self._room, least)

        smooth = self._sum(chunks)
        return chosen.choose(smooth, lambda samples: self._sum(lambda w: samples))

    def _sum(self, samples_for) -> np.ndarray:
        """Return the local entries of the sum over the samples of all ranks."""
        plan, rows = self._task.plan, self._rows
        values = np.zeros(len(self.pattern.indices))
        parts, there = rows.parts(values), plan.coupled_nodes(self.part)
        for w in plan.parametric:
            partners = {v: plan.nodes[v].size for v in plan.parametric if v >= w and there[v, w]}
            for wanted in _pieces(partners, max(1, self._room // plan.nodes[w].size)):
                sums = {v: np.zeros((cut.stop - cut.start, plan.nodes[w].size)) for v, cut in wanted.items()}
                with agreement(rows.layout.comm):
                    for sample in samples_for(w):
                        for v, block in sample.blocks(w, wanted, self.part):
                            sums[v] += block
                self._to_owners(w, wanted, sums, parts)
        return values

    def _to_owners(self, w: int, wanted: dict[int, slice], sums: dict[int, np.ndarray], parts: list) -> None:
        """Add rows of blocks (v, w) of all ranks, and their mirrors, to the rows of those that own them."""
        plan, rows, comm = self._task.plan, self._rows, self._rows.layout.comm
        b, every = plan.nodes[w].group, slice(0, plan.nodes[w].size)
        pieces = []  # (block, its rows there; block, its columns there; numbers)
        for v, block in sums.items():
            a = plan.nodes[v].group
            pieces.append((a, wanted[v], b, every, block))
            if v != w:
                pieces.append((b, every, a, wanted[v], block.T))

        def overlap(piece, rank):
            """Which rows of the piece a rank owns, as rows of the piece."""
            own, there = rows.own(piece[0], rank), piece[1]
            first, last = np.clip([own.start, own.stop], there.start, there.stop) - there.start
            return slice(int(first), int(last))

        if comm.size > 1:
            out = [piece[4][overlap(piece, rank)] for rank in range(comm.size) for piece in pieces]
            counts = np.array([block.size for block in out]).reshape(comm.size, -1).sum(axis=1)
            summed = np.empty(counts[comm.rank])
            comm.Reduce_scatter(np.concatenate([block.ravel() for block in out]), summed, counts)
        at = 0
        for piece in pieces:
            a, there, b, columns, block = piece
            mine = overlap(piece, comm.rank)
            own = block[mine]
            if comm.size > 1:
                own = summed[at : at + own.size].reshape(own.shape)
                at += own.size
            first = there.start + mine.start - rows.own(a, comm.rank).start
            begin = rows.columns(a, b).start
            parts[a][first : first + len(own), begin + columns.start : begin + columns.stop] += own

    def _finite(self, values: np.ndarray) -> None:
        with agreement(self._rows.layout.comm):
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                i, j = self.pattern.entry(int(bad[0]))
                raise CheckError(f"the Hessian of the network is not finite: entry ({i}, {j}) is {values[bad[0]]}")


def _pieces(partners: dict[int, int], most: int):
    """Cut the parameters of nodes, {node: how many}, into pieces {node: slice} of `most` together."""
    piece, left = {}, most
    for v, size in partners.items():
        first = 0
        while first < size:
            last = min(size, first + left)
            piece[v] = slice(first, last)
            left -= last - first
            first = last
            if not left:
                yield piece
                piece, left = {}, most
    if piece:
        yield piece
