"""Hessians with entries dropped, and a bound of what that does to every eigenvalue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError
from sparsehess.pattern import Layout, Pattern
from sparsehess.pattern.dropping_rules import Entries, Rule, norms
from sparsehess.runtime import PETSc, aij, destroy, require_real
from sparsehess.runtime.petsc_matrices import is_assembled
from sparsehess.runtime.short_repr import ShortRepr

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.operators.matrix_like import MatrixLike


@dataclass(frozen=True, eq=False, repr=False)
class Sparsified(ShortRepr):
    """A matrix of which entries were dropped.

    *Collective* to make, by `sparsify`, and to close. A context manager; `close()` destroys what it owns.

    Attributes
    ----------
    mat
        What is left, PETSc AIJ, symmetric.
    pattern
        Of what is left; `before` of the next rule, for which it outlives `close()`.
    kept, dropped
        Entries over all ranks; zeros that were stored count.
    row_sum, frobenius
        Norms of what was dropped, E: the largest absolute row sum and the Frobenius norm. ‖E‖₂ is no more than
        either.
    bound
        No eigenvalue of H x = λ M x, in their order, has moved by more (Weyl's inequality; see `sparsify`). None
        where nothing is known for the mass.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> H = np.array([[2.0, 1e-3, 0.0], [1e-3, 2.0, 1.0], [0.0, 1.0, 2.0]])
    >>> with sh.sparsify(H, sh.Above(1e-2)) as left:
    ...     print(left.kept, left.dropped, left.bound)
    5 2 0.001
    """

    mat: PETSc.Mat
    pattern: Pattern
    kept: int
    dropped: int
    row_sum: float
    frobenius: float
    bound: float | None
    _anchor: PETSc.Vec = field(repr=False)  # holds the communicator of what it was made of, and may outlive

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{self.kept:,} kept, {self.dropped:,} dropped"
        yield "no bound" if self.bound is None else f"eigenvalues moved by at most {self.bound:.3g}"
        if not self.mat:
            yield "closed"

    def close(self) -> None:
        """Destroy the matrix. Collective."""
        destroy(self.mat, self._anchor)

    def __enter__(self) -> Sparsified:
        """Return the object itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close the object. Collective."""
        self.close()

    @property
    def facts(self) -> dict:
        """What JSON says of it."""
        names = ("kept", "dropped", "row_sum", "frobenius", "bound")
        return {name: getattr(self, name) for name in names}


def sparsify(
    matrix: MatrixLike, rule: Rule, *, mass: MatrixLike | None = None, comm: MPI.Comm | None = None
) -> Sparsified:
    """Drop entries of a Hessian by a rule: `Above`, `Largest`, `Hysteresis` or `Inherited`.

    *Collective.* The diagonal always stays. With E for what is dropped, eigenvalues in ascending order obey
    |λ_i(H) - λ_i(H - E)| <= ‖E‖₂ (Weyl 1912; Horn and Johnson, Matrix Analysis, theorem 4.3.1). For a pencil with
    positive definite M the eigenvalues are those of M^(-1/2) H M^(-1/2), so the bound is ‖M^(-1/2) E M^(-1/2)‖₂. A
    diagonal M is divided out entry by entry. For another one, with D its diagonal and S = D^(-1/2) M D^(-1/2), it
    is at most ‖D^(-1/2) E D^(-1/2)‖₂ / λ_min(S), and λ_min(S) is bounded from below by Gershgorin's discs; where
    they reach zero there is no bound.

    Parameters
    ----------
    matrix
        A `Hessian`, an assembled Mat, or a SciPy matrix that every rank holds; symmetric, its symmetric part is
        taken.
    rule
        Says which entries stay.
    mass
        M of H x = λ M x: Mat, SciPy matrix, or (n,) diagonal. Default that of the Hessian's objective.
    comm
        For SciPy matrices.

    Returns
    -------
    Sparsified
        What is left, with the bound; the caller closes it.

    Raises
    ------
    InputError
        Nothing is assembled, the matrix is not symmetric, or the rule does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> H = np.diag([1.0, 2.0, 3.0]) + 1e-4
    >>> with sh.sparsify(H, sh.Above(1e-3)) as left:
    ...     moved = np.abs(np.linalg.eigvalsh(H) - np.diag(H)).max()
    ...     print(left.dropped, bool(moved <= left.bound))
    6 True
    """
    require_real("dropping of entries")
    problem = EigenProblem.of(matrix, mass=mass, nullspace=[], near_null=[], comm=comm)
    try:
        if not problem.assembled:
            raise InputError(
                "nothing can be dropped of a Hessian that is not assembled: assemble it, or drop nothing"
            )
        if problem.M is not None and not is_assembled(problem.M):
            raise InputError("a bound needs the entries of the mass matrix: this one is a shell")
        entries = _entries(problem.A, problem.layout)
        try:
            if problem.M is not None:
                entries = _weighed(entries, problem.M)
            return _sparsified(entries, rule, problem.A.comm)
        finally:
            entries.pattern.free()
    finally:
        problem.close()


def _sparsified(entries: Entries, rule: Rule, comm: PETSc.Comm) -> Sparsified:
    """Return what a rule leaves, on a communicator that is to be held. Collective."""
    if not hasattr(rule, "keep"):
        raise InputError(f"the rule must be Above, Largest, Hysteresis or Inherited, not {type(rule).__name__}")
    kept = rule.keep(entries) | entries.diagonal
    row_sum, frobenius = entries.dropped_norms(kept)
    bound = entries.shift(kept)
    left = _left(entries, kept)
    mat = aij(left.layout, left.indptr, left.indices, entries.values[kept])
    anchor = PETSc.Vec().createMPI((0, 0), comm=comm)
    return Sparsified(mat, left, left.nnz, entries.pattern.nnz - left.nnz, row_sum, frobenius, bound, anchor)


def _entries(matrix: PETSc.Mat, layout: Layout) -> Entries:
    """Return the entries of the symmetric part of a matrix. Collective."""
    indptr, indices, values = matrix.getValuesCSR()
    rows = scipy.sparse.csr_matrix((values, indices, indptr), (layout.n_local, layout.n))
    rows.sort_indices()
    pattern = Pattern.from_csr(rows.indptr, rows.indices, comm=layout.comm, source="stored")
    whole = np.zeros(pattern.nnz_local)
    local = np.arange(layout.n_local, dtype=np.int64)
    places = np.repeat(local, np.diff(pattern.indptr)) * layout.n + pattern.indices
    wanted = np.repeat(local, np.diff(rows.indptr)) * layout.n + rows.indices
    whole[np.searchsorted(places, wanted)] = rows.data
    return Entries(pattern, 0.5 * (whole + pattern.transposed(whole)))


def _left(entries: Entries, kept: np.ndarray) -> Pattern:
    """Return the pattern of what stays. Collective."""
    pattern = entries.pattern
    counts = np.bincount(entries.rows[kept] - pattern.layout.start, minlength=pattern.layout.n_local)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(pattern.indptr.dtype)
    return Pattern.from_csr(indptr, pattern.indices[kept], comm=pattern.comm, source="thinned")


def _weighed(entries: Entries, M: PETSc.Mat) -> Entries:
    """Return entries that know what a mass makes of their sizes in the bound. Collective."""
    layout, comm = entries.pattern.layout, entries.pattern.comm
    mass = _entries(M, layout)
    try:
        own = np.zeros(layout.n_local)
        own[mass.rows[mass.diagonal] - layout.start] = mass.values[mass.diagonal]
        if comm.allreduce(int((own <= 0).any())):
            return replace(entries, factor=None)
        scale = 1.0 / np.sqrt(own)
        relative = np.where(mass.diagonal, 0.0, np.abs(mass.values)) * _both(scale, mass)
        discs, _ = norms(relative, relative, mass.pattern)
    finally:
        mass.pattern.free()
    return replace(entries, weights=_both(scale, entries), factor=1.0 / (1.0 - discs) if discs < 1.0 else None)


def _both(scale: np.ndarray, entries: Entries) -> np.ndarray:
    """Return (nnz_local,) the product of the scales of row and column. Collective."""
    pattern = entries.pattern
    return scale[entries.rows - pattern.layout.start] * pattern.exchange.halo(scale)[pattern.columns]
