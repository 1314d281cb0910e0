"""The matrices of a buckling problem: checked, the stiffness definite, rigid motions that nothing resists held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np
import scipy.linalg

from sparsehess.eigen.problem.brought_facts import SYMMETRY
from sparsehess.eigen.problem.equilibration import AbsoluteRows
from sparsehess.eigen.problem.inertia_of_matrix import ROUNDING, Signs, signs_of
from sparsehess.eigen.problem.infinite_eigenvalues import shifted_matrix
from sparsehess.eigen.problem.matrix_inputs import as_mat, check_symmetric
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.eigs import eigs
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.spectrum_targets import SAFE
from sparsehess.errors import CheckError, InputError
from sparsehess.hessian.hessian import Hessian
from sparsehess.runtime import PETSc, agreement, destroy
from sparsehess.runtime.petsc_matrices import is_assembled
from sparsehess.runtime.row_layout import Layout

if TYPE_CHECKING:
    from sparsehess.operators.matrix_like import MatrixLike

STIFFNESS, GEOMETRIC = "the stiffness matrix K", "the geometric stiffness matrix Kg"

# Shifts, over the ratio of the sizes of both matrices, at which a pencil that is not singular is regular.
_GENERIC = (0.618033988749895, -1.324717957244746)

# Rows that are looked at for it.
_LOOKED = 10_000

# Loads, over that ratio, under which a free body may be stiff: tried from the largest on.
_LOADS = 10.0 ** -np.arange(2, 13)

# Such a load is made so much smaller where that is still certain, for it to lie near zero.
_NEARER = (1e-4, 1e-3, 1e-2, 1e-1)

# What the load makes of a rigid motion that it does not move, as a part of what it could make of it.
_UNMOVED = 1e-6


class LoadPencil:
    """(K + λ Kg) φ = 0 on the rows that are not held, with a definite matrix of the two.

    *Collective* to make and to use; `close()` destroys what was made here.

    Attributes
    ----------
    layout
        Rows of K.
    free
        Rigid motions that neither matrix resists: as many rows are held, which changes no load factor.
    tipped
        Rigid motions that K does not resist and the load moves: their load factor is zero.
    shift
        σ of the definite matrix K + σ Kg; zero where K is.
    empty
        Whether Kg has no entries on the rows that are not held.
    """

    def __init__(self, stiffness: Hessian | MatrixLike, geometric: MatrixLike, comm: MPI.Comm | None):
        self._owned: list = []
        self.shift, self.free, self.tipped, self.empty = 0.0, 0, 0, False
        try:
            given = stiffness.mat if isinstance(stiffness, Hessian) else stiffness
            whole = as_mat(given, comm, None, self._owned, STIFFNESS)
            self.layout = Layout.from_local(whole.getLocalSize()[0], whole.comm)
            load = as_mat(geometric, None, self.layout, self._owned, GEOMETRIC)
            for name, one in ((STIFFNESS, whole), (GEOMETRIC, load)):
                if not is_assembled(one):
                    raise InputError(f"{name} must be assembled, and not a shell: its entries are needed")
            sizes = [_sizes(whole, self.layout, STIFFNESS), _sizes(load, self.layout, GEOMETRIC)]
            _check_symmetric(whole, load, sizes, self.layout)
            self._held = sizes[0] == 0
            self._refuse_unresisted(sizes[1])
            self._kept = np.flatnonzero(~self._held)
            self._motions = np.empty((self.layout.n_local, 0))
            self.empty = not any(self.layout.comm.allgather(bool((sizes[1] > 0).any())))
            self.K, self.Kg = self._rows_of(whole), self._rows_of(load)
            if not self._is_definite(self.K):
                self._hold_rigid_motions()
        except BaseException:
            self.close()
            raise

    def _refuse_unresisted(self, loads: np.ndarray) -> None:
        """Refuse variables that the load moves and that have no stiffness at all. Collective."""
        rows = self.layout.start + np.flatnonzero(self._held & (loads > 0))
        many = self.layout.comm.allreduce(len(rows))
        if many:
            shown = ", ".join(map(str, np.concatenate(self.layout.comm.allgather(rows[:10]))[:10]))
            raise InputError(
                f"{STIFFNESS} has no entries in {many} rows in which Kg has some (from 0: {shown}): what "
                "nothing resists buckles under any load; hold these variables, or take them out of both"
            )
        if self.layout.comm.allreduce(int(np.count_nonzero(~self._held))) == 0:
            raise InputError(f"{STIFFNESS} is zero: nothing is there to buckle")

    # --- what is solved ---

    @contextmanager
    def problem(self, sign: int) -> Iterator[EigenProblem]:
        """Have -sign Kg x = ν (K + σKg) x, of which λ = σ + sign / ν. Collective."""
        A = self.Kg.duplicate(copy=True)
        A.scale(-float(sign))
        A.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        M = self.K if self.shift == 0 else shifted_matrix(self.K, self.Kg, -self.shift)
        made = EigenProblem(A=A, M=M, null=[], owned=[A] if M is self.K else [A, M])
        made.__dict__["massless"] = 0  # M is definite, with a margin
        with made:
            yield made

    @property
    def rows(self) -> int:
        """How many rows are not held. Not collective."""
        return int(self.K.getSize()[0])

    def modes(self, vectors: list[PETSc.Vec]) -> list[PETSc.Vec]:
        """Return vectors of all rows, free of rigid motions, their largest entry one. The caller destroys them.

        Collective.
        """
        comm, found = self.layout.comm, []
        for vector in vectors:
            whole = np.zeros(self.layout.n_local)
            whole[self._kept] = vector.getArray(readonly=True)
            if self._motions.shape[1]:
                whole -= self._motions @ comm.allreduce(self._motions.T @ whole)
            ends = comm.allgather((float(whole.max(initial=0.0)), float(whole.min(initial=0.0))))
            most, least = max(end[0] for end in ends), min(end[1] for end in ends)
            size = most if most >= -(1 - 1e-8) * least else least
            mode = PETSc.Vec().createMPI((self.layout.n_local, self.layout.n), comm=comm)
            mode.setArray(whole / (size or 1.0))
            found.append(mode)
        return found

    # --- a free body ---

    def _hold_rigid_motions(self) -> None:
        """Hold as many rows as there are rigid motions that neither matrix resists; shift where more are left.

        Collective. Both forms stay as they are when such a motion is added to a vector: on the vectors that are
        zero in rows on which the motions are independent, the load factors are those of the whole.
        """
        resisted = _signs(self.K)
        if resisted.negative:
            raise InputError(_unstable(resisted.negative))
        nullity = resisted.zero
        if not nullity:
            return  # definite all the same: K less a thousand last digits of its rows is
        ratio = self._ratio()
        self.free = 0 if self.empty else self._shared_nullity(ratio)
        if self.empty:
            self.free = nullity
        self.tipped = nullity - self.free
        if self.free:
            self._ground(nullity)
        if self.tipped:
            self.shift = self._stiffening_load(ratio)
        elif not self._is_definite(self.K):
            raise CheckError(
                f"{STIFFNESS} is singular to the accuracy of its entries, and not in {nullity} motions alone: "
                "hold what moves freely, or take smaller penalties"
            )

    def _ratio(self) -> float:
        """Return the size of K over that of Kg, from rows that are the same on any number of ranks. Collective."""
        pencil = EigenProblem(A=self.K, M=None, null=[], owned=[])
        layout = pencil.layout
        ones, ratios = np.ones(layout.n_local), []
        for one in (self.K, self.Kg):
            rows = AbsoluteRows(one, layout)
            ratios.append(rows.largest(ones))
            rows.close()
        looked = np.arange(layout.start, layout.stop) % -(-layout.n // _LOOKED) == 0
        if not layout.comm.allreduce(bool((looked & (ratios[1] > 0)).any()), op=MPI.LOR):
            looked[:] = True  # Kg has few rows
        both = looked & (ratios[0] > 0) & (ratios[1] > 0)
        every = np.concatenate(layout.comm.allgather(np.log(ratios[0][both] / ratios[1][both])))
        return float(np.exp(np.median(every))) if len(every) else 1.0

    def _shared_nullity(self, ratio: float) -> int:
        """Return the dimension of the common null space: of K + σKg at unrelated σ. Collective."""
        found = []
        for part in _GENERIC:
            whole = shifted_matrix(self.K, self.Kg, -part * ratio)
            try:
                found.append(_signs(whole).zero)
            finally:
                destroy(whole)
        return min(found)

    def _ground(self, nullity: int) -> None:
        """Hold rows on which the motions that neither matrix resists are independent. Collective."""
        with eigs(self.K, nullity, count="no", strict=False) as found:
            V = np.stack([vector.getArray(readonly=True) for vector in found.vectors], axis=1)
        comm = self.layout.comm
        V, unmoved = _least_moved(self.Kg, V, self.free, comm)
        if not unmoved < _UNMOVED:
            raise CheckError(
                f"{nullity} rigid motions have no stiffness, and it cannot be told which of them the load moves "
                f"({unmoved:.1e} of what it could): hold the body, as on statically determinate supports"
            )
        diagonal = self.K.getDiagonal()
        weights = np.sqrt(np.maximum(diagonal.getArray(readonly=True), 0.0))
        destroy(diagonal)
        chosen = _independent_rows(V * weights[:, None], comm)
        motions = np.zeros((self.layout.n_local, self.free))
        motions[self._kept] = V
        gram = comm.allreduce(motions.T @ motions)
        self._motions = motions @ np.linalg.inv(np.linalg.cholesky(gram)).T
        left = np.ones(len(self._kept), bool)
        left[chosen] = False
        if self.rows == self.free:
            raise InputError("the body is rigid: all its motions are those that nothing resists")
        local = Layout.from_local(len(left), comm)
        K, Kg = self.K, self.Kg
        self.K, self.Kg = _submatrix(K, local, left, self._owned), _submatrix(Kg, local, left, self._owned)
        self._kept = self._kept[left]

    def _stiffening_load(self, ratio: float) -> float:
        """Return a small load factor under which the body resists all that moves it. Collective."""
        for part in _LOADS:
            for side in (1.0, -1.0):
                load = side * part * ratio
                if self._is_stiff_under(load):
                    nearer = (load * factor for factor in _NEARER if self._is_stiff_under(load * factor))
                    return next(nearer, load)
        raise InputError(
            f"the load factor is 0: {self.tipped} rigid motions have no stiffness, and the load moves them, some "
            "for and some against it, so that no load makes the body stable: hold it against these motions"
        )

    def _is_stiff_under(self, load: float) -> bool:
        whole = shifted_matrix(self.K, self.Kg, -load)
        try:
            return self._is_definite(whole, refuse=False)
        finally:
            destroy(whole)

    def _is_definite(self, matrix: PETSc.Mat, refuse: bool = True) -> bool:
        """Return whether a matrix is positive definite by the signs of its pivots, with a margin. Collective."""
        problem = EigenProblem(A=matrix, null=[], owned=[])
        with problem:
            solver = KrylovSchur(problem.equilibrated, True, {}, tol=1e-8)
            try:
                pivots = solver.shift_to(0.0)
                sure = pivots.zero == 0 and solver.margin() > SAFE
            finally:
                solver.close()
        if sure and pivots.negative and refuse:
            raise InputError(_unstable(pivots.negative))
        return sure and pivots.negative == 0

    # --- rows ---

    def _rows_of(self, matrix: PETSc.Mat) -> PETSc.Mat:
        """Return a matrix without the rows that are held. Collective."""
        if not any(self.layout.comm.allgather(bool(self._held.any()))):
            return matrix
        return _submatrix(matrix, self.layout, ~self._held, self._owned)

    def close(self) -> None:
        """Destroy what was made here. Collective."""
        destroy(*self._owned)
        self._owned.clear()

    def __enter__(self) -> LoadPencil:
        """Return the pencil itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Destroy what was made here. Collective."""
        self.close()


def _unstable(negative: int) -> str:
    many = "1 negative eigenvalue" if negative == 1 else f"{negative} negative eigenvalues"
    return (
        f"{STIFFNESS} has {many}: the structure is unstable before any load is added, and no load factor tells "
        "more; take K of the unloaded structure, look for a wrong sign, or for the stiffness of the load in K"
    )


def _sizes(matrix: PETSc.Mat, layout: Layout, name: str) -> np.ndarray:
    """Return the largest entry of each local row (n_local,), and refuse what is not finite. Collective."""
    rows = AbsoluteRows(matrix, layout)
    try:
        with agreement(layout.comm):
            if not rows.finite:
                raise InputError(f"{name} has entries that are not finite: look how it was written")
        return rows.largest(np.ones(layout.n_local))
    finally:
        rows.close()


def _check_symmetric(K: PETSc.Mat, Kg: PETSc.Mat, sizes: list[np.ndarray], layout: Layout) -> None:
    """Refuse matrices that are not symmetric. Collective."""
    for name, matrix, size in ((STIFFNESS, K, sizes[0]), (GEOMETRIC, Kg, sizes[1])):
        check_symmetric(name, matrix, 1 / np.sqrt(np.where(size > 0, size, 1.0)), layout, SYMMETRY)


def _signs(matrix: PETSc.Mat) -> Signs:
    """Return the inertia of a matrix to the last digits of its scaled rows. Collective."""
    with EigenProblem(A=matrix, null=[], owned=[]) as problem:
        scaled = problem.equilibrated
        return signs_of(scaled.A, scaled.scales.rows_a, ROUNDING)


def _submatrix(matrix: PETSc.Mat, layout: Layout, kept: np.ndarray, owned: list) -> PETSc.Mat:
    """Return some rows and columns of a matrix, on the ranks where they are. Collective."""
    rows = (layout.start + np.flatnonzero(kept)).astype(PETSc.IntType)
    chosen = PETSc.IS().createGeneral(rows, comm=layout.comm)
    part = matrix.createSubMatrix(chosen, chosen)
    part.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    destroy(chosen)
    owned.append(part)
    return part


def _least_moved(Kg: PETSc.Mat, V: np.ndarray, many: int, comm: MPI.Comm) -> tuple[np.ndarray, float]:
    """Return the span (n_local, many) of motions that a load moves least, and how far it does. Collective."""
    layout = Layout.from_local(Kg.getLocalSize()[0], comm)
    rows = AbsoluteRows(Kg, layout)
    sums = rows.sums(np.ones(layout.n_local))
    rows.close()
    x, y = Kg.createVecs()
    moved = np.empty_like(V)
    for column in range(V.shape[1]):
        x.setArray(V[:, column])
        Kg.mult(x, y)
        moved[:, column] = y.getArray(readonly=True)
    destroy(x, y)
    scale = 1 / np.sqrt(np.where(sums > 0, sums, 1.0))
    of_load, of_rows = moved * scale[:, None], V * np.sqrt(sums)[:, None]
    got, could = comm.allreduce(np.stack([of_load.T @ of_load, of_rows.T @ of_rows]))
    size = float(np.trace(could))
    if size == 0:
        return V[:, :many], 0.0
    could += 1e-8 * size / len(could) * np.eye(len(could))
    ratios, vectors = scipy.linalg.eigh(got, could)
    return V @ vectors[:, :many], float(np.sqrt(max(ratios[many - 1], 0.0)))


def _independent_rows(V: np.ndarray, comm: MPI.Comm) -> np.ndarray:
    """Return local rows, of all ranks as many as columns, on which columns are independent. Collective."""
    left, own = V.copy(), []
    for _ in range(V.shape[1]):
        sizes = np.linalg.norm(left, axis=1)
        best = int(np.argmax(sizes)) if len(sizes) else 0
        mine = float(sizes[best]) if len(sizes) else -1.0
        largest = comm.allgather(mine)
        rank = int(np.argmax(largest))
        row = comm.bcast(left[best] / mine if comm.rank == rank else None, root=rank)
        if comm.rank == rank:
            own.append(best)
        left = left - np.outer(left @ row, row)
    return np.array(own, np.int64)
