"""Rayleigh-Ritz on converged vectors: eigenvalues as good as the vectors allow, orthogonal clusters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sparsehess.eigen.problem import slepc_blocks
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solver_errors import Leftovers
from sparsehess.runtime import PETSc, SLEPc, destroy, on_root

# A vector whose mass is the cancelled rest of terms that are larger by this belongs to an infinite eigenvalue.
_MASSLESS = 1e-12

# So many times larger λ M x may be than H x, and this part of what H x could be: else x is no eigenvector at all.
_APART, _FAINT = 1e3, 1e-6

# Vectors whose reach differs by more than this are not rotated among each other.
_GRADED = 1e4

# Parts of an eigenvalue, and of what the last digits of entries move it by, within which a count takes it for
# equal.
_RELATIVE, ROUNDING = 5e-10, 1.5e3

# What is left of a vector beside known ones, as a part of it, for it to be more than a copy of them; and what of
# them in it is rounding.
_REMAINDER, _ORTHOGONAL = 1e-4, 1e-6

# Directions of the span that are weaker than this are copies of others.
_COPY = 1e-10


_EPS = float(np.finfo(float).eps)


class RitzPairs(NamedTuple):
    """Ritz pairs of a span of vectors.

    Attributes
    ----------
    values
        (m,) ascending, the same on every rank.
    vectors
        m Vecs, M-orthonormal.
    residuals
        (m,) backward errors.
    orthogonality
        Largest |XᵀMX − I|.
    resolutions
        (m,) how far the last digits of the entries of A and M can move each eigenvalue, to first order:
        ε Σ (aᵢ + |λ| mᵢ) |xᵢ|² / xᵀMx with aᵢ and mᵢ the sums of the rows of |A| and |M|. The units of variables
        do not matter.
    left
        What is left of them, None where that was not asked for.
    """

    values: np.ndarray
    vectors: list[PETSc.Vec]
    residuals: np.ndarray
    orthogonality: float
    resolutions: np.ndarray
    left: Leftovers | None = None

    @classmethod
    def none(cls) -> RitzPairs:
        """Return no pairs. Not collective."""
        return cls(np.empty(0), [], np.empty(0), 0.0, np.empty(0), Leftovers.none())

    @property
    def leftovers(self) -> Leftovers:
        """What is left of them, of norms that are not known where nobody asked."""
        m = len(self.values)
        return Leftovers(*np.full((4, m), np.inf)) if self.left is None else self.left

    @property
    def blur(self) -> np.ndarray:
        """(m,) distance from each eigenvalue within which a count cannot tell others from it."""
        return np.maximum(_RELATIVE * np.abs(self.values), ROUNDING * self.resolutions)

    def select(self, chosen: np.ndarray) -> RitzPairs:
        """Return the pairs of a mask (m,), and destroy the vectors of the others. Collective."""
        destroy(*(vector for vector, kept in zip(self.vectors, chosen, strict=True) if not kept))
        vectors = [vector for vector, kept in zip(self.vectors, chosen, strict=True) if kept]
        return RitzPairs(
            self.values[chosen],
            vectors,
            self.residuals[chosen],
            self.orthogonality,
            self.resolutions[chosen],
            None if self.left is None else self.left.select(chosen),
        )


def rayleigh_ritz(problem: EigenProblem, vectors: list[PETSc.Vec]) -> RitzPairs:
    """Return the Ritz pairs of the span of some vectors.

    Collective. Takes over the vectors: those returned replace them. The error of an eigenvalue is
    quadratic in that of its vector (Parlett 1998, section 11.4), so one step after shift-and-invert
    brings clusters to working accuracy.
    """
    if not vectors:
        return RitzPairs.none()
    X = slepc_blocks.block(problem, vectors)
    destroy(*vectors)
    problem.null_space.project_block(X)  # a solve near null vectors amplifies what is left of them
    AX, MX = slepc_blocks.images(problem, X)
    G, S = slepc_blocks.gram(MX, X), slepc_blocks.gram(AX, X)
    values, Q = on_root(problem.comm, _reduced_pencil, G, S, _reach(problem, G, S, X, AX, MX))
    m = Q.shape[1]
    _rotate({id(b): b for b in (X, AX, MX)}.values(), Q)
    errors, norms = slepc_blocks.residual_norms(problem, values, X, AX, MX)
    orthogonality = float(np.abs(slepc_blocks.gram(MX, X) - np.eye(m)).max(initial=0.0)) if m else 0.0
    of_a, of_m = slepc_blocks.row_moments(problem, X)
    resolutions = _EPS * (of_a + np.abs(values) * of_m)
    left = Leftovers.of(norms, slepc_blocks.gram(AX, X), resolutions) if m else Leftovers.none()
    out = []
    for i in range(m):
        column = X.getColumn(i)
        vector = column.duplicate()
        column.copy(vector)
        X.restoreColumn(i, column)
        out.append(vector)
    destroy(AX, None if MX is X else MX, X)
    return RitzPairs(values, out, errors, orthogonality, resolutions, left)


def project_out(problem: EigenProblem, vectors: list[PETSc.Vec], away: Sequence[PETSc.Vec]) -> list[PETSc.Vec]:
    """Take the directions of some M-orthonormal vectors out of others, in place, and return those.

    Collective. Twice, which leaves rounding of the result alone.
    """
    image = problem.A.createVecRight()
    for one in away:
        if problem.M is None:
            one.copy(image)
        else:
            problem.M.mult(one, image)
        size = image.dot(one).real
        for _ in range(2):
            for vector in vectors:
                vector.axpy(-vector.dot(image) / size, one)
    destroy(image)
    return vectors


def without_copies(problem: EigenProblem, vectors: list[PETSc.Vec], away: Sequence[PETSc.Vec]) -> list[PETSc.Vec]:
    """Return those of some vectors that are not in the span of M-orthonormal others, orthogonal to them.

    Collective. The rest is destroyed. What a solve finds where there is nothing but zero beside what it was to
    stay away from, is that once more: rounding of its products lies along the largest eigenvectors. A
    Rayleigh-Ritz step with such vectors would take digits from those that are known.
    """
    if not (away and vectors):
        return vectors
    image, kept, mixed = problem.A.createVecRight(), [], []
    for vector in vectors:
        if problem.M is None:
            vector.copy(image)
        else:
            problem.M.mult(vector, image)
        size = abs(image.dot(vector))
        known = sum(abs(image.dot(one)) ** 2 for one in away)
        kept.append(not size > 0 or size - known > _REMAINDER**2 * size)
        if kept[-1] and known > _ORTHOGONAL**2 * size:
            mixed.append(vector)
    project_out(problem, mixed, away)
    destroy(image, *(vector for vector, stays in zip(vectors, kept, strict=True) if not stays))
    return [vector for vector, stays in zip(vectors, kept, strict=True) if stays]


def _reach(
    problem: EigenProblem, G: np.ndarray, S: np.ndarray, X: SLEPc.BV, AX: SLEPc.BV, MX: SLEPc.BV
) -> np.ndarray:
    """Return (m,) Σ aᵢ |xᵢ|² / xᵀMx of vectors, nan of those that belong to no finite eigenvalue. Collective."""
    masses, energies = np.diag(G).real, np.diag(S).real
    of_a, of_m = slepc_blocks.row_moments(problem, X)
    massive = masses > _MASSLESS * of_m
    # |λ| ‖Mx‖ against ‖Ax‖, without a division.
    forces = slepc_blocks.norms(AX) + _FAINT * problem.norms[0] * slepc_blocks.norms(X)
    finite = massive & (np.abs(energies) * slepc_blocks.norms(MX) <= _APART * masses * forces)
    return np.where(finite, of_a / np.where(finite, masses, 1.0), np.nan)


def _reduced_pencil(G: np.ndarray, S: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (values, Q) with QᵀGQ = I and QᵀSQ diagonal, massless and copied directions left out.

    An eigenvalue is known to a part of its vector's reach: vectors of far smaller reach are not rotated with it,
    and lose no digits.
    """
    slepc_blocks.require_finite(G)
    slepc_blocks.require_finite(S)
    keep = np.flatnonzero(np.isfinite(reach))
    keep = keep[np.argsort(reach[keep], kind="stable")]
    apart = reach[keep[1:]] > _GRADED * reach[keep[:-1]]
    parts = []
    for group in np.split(keep, np.flatnonzero(apart) + 1):
        if len(group):
            parts.append((group, *_rotation(G[np.ix_(group, group)], S[np.ix_(group, group)])))
    values = np.concatenate([np.empty(0), *(part[1] for part in parts)])
    Q = np.zeros((len(G), len(values)), G.dtype)
    place = 0
    for group, small, rotation in parts:
        Q[group, place : place + len(small)] = rotation
        place += len(small)
    ascending = np.argsort(values, kind="stable")
    return values[ascending], Q[:, ascending]


