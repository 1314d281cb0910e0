"""`Pattern`: the structure of a symmetric matrix, by rows over ranks, and its constructors."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from sparsehess.errors import InputError
from sparsehess.pattern import pattern_kernels
from sparsehess.pattern.halo_exchange import Exchange
from sparsehess.pattern.pattern_arrays import (
    as_indices,
    as_integers,
    as_sparse,
    as_whole_numbers,
    check_csr,
    check_diagonal,
    has_mirrors_across,
    has_mirrors_inside,
    index_type,
    on_all,
    symmetric_rows,
)
from sparsehess.runtime import agreement, communicator
from sparsehess.runtime.html_fragments import fragment, note, squares
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.short_repr import ShortRepr, number_of

if TYPE_CHECKING:
    import networkx

# Squares of a picture along a side.
_SHOWN = 64


@dataclass(frozen=True, eq=False, repr=False)
class Pattern(ShortRepr):
    """Structure of a symmetric matrix: local rows, global columns.

    Collective to make, by a constructor: `from_pairs`, `from_csr`, `from_scipy`, `from_elements`,
    `from_edges`, `from_networkx`. They add the mirrors of entries and the diagonal.

    Attributes
    ----------
    layout
        Rows of each rank, with the communicator.
    indptr
        (n_local + 1,) where each local row begins in `indices`.
    indices
        (nnz_local,) global columns, ascending in each row, the diagonal among them. Same integer
        type as `indptr`: 32 bits where everything fits, else 64.
    source
        Where the structure came from, for reports.
    quotient
        Structure of the groups of variables, where they were declared: the coordinates of an atom, the
        unknowns of a node. Each entry of it is a full block here. None otherwise.
    hollow
        (n_local,) bool: rows whose diagonal is stored but structurally zero; None where none is.

    Examples
    --------
    >>> import sparsehess as sh
    >>> pattern = sh.Pattern.from_pairs([0, 1, 2], [1, 2, 3], 4)
    >>> pattern.to_scipy().toarray()
    array([[1, 1, 0, 0],
           [1, 1, 1, 0],
           [0, 1, 1, 1],
           [0, 0, 1, 1]], dtype=int8)
    >>> sh.Pattern.from_elements([[0, 1, 2], [1, 2, 3]], nodes=4, dofs=2).nnz  # two triangles
    56
    """

    layout: Layout
    indptr: np.ndarray
    indices: np.ndarray
    source: str = "given"
    quotient: Pattern | None = None
    hollow: np.ndarray | None = None

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield number_of(self.n, "variable")
        yield self.entries_in_words
        yield f"from {self.source}"
        if self.quotient is not None:
            yield f"in groups of {self.n // max(self.quotient.n, 1)}"
        if len(self.layout.starts) > 2:
            yield f"over {len(self.layout.starts) - 1} ranks"

    def _repr_html_(self) -> str:
        """Return a small picture of the local rows for notebooks. Not collective."""
        whole = len(self.layout.starts) == 2
        many = self.n if whole else self.layout.n_local
        high, wide = max(1, min(_SHOWN, many)), max(1, min(_SHOWN, self.n))
        rows = np.repeat(np.arange(many), np.diff(self.indptr))
        square = (rows * high // max(many, 1)) * wide + self.indices.astype(np.int64) * wide // max(self.n, 1)
        counts = np.bincount(square, minlength=high * wide).reshape(high, wide)
        told = note(f"rows {self.layout.start} to {self.layout.stop - 1}: those of this rank")
        return fragment(repr(self)[1:-1], "<br>", squares(counts, "pattern"), "" if whole else told)

    # --- constructors ---

    @classmethod
    def from_pairs(
        cls,
        rows: ArrayLike,
        cols: ArrayLike,
        n: int,
        *,
        comm: MPI.Comm | None = None,
        layout: Layout | None = None,
        diagonal: str = "full",
        source: str = "pairs",
    ) -> Pattern:
        """Return the pattern that has these entries, their mirrors and the diagonal.

        Collective. Each rank brings any part of the entries; the pattern is their union.

        Parameters
        ----------
        rows, cols
            (m,) global numbers; duplicates do no harm.
        n
            Number of variables.
        comm, layout
            Communicator for PETSc's even layout, or the layout itself.
        diagonal
            `full`, or `given`: a diagonal entry that is not among the entries is structurally zero
            (multipliers, bilinear functions). It is stored all the same.

        Raises
        ------
        InputError
            Lengths differ or a number is outside 0..n-1.
        """
        check_diagonal(diagonal)
        layout = layout or Layout.from_size(n, comm)
        with agreement(layout.comm):
            rows, cols = as_indices(rows, "rows"), as_indices(cols, "cols")
            if rows.dtype != cols.dtype:
                rows, cols = rows.astype(np.int64), cols.astype(np.int64)
            if rows.shape != cols.shape or rows.ndim != 1:
                raise InputError(f"rows {rows.shape} and cols {cols.shape} must be two lists of one length")
            for name, numbers in (("row", rows), ("column", cols)):
                if len(numbers) and not (numbers.min() >= 0 and numbers.max() < n):
                    raise InputError(
                        f"pattern: {name} numbers run from {numbers.min()} to {numbers.max()}, "
                        f"but there are {n} variables, 0 to {n - 1}"
                    )
        indptr, indices, given = symmetric_rows(layout, rows, cols)
        return cls(layout, indptr, indices, source, hollow=given == 0 if diagonal == "given" else None)

    @classmethod
    def from_csr(
        cls,
        indptr: ArrayLike,
        indices: ArrayLike,
        *,
        comm: MPI.Comm | None = None,
        n: int | None = None,
        diagonal: str = "full",
        source: str = "csr",
    ) -> Pattern:
        """Return the pattern of local CSR rows with global columns.

        Collective. What is missing of mirrors and diagonal is added; a structure that is complete
        already is taken as it is, without a copy where the integer type allows.

        Parameters
        ----------
        indptr
            (n_local + 1,) the layout follows from its lengths.
        indices
            (nnz_local,) global columns.
        n
            Global size, if it should be checked.
        diagonal
            As in `from_pairs`.

        Raises
        ------
        InputError
            The arrays are not those of a square CSR matrix.
        """
        check_diagonal(diagonal)
        with agreement(communicator(comm)):
            indptr, indices = as_integers(indptr, "indptr"), as_integers(indices, "indices")
            if indptr.ndim != 1 or indices.ndim != 1 or len(indptr) == 0:
                raise InputError("indptr and indices must be one-dimensional, indptr with at least one number")
        layout = Layout.from_local(len(indptr) - 1, comm)
        with agreement(layout.comm):
            check_csr(indptr, indices, layout, n)
        index = index_type(layout.n, len(indices))
        indptr, indices = indptr.astype(index, copy=False), indices.astype(index, copy=False)
        inside, ascending, whole = pattern_kernels.check_rows(indptr, indices, layout.n, layout.start)
        with agreement(layout.comm):
            if not inside:
                raise InputError(f"pattern: a column is outside 0..{layout.n - 1}; a Hessian is square")
        complete = ascending and whole and has_mirrors_inside(indptr, indices, layout)
        complete = on_all(layout.comm, complete) and has_mirrors_across(indptr, indices, layout)
        if complete:
            return cls(layout, indptr, indices, source)
        rows = np.repeat(np.arange(layout.start, layout.stop, dtype=index), np.diff(indptr))
        return cls.from_pairs(rows, indices, layout.n, layout=layout, diagonal=diagonal, source=source)

    @classmethod
    def from_scipy(
        cls,
        matrix: scipy.sparse.spmatrix | scipy.sparse.sparray | ArrayLike,
        *,
        comm: MPI.Comm | None = None,
        layout: Layout | None = None,
        diagonal: str = "full",
        source: str = "scipy",
    ) -> Pattern:
        """Return the pattern of a SciPy sparse matrix that every rank holds; values do not matter.

        Collective. Stored zeros belong to the pattern; `diagonal` as in `from_pairs`. A dense matrix is taken too:
        what is not zero in it.

        Raises
        ------
        InputError
            It is no matrix of numbers, or not square.
        """
        matrix = as_sparse(matrix)
        if matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"a Hessian is square; this matrix is {matrix.shape[0]} x {matrix.shape[1]}")
        layout = layout or Layout.from_size(matrix.shape[0], comm)
        if not layout.n == matrix.shape[0]:
            raise InputError(f"the matrix has {matrix.shape[0]} rows, the layout {layout.n}")
        rows = matrix.tocsr() if layout.comm.size == 1 else matrix.tocsr()[layout.start : layout.stop]
        return cls.from_csr(rows.indptr, rows.indices, comm=layout.comm, diagonal=diagonal, source=source)

    @classmethod
    def from_elements(
        cls,
        elements: ArrayLike,
        nodes: int,
        *,
        dofs: int = 1,
        comm: MPI.Comm | None = None,
        source: str = "elements",
    ) -> Pattern:
        """Return the pattern that couples all nodes of each element, `dofs` variables a node.

        Collective. Each rank brings any part of the elements (or clusters).

        Parameters
        ----------
        elements
            (elements, nodes per element) node numbers; -1 stands for no node, so that elements
            may have different numbers of nodes.
        nodes
            Number of nodes; variables are numbered node by node.
        """
        with agreement(communicator(comm)):
            members = np.atleast_2d(as_whole_numbers(elements, "elements"))
            if members.ndim != 2:
                raise InputError(f"elements must be (elements, nodes of each), not of shape {members.shape}")
        first, second = np.triu_indices(members.shape[1], 1)
        rows, cols = members[:, first].ravel(), members[:, second].ravel()
        there = (rows >= 0) & (cols >= 0)
        return cls._from_nodes(rows[there], cols[there], nodes, dofs, comm, source)

    @classmethod
    def from_edges(
        cls, edges: ArrayLike, nodes: int, *, dofs: int = 1, comm: MPI.Comm | None = None, source: str = "edges"
    ) -> Pattern:
        """Return the pattern of an edge or neighbour list, `dofs` variables a node.

        Collective. Each rank brings any part of the edges, in either direction or both.

        Parameters
        ----------
        edges
            (m, 2) pairs of nodes that interact.
        nodes
            Number of nodes; variables are numbered node by node.
        """
        with agreement(communicator(comm)):
            pairs = as_whole_numbers(edges, "edges")
            if pairs.size and not (pairs.ndim == 2 and pairs.shape[1] == 2):
                raise InputError(f"edges must be pairs of nodes (m, 2), not of shape {pairs.shape}")
            pairs = pairs.reshape(-1, 2)
        return cls._from_nodes(pairs[:, 0], pairs[:, 1], nodes, dofs, comm, source)

    @classmethod
    def from_networkx(
        cls,
        graph: networkx.Graph,
        *,
        nodelist: Iterable[Hashable] | None = None,
        dofs: int = 1,
        comm: MPI.Comm | None = None,
    ) -> Pattern:
        """Return the pattern of a networkx graph that every rank holds.

        Collective.

        Parameters
        ----------
        graph
            Nodes are (groups of) variables, edges couple them. Directions do not matter.
        nodelist
            Order of the nodes; default the graph's own.
        """
        import networkx

        if not isinstance(graph, networkx.Graph):
            raise InputError(f"from_networkx takes a networkx graph, not {type(graph).__name__}")
        order = {node: number for number, node in enumerate(graph if nodelist is None else nodelist)}
        if len(order) != graph.number_of_nodes():
            raise InputError(f"nodelist has {len(order)} of the graph's {graph.number_of_nodes()} nodes")
        strangers = [node for node in order if node not in graph]
        if strangers:
            raise InputError(f"nodelist has {strangers[0]!r}, which is no node of the graph")
        edges = networkx.relabel_nodes(graph, order, copy=True).edges() if order else []
        pairs = np.array([edge[:2] for edge in edges], np.int64).reshape(-1, 2)
        return cls.from_edges(pairs, len(order), dofs=dofs, comm=comm, source="networkx")

    @classmethod
    def _from_nodes(
        cls, first: np.ndarray, second: np.ndarray, nodes: int, dofs: int, comm: MPI.Comm | None, source: str
    ) -> Pattern:
        return cls.from_pairs(first, second, nodes, comm=comm, source=source).with_dofs(dofs)

    def with_dofs(self, dofs: int) -> Pattern:
        """Return the pattern of `dofs` variables for each of this one's, coupled where those are.

        Collective.
        """
        if dofs == 1:
            return self
        layout = Layout(self.comm, self.layout.starts * dofs)
        index = index_type(layout.n, self.nnz_local * dofs * dofs)
        indptr, indices = pattern_kernels.expand(
            self.indptr.astype(index, copy=False), self.indices.astype(index, copy=False), dofs
        )
        return Pattern(layout, indptr, indices, self.source, self)

    def in_blocks(self, size: int) -> Pattern:
        """Return this pattern with its variables declared to come in consecutive groups of `size`.

        Collective. Groups are coloured as one.

        Raises
        ------
        InputError
            The rows of a rank are not whole groups, or some block of the pattern is not full.
        """
        if size == 1:
            return self
        indptr, indices = self.indptr, self.indices
        with agreement(self.comm):
            if (self.layout.starts % size).any():
                raise InputError(f"blocks of {size}: the rows of every rank must be whole blocks")
            heads = indptr[:-1:size]
            lengths = indptr[1::size] - heads
            groups = np.concatenate([[0], np.cumsum(lengths // size)]).astype(indptr.dtype)
            first = np.repeat(heads - groups[:-1] * size, np.diff(groups)) + np.arange(groups[-1]) * size
            columns = (indices[first] // size).astype(indices.dtype)
            wide, full = pattern_kernels.expand(groups, columns, size)
            if not (np.array_equal(wide, indptr) and np.array_equal(full, indices)):
                raise InputError(
                    f"blocks of {size}: not every block of the pattern is full or empty; leave them out"
                )
        quotient = Pattern(Layout(self.comm, self.layout.starts // size), groups, columns, self.source)
        return replace(self, quotient=quotient)

    # --- facts ---

    @cached_property
    def hollow_rows(self) -> np.ndarray:
        """(n_local,) uint8: 1 for rows whose diagonal is structurally zero."""
        hollow = np.zeros(self.layout.n_local, bool) if self.hollow is None else self.hollow
        return hollow.view(np.uint8)

    def structural_zeros(self, positions: np.ndarray) -> np.ndarray:
        """Return (m,) bool: which of these local entries are diagonals of hollow rows.

        Not collective.
        """
        if self.hollow is None:
            return np.zeros(len(positions), bool)
        rows = np.searchsorted(self.indptr, positions, side="right") - 1
        return self.hollow[rows] & (self.indices[positions] == rows + self.layout.start)

    @property
    def comm(self) -> MPI.Comm:
        """Communicator of the layout."""
        return self.layout.comm

    @property
    def n(self) -> int:
        """Number of variables over all ranks."""
        return self.layout.n

    @property
    def nnz_local(self) -> int:
        """Number of entries in the local rows."""
        return len(self.indices)

    @cached_property
    def nnz(self) -> int:
        """Number of entries over all ranks. Collective the first time."""
        return int(self.comm.allreduce(self.nnz_local))

    @property
    def entries_in_words(self) -> str:
        """How many entries there are, as far as this rank knows. Not collective."""
        if len(self.layout.starts) == 2:
            return number_of(self.nnz_local, "entry", "entries")
        known = self.__dict__.get("nnz")
        if known is not None:
            return number_of(known, "entry", "entries")
        return f"{number_of(self.nnz_local, 'entry', 'entries')} of this rank"

    @cached_property
    def exchange(self) -> Exchange:
        """Plan of the exchanges with neighbouring ranks. Collective the first time."""
        return Exchange(self.layout, self.indptr, self.indices)

    @property
    def columns(self) -> np.ndarray:
        """(nnz_local,) int32 local column numbers: rows of this rank first, then its ghosts."""
        return self.exchange.columns

    @property
    def ghosts(self) -> np.ndarray:
        """(ghosts,) global numbers of the columns that other ranks have rows of, ascending."""
        return self.exchange.ghosts

    def entry(self, position: int) -> tuple[int, int]:
        """Return (global row, global column) of a local entry.

        Not collective.
        """
        row = int(np.searchsorted(self.indptr, position, side="right")) - 1
        return self.layout.start + row, int(self.indices[position])

    def transposed(self, values: np.ndarray) -> np.ndarray:
        """Return (nnz_local,) for each local entry (i, j) the value of entry (j, i), wherever it is.

        Collective.

        Parameters
        ----------
        values
            (nnz_local,) uint8 or float64, of the local entries.
        """
        columns = self.columns.astype(self.indptr.dtype, copy=False)
        other = pattern_kernels.mirror_values(self.indptr, columns, values, 0)
        remote = self.exchange.remote
        other[remote] = self.exchange.mirror(np.ascontiguousarray(values[remote]))
        return other

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """Return the local rows as a SciPy matrix of ones, (n_local, n).

        Not collective.
        """
        ones = np.ones(self.nnz_local, np.int8)
        return scipy.sparse.csr_matrix((ones, self.indices, self.indptr), (self.layout.n_local, self.n))

    def free(self) -> None:
        """Release the communicator of the exchange plan.

        Collective.
        """
        if "exchange" in self.__dict__:
            self.exchange.free()
        if self.quotient is not None:
            self.quotient.free()
