"""The matrix [[H, Cᵀ], [C, 0]] of a Hessian on the null space of constraints C, some variables fixed.

The first block of its inverse is Z (ZᵀHZ)⁻¹ Zᵀ, Z a basis of the null space: the inverse of H where there are no
constraints, the pseudo-inverse of PHP where C are its null vectors. Its inertia is that of ZᵀHZ, and one positive
and one negative eigenvalue for each constraint, where these do not depend on each other (Gould 1985, "On practical
conditions for the existence and uniqueness of solutions to the general equality quadratic programming problem").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpi4py import MPI

import numpy as np
import scipy.sparse

from sparsehess.eigen.inverses.factors import Factors
from sparsehess.eigen.inverses.remote_rows import values_at
from sparsehess.eigen.problem.equilibration import AbsoluteRows
from sparsehess.eigen.problem.matrix_inputs import with_diagonal
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.runtime import PETSc, aij, communicator, destroy
from sparsehess.runtime.row_layout import Layout

# Errors of entries are taken to be so many standard deviations.
_BARS = 3.0


class SaddlePoint:
    """[[H + shift I, Cᵀ], [C, 0]] by LDLᵀ, with rows and columns of fixed variables those of the identity.

    *Collective* to make and to use; `close()` destroys what was made here. On each rank its variables come first,
    then its constraints.

    Parameters
    ----------
    H
        Assembled, symmetric, finite.
    C
        (m, n) assembled, columns as the rows of H; None for no constraints.
    fixed
        (n_local,) whether a variable is held; None for none.
    shift
        Added to the diagonal of H.
    sizes
        (n_local,) what the diagonal is scaled by; None for its own sizes.

    Attributes
    ----------
    layout, multipliers, whole
        Rows of H, of C, and of the whole.
    matrix
        The whole.
    free
        (n_local,) whether a variable is not held.
    factors
        Of the whole.
    """

    def __init__(
        self,
        H: PETSc.Mat,
        C: PETSc.Mat | None = None,
        fixed: np.ndarray | None = None,
        shift: float = 0.0,
        sizes: np.ndarray | None = None,
    ):
        comm = communicator(H.comm)
        self.layout = Layout.from_local(H.getLocalSize()[0], comm)
        self.multipliers = Layout.from_local(0 if C is None else C.getLocalSize()[0], comm)
        self.whole = Layout(comm, self.layout.starts + self.multipliers.starts)
        n_local = self.layout.n_local
        self.free = np.ones(n_local, bool) if fixed is None else ~fixed
        rows = with_diagonal(self._rows(H, C, shift), self.whole)
        self.matrix = aij(self.whole, rows.indptr, rows.indices, rows.data)
        held = self.whole.start + np.flatnonzero(~self.free)
        self.matrix.zeroRowsColumns(held.astype(PETSc.IntType), 1.0)
        self.fixed_in_all = comm.allreduce(len(held))
        try:
            self.factors = Factors(self.matrix, self._sizes() if sizes is None else self.of_whole(sizes))
        except Exception:  # on all ranks alike
            destroy(self.matrix)
            raise

    @classmethod
    def of(
        cls,
        problem: EigenProblem,
        C: PETSc.Mat | None = None,
        fixed: np.ndarray | None = None,
        shift: float = 0.0,
    ) -> SaddlePoint:
        """Return it for the Hessian of a problem, whose entries may have errors. The caller closes it.

        Collective.
        """
        made, known = cls(problem.A, C, fixed, shift), problem.entry_errors
        made.factors.entry_error = problem.relative_error
        if known is not None:
            scales = made.factors.scales[: made.layout.n_local]
            made.factors.doubt_rows(made.of_whole(_BARS * scales * known.of_product(scales * made.free)))
        return made

    @property
    def freedom(self) -> int:
        """How many variables are free. Not collective."""
        return self.layout.n - self.fixed_in_all

    def variables(self, rows: np.ndarray) -> np.ndarray:
        """Return the numbers in the whole of variables. Not collective."""
        return rows + self.multipliers.starts[self.layout.owner(rows)]

    def constraints(self, rows: np.ndarray) -> np.ndarray:
        """Return the numbers in the whole of constraints. Not collective."""
        return rows + self.layout.starts[self.multipliers.owner(rows) + 1]

    def of_whole(self, variables: np.ndarray) -> np.ndarray:
        """Return local rows (n + m local, ...) of the whole, zero for constraints, of those of variables.

        Not collective.
        """
        return np.concatenate([variables, np.zeros((self.multipliers.n_local, *variables.shape[1:]))])

    def name(self, row: int) -> str:
        """Return what a row of the whole is. Not collective."""
        rank = int(self.whole.owner(np.array([row]))[0])
        inside = row - int(self.whole.starts[rank])
        many = int(self.layout.counts[rank])
        if inside < many:
            return f"variable {int(self.layout.starts[rank]) + inside}"
        return f"constraint {int(self.multipliers.starts[rank]) + inside - many}"

    def _rows(self, H: PETSc.Mat, C: PETSc.Mat | None, shift: float) -> scipy.sparse.csr_matrix:
        """Return the local rows (n + m local, n + m) of the whole."""
        n_local = self.layout.n_local
        upper = self._placed(H, n_local, self.variables)
        if shift:
            own = np.arange(n_local)
            place = (np.full(n_local, shift), (own, self.whole.start + own))
            upper = upper + scipy.sparse.csr_matrix(place, (n_local, self.whole.n))
        if C is None:
            return upper
        transposed = C.transpose(PETSc.Mat())
        try:
            upper = upper + self._placed(transposed, n_local, self.constraints)
        finally:
            destroy(transposed)
        lower = self._placed(C, self.multipliers.n_local, self.variables)
        return scipy.sparse.vstack([upper, lower], format="csr")

    def _placed(
        self, matrix: PETSc.Mat, rows: int, place: Callable[[np.ndarray], np.ndarray]
    ) -> scipy.sparse.csr_matrix:
        """Return the local rows of a part, its columns (by `place`) those of the whole."""
        plain = matrix if matrix.getType() in ("seqaij", "mpiaij") else matrix.convert("aij", PETSc.Mat())
        indptr, indices, values = plain.getValuesCSR()
        if plain is not matrix:
            destroy(plain)
        columns = place(indices.astype(np.int64))
        return scipy.sparse.csr_matrix((values, columns, indptr), (rows, self.whole.n))

    def _sizes(self) -> np.ndarray:
        """Return sizes (n + m local,) to scale by: of the diagonal, else of the row; 0 of constraints."""
        rows = AbsoluteRows(self.matrix, self.whole)
        sizes, largest = rows.diagonal.copy(), rows.largest(np.ones(self.whole.n_local))
        rows.close()
        sizes = np.where(sizes > 0, sizes, np.where(largest > 0, largest, 1.0))
        sizes[self.layout.n_local :] = 0.0
        return sizes

    # --- the first block of the inverse ---

    def entries(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return entries (k,) of Z (ZᵀHZ)⁻¹ Zᵀ; each rank asks for its own variables. Zero for those held.

        Collective. `factors` must be of the matrix as it is.
        """
        found = self.factors.entries(self.variables(rows), self.variables(columns))
        return np.where(self._held_at(rows) | self._held_at(columns), 0.0, found)

    def errors(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return how far these entries may be off; see `Factors.errors`. Collective."""
        found = self.factors.errors(self.variables(rows), self.variables(columns), self.factors.measured())
        return np.where(self._held_at(rows) | self._held_at(columns), 0.0, found)

    def column(self, variable: int) -> np.ndarray:
        """Return a column (n_local,) of Z (ZᵀHZ)⁻¹ Zᵀ, by a solution. Collective."""
        unit = np.zeros((self.whole.n_local, 1))
        if self.layout.start <= variable < self.layout.stop and self.free[variable - self.layout.start]:
            unit[variable - self.layout.start] = 1.0
        return self.factors.solve(unit)[: self.layout.n_local, 0]

    def _held_at(self, rows: np.ndarray) -> np.ndarray:
        if not self.fixed_in_all:
            return np.zeros(len(rows), bool)
        return values_at(self.layout, np.where(self.free, 0.0, 1.0), rows) > 0

    def empty_rows(self) -> Sequence[str]:
        """Return the first rows of the whole that have no entries, by name. Collective."""
        rows = AbsoluteRows(self.matrix, self.whole)
        largest = rows.largest(np.ones(self.whole.n_local))
        rows.close()
        own = self.whole.start + np.flatnonzero(largest == 0)[:5]
        every = np.concatenate(self.whole.comm.allgather(own))
        return [self.name(int(row)) for row in every[:5]]

    def any_of(self, condition: bool) -> bool:
        """Return whether something holds on any rank. Collective."""
        return bool(self.whole.comm.allreduce(condition, op=MPI.LOR))

    def close(self) -> None:
        """Destroy the factors and the matrix.

        Collective.
        """
        self.factors.close()
        destroy(self.matrix)
