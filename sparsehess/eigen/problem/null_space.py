"""Known null vectors: what is solved is the problem on what is orthogonal to them in the mass.

With N a basis of their span, NᵀMN = I, and P = I − N NᵀM, the operator is PᵀAP. Null vectors that are null but for
the error of A, as those of a Hessian from noisy forces, leave no trace: A without its part in N is what is solved,
counted and judged. So it is where directions are projected out whatever A says of them; a `Projection` tells then
what that has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from mpi4py import MPI

import numpy as np

from sparsehess.errors import CheckError, InputError
from sparsehess.runtime import PETSc, SLEPc, called_back, communicator, destroy, on_root

if TYPE_CHECKING:
    from sparsehess.hessian.entry_errors import EntryErrors
    from sparsehess.pattern import Layout

# Part of |H| |v| below which H v is none in a row: exactly, or by so many errors of the matrix.
_EXACT, _ERRORS = 1e-8, 10.0

# However large the error of the matrix is, H v must be less than this part: else any vector were a null vector.
_MOST = 0.1

# A null vector of this part of the size of the largest is zero but for rounding.
_TINY = 1e-10

# So many of the vectors that are none are named one by one.
_NAMED = 2

# A null vector with less of its size in the mass than this has none.
_MASSLESS = 1e-10

# Null vectors whose span has a direction weaker than this, as parts of the mass, have a copy among them.
_COPY = 1e-10


class Problem(Protocol):
    """What a check of null vectors asks of an eigenproblem."""

    A: PETSc.Mat
    null: list[PETSc.Vec]
    projected: bool
    relative_error: float
    entry_errors: EntryErrors | None

    @property
    def comm(self) -> MPI.Comm:
        """Communicator of the matrices."""

    @property
    def layout(self) -> Layout:
        """Rows of each rank."""

    @property
    def assembled(self) -> bool:
        """Whether A has entries."""

    @property
    def norms(self) -> tuple[float, float]:
        """Norms of A and of M."""


def orthonormal_null_vectors(
    vectors: Sequence[PETSc.Vec], M: PETSc.Mat | None, mass: float, owned: list
) -> list[PETSc.Vec]:
    """Return a basis of the span of some vectors, orthonormal in the mass.

    Collective. What depends on the others is left out: a linear molecule has five rigid motions.

    Parameters
    ----------
    mass
        Mean of the mass.
    owned
        Gets the Vecs that are made here.

    Raises
    ------
    InputError
        A vector has no mass: it is one of the pencil's, which is singular.
    """
    if not vectors:
        return []
    comm = communicator(vectors[0].comm)
    N = np.stack([vector.getArray(readonly=True) for vector in vectors], axis=1)
    sizes = np.array([vector.norm() for vector in vectors])
    N = N / sizes
    for _ in range(2):  # once leaves what cancellation leaves
        G = _summed(comm, N.conj().T @ _product(M, N, vectors[0]))
        light = np.flatnonzero(~(np.diag(G).real > _MASSLESS * mass))
        if N.shape[1] == len(vectors) and len(light):
            raise InputError(
                f"null vector {light[0]} has no mass: H and the mass matrix share it, and the pencil is singular"
            )
        N = N @ on_root(comm, _whitening, G)
    basis = []
    for column in N.T:
        basis.append(vectors[0].duplicate())
        basis[-1].setArray(column)
        owned.append(basis[-1])
    return basis


def _whitening(G: np.ndarray) -> np.ndarray:
    """Return W with WᴴGW = I, copies left out."""
    scale = 1 / np.sqrt(np.diag(G).real)
    weights, V = np.linalg.eigh(scale[:, None] * (G + G.conj().T) / 2 * scale)
    strong = weights > _COPY
    return scale[:, None] * V[:, strong] / np.sqrt(weights[strong])


def _product(M: PETSc.Mat | None, X: np.ndarray, template: PETSc.Vec) -> np.ndarray:
    """Return M X for local rows X (n_local, k)."""
    if M is None:
        return X
    x, y = template.duplicate(), template.duplicate()
    out = np.empty(X.shape, PETSc.ScalarType)
    for i in range(X.shape[1]):
        x.setArray(X[:, i])
        M.mult(x, y)
        out[:, i] = y.getArray(readonly=True)
    destroy(x, y)
    return out


def check_null_vectors(problem: Problem) -> None:
    """Refuse given null vectors that are none to the error of the matrix, row by row.

    Collective. Those that are zero beside others are left out. Of directions that are projected out whatever the
    matrix says, those that are zero are refused.

    Raises
    ------
    CheckError
        Some are none; by how much, of each.
    """
    if not problem.null:
        return
    sizes = np.array([vector.norm() for vector in problem.null])
    small = sizes <= _TINY * sizes.max()  # what rounding leaves of a rotation about the axis of a linear molecule
    if sizes.max() > 0:
        problem.null = [vector for vector, tiny in zip(problem.null, small, strict=True) if not tiny]
    numbers = np.flatnonzero(~small) if sizes.max() > 0 else np.arange(len(sizes))
    if problem.projected:
        if not sizes.min() > 0:
            raise CheckError(f"direction {int(sizes.argmin())} that is to be projected out is zero")
        return
    judge = _ByRows(problem) if problem.assembled else _ByNorm(problem)
    image, wrong = problem.A.createVecLeft(), []
    error = min(max(_EXACT, _ERRORS * problem.relative_error), _MOST)
    for number, vector in zip(numbers, problem.null, strict=True):
        problem.A.mult(vector, image)
        size = sizes[number]
        part, row = judge(vector, image.getArray(readonly=True), size, error) if size else (np.inf, -1)
        if not size:
            wrong.append(f"null vector {number} is zero")
        elif not part <= error:
            times = (
                f"{part / problem.relative_error:.2g} times the error of the matrix, {problem.relative_error:.0e}"
                if problem.relative_error
                else f"more than {error:.0e}"
            )
            where = f" in row {row}" if row >= 0 else ""
            wrong.append(
                f"null vector {number} is not in the null space: H v is {part:.1e} of |H| |v|{where}, {times}"
            )
    destroy(image)
    if wrong:
        shown = wrong if len(wrong) <= _NAMED else [*wrong[:_NAMED], f"and {len(wrong) - _NAMED} others are none"]
        raise CheckError(
            f"{'; '.join(shown)} (a structure that is held has no rigid motions: leave them out; rotations are "
            "null vectors only where the gradient vanishes: what is given as Objective(projected=…) is projected "
            "out whatever the Hessian says of it)"
        )


class _ByRows:
    """Says how large H v is beside the sum of a row of |H| times the largest |v|, in the worst row.

    Collective to make and to use. What a large row hides is hidden in that row alone.
    """

    def __init__(self, problem: Problem):
        self._layout, self._comm, self._known = problem.layout, problem.comm, problem.entry_errors
        indptr, _, values = problem.A.getValuesCSR()
        rows = np.repeat(np.arange(self._layout.n_local), np.diff(indptr))
        self._sums = np.bincount(rows, np.abs(values), self._layout.n_local)

    def __call__(self, vector: PETSc.Vec, image: np.ndarray, size: float, error: float) -> tuple[float, int]:
        """Return the part that H v is in the worst row, and the number of that. Collective."""
        magnitudes = np.abs(vector.getArray(readonly=True))
        room = self._sums * self._comm.allreduce(float(magnitudes.max(initial=0.0)), MPI.MAX)
        if self._known is not None:  # a row may have nothing but errors
            room += _ERRORS / error * self._known.of_product(magnitudes)
        part = np.divide(np.abs(image), room, out=np.where(image == 0, 0.0, np.inf), where=room > 0)
        part[np.isnan(part)] = np.inf
        here = (float(part.max(initial=0.0)), self._layout.start + int(part.argmax()) if len(part) else -1)
        return max(self._comm.allgather(here))


class _ByNorm:
    """Says how large H v is beside the norms of H and v, where there are products alone."""

    def __init__(self, problem: Problem):
        self._norm, self._comm = problem.norms[0], problem.comm

    def __call__(self, vector: PETSc.Vec, image: np.ndarray, size: float, error: float) -> tuple[float, int]:
        """Return the part that H v is, and -1 for no row. Collective."""
        length = np.sqrt(self._comm.allreduce(float(np.vdot(image, image).real)))
        return (length / (self._norm * size) if self._norm else float(length > 0)), -1


def _summed(comm: MPI.Comm, array: np.ndarray) -> np.ndarray:
    out = np.ascontiguousarray(array)
    comm.Allreduce(MPI.IN_PLACE, out)
    return out


class NullSpace:
    """The span of known null vectors, and the projections off it.

    Collective to make and to use; `close()` destroys what was made here.

    Parameters
    ----------
    basis
        Vecs, orthonormal in the mass; none where nothing is known.
    M
        The mass, None for the identity.

    Attributes
    ----------
    images
        M N, Vecs.
    """

    def __init__(self, basis: list[PETSc.Vec], M: PETSc.Mat | None):
        self.basis, self.images = basis, basis
        if M is not None:
            self.images = [vector.duplicate() for vector in basis]
            for vector, image in zip(basis, self.images, strict=True):
                M.mult(vector, image)
        self._N, self._MN = _block(basis), _block(self.images)

    def __len__(self) -> int:
        """Return the dimension."""
        return len(self.basis)

    def project(self, x: PETSc.Vec) -> None:
        """Replace x by P x. Collective."""
        if self._N is not None and self._MN is not None:
            self._N.multVec(-1.0, 1.0, x, self._MN.dotVec(x))

    def project_image(self, y: PETSc.Vec) -> None:
        """Replace y, an image under A, by Pᵀ y. Collective."""
        if self._N is not None and self._MN is not None:
            self._MN.multVec(-1.0, 1.0, y, self._N.dotVec(y))

    def parts(self, x: PETSc.Vec) -> np.ndarray:
        """Return NᵀM x (m,), the same on every rank. Collective."""
        return np.empty(0) if self._MN is None else np.asarray(self._MN.dotVec(x))

    def project_images(self, Y: np.ndarray) -> np.ndarray:
        """Return Pᵀ Y for local rows (n_local, k) of images under A. Collective."""
        if not self.basis:
            return Y
        N, MN = _rows(self.basis), _rows(self.images)
        part = np.ascontiguousarray(N.conj() @ Y)
        communicator(self.basis[0].comm).Allreduce(MPI.IN_PLACE, part)
        return Y - MN.T @ part

    def project_block(self, X: SLEPc.BV) -> None:
        """Replace the columns of X by P X. Collective."""
        self._apply(X, self._N, self._MN)

    def project_block_image(self, Y: SLEPc.BV) -> None:
        """Replace the columns of Y, images under A, by Pᵀ Y. Collective."""
        self._apply(Y, self._MN, self._N)

    def _apply(self, X: SLEPc.BV, along: SLEPc.BV | None, dual: SLEPc.BV | None) -> None:
        """Replace X by X − along (dualᴴ X)."""
        if along is None or dual is None:
            return
        part = X.dot(dual)  # dualᴴ X
        X.mult(-1.0, 1.0, along, part)
        destroy(part)

    def close(self) -> None:
        """Destroy the images. Collective."""
        destroy(self._N, self._MN, *(() if self.images is self.basis else self.images))
        self._N = self._MN = None
        self.basis = self.images = []


def _block(vectors: list[PETSc.Vec]) -> SLEPc.BV | None:
    """Return a BV with copies of these vectors, None of none."""
    if not vectors:
        return None
    bv = SLEPc.BV().create(vectors[0].comm)
    bv.setSizesFromVec(vectors[0], len(vectors))
    bv.setType("svec")
    bv.insertVecs(0, vectors, orth=False)
    return bv


def _rows(vectors: list[PETSc.Vec]) -> np.ndarray:
    """Return the local parts of vectors as rows (m, n_local)."""
    return np.stack([vector.getArray(readonly=True) for vector in vectors])


class ProjectedProduct:
    """What PETSc calls for PᵀAP."""

    def __init__(self, A: PETSc.Mat, space: NullSpace):
        self._A, self._space = A, space
        self._work = A.createVecRight()

    @called_back
    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Multiply a vector. Collective."""
        x.copy(self._work)
        self._space.project(self._work)
        self._A.mult(self._work, y)
        self._space.project_image(y)

    multTranspose = mult  # the name is PETSc's

    @called_back
    def getDiagonal(self, mat: PETSc.Mat, out: PETSc.Vec) -> None:
        """Return the diagonal of A: of a preconditioner's use only. Collective."""
        self._A.getDiagonal(out)

    def destroy(self, mat: PETSc.Mat) -> None:
        """Destroy what products need. Collective."""
        destroy(self._work)


def projected(A: PETSc.Mat, space: NullSpace) -> PETSc.Mat:
    """Return the matrix PᵀAP, of which there are products alone; A itself where nothing is known.

    Collective. The caller destroys it unless it is A.
    """
    if not space.basis:
        return A
    matrix = PETSc.Mat().createPython(A.getSizes(), ProjectedProduct(A, space), comm=A.comm)
    matrix.setOption(PETSc.Mat.Option.HERMITIAN, True)
    matrix.setUp()
    return matrix