def _rotation(G: np.ndarray, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (values, Q) with QᵀGQ = I and QᵀSQ diagonal, copies left out."""
    scale = 1 / np.sqrt(np.diag(G).real)
    weights, V = np.linalg.eigh(scale[:, None] * (G + G.conj().T) / 2 * scale)
    strong = weights > _COPY
    W = scale[:, None] * V[:, strong] / np.sqrt(weights[strong])
    # NumPy's divides and conquers; SciPy's leaves vectors of clusters a hundred times less orthogonal.
    values, Z = np.linalg.eigh(W.conj().T @ (S + S.conj().T) / 2 @ W)
    return values, W @ Z


def _rotate(bvs: Iterable[SLEPc.BV], Q: np.ndarray) -> None:
    """Replace each BV by BV Q, and have its first columns active."""
    square = np.zeros((Q.shape[0],) * 2, Q.dtype)
    square[:, : Q.shape[1]] = Q
    matrix = _dense(square)
    for bv in bvs:
        bv.multInPlace(matrix, 0, square.shape[0])
        bv.setActiveColumns(0, Q.shape[1])
    destroy(matrix)


def _dense(array: np.ndarray) -> PETSc.Mat:
    matrix = PETSc.Mat().createDense(array.shape, array=np.asfortranarray(array), comm=PETSc.COMM_SELF)
    matrix.assemble()
    return matrix
