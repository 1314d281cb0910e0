"""Rayleigh-Ritz on converged vectors: eigenvalues as good as the vectors allow, orthogonal clusters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sparsehess.eigen.problem import slepc_blocks
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.runtime import PETSc, SLEPc, destroy, on_root

# A vector with less of its size in the mass than this belongs to an infinite eigenvalue.
_MASSLESS = 1e-10

# Directions of the span that are weaker than this are copies of others.
_COPY = 1e-10


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
    """

    values: np.ndarray
    vectors: list[PETSc.Vec]
    residuals: np.ndarray
    orthogonality: float

    def select(self, chosen: np.ndarray) -> RitzPairs:
        """Return the pairs of a mask (m,), and destroy the vectors of the others. Collective."""
        destroy(*(vector for vector, kept in zip(self.vectors, chosen, strict=True) if not kept))
        vectors = [vector for vector, kept in zip(self.vectors, chosen, strict=True) if kept]
        return RitzPairs(self.values[chosen], vectors, self.residuals[chosen], self.orthogonality)


def rayleigh_ritz(problem: EigenProblem, vectors: list[PETSc.Vec]) -> RitzPairs:
    """Return the Ritz pairs of the span of some vectors.

    Collective. Takes over the vectors: those returned replace them. The error of an eigenvalue is
    quadratic in that of its vector (Parlett 1998, section 11.4), so one step after shift-and-invert
    brings clusters to working accuracy.
    """
    if not vectors:
        return RitzPairs(np.empty(0), [], np.empty(0), 0.0)
    X = slepc_blocks.block(problem, vectors)
    destroy(*vectors)
    _project_out_null(problem, X)
    AX, MX = slepc_blocks.images(problem, X)
    G, S, sizes = slepc_blocks.gram(MX, X), slepc_blocks.gram(AX, X), np.diag(slepc_blocks.gram(X, X)).real
    values, Q = on_root(problem.comm, _reduced_pencil, problem.mass_diagonal[0], G, S, sizes)
    m = Q.shape[1]
    _rotate({id(b): b for b in (X, AX, MX)}.values(), Q)
    errors = slepc_blocks.residuals(problem, values, X, AX, MX)
    orthogonality = float(np.abs(slepc_blocks.gram(MX, X) - np.eye(m)).max(initial=0.0)) if m else 0.0
    out = []
    for i in range(m):
        column = X.getColumn(i)
        vector = column.duplicate()
        column.copy(vector)
        X.restoreColumn(i, column)
        out.append(vector)
    destroy(AX, None if MX is X else MX, X)
    return RitzPairs(values, out, errors, orthogonality)


def _project_out_null(problem: EigenProblem, X: SLEPc.BV) -> None:
    """Take the known null vectors out of X, M-orthogonally: a solve near them amplifies what is left."""
    if not problem.null:
        return
    N = slepc_blocks.block(problem, problem.null)
    MN = N if problem.M is None else N.matMult(problem.M)
    G, C = slepc_blocks.gram(MN, N), slepc_blocks.gram(X, MN)
    matrix = _dense(np.linalg.solve(G, C))
    X.mult(-1.0, 1.0, N, matrix)
    destroy(matrix, None if MN is N else MN, N)


def _reduced_pencil(mass: float, G: np.ndarray, S: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (values, Q) with QᵀGQ = I and QᵀSQ diagonal, massless and copied directions left out."""
    slepc_blocks.require_finite(G)
    slepc_blocks.require_finite(S)
    keep = np.flatnonzero(np.diag(G).real > _MASSLESS * mass * sizes)
    G, S = G[np.ix_(keep, keep)], S[np.ix_(keep, keep)]
    scale = 1 / np.sqrt(np.diag(G).real)
    weights, V = np.linalg.eigh(scale[:, None] * (G + G.conj().T) / 2 * scale)
    strong = weights > _COPY
    W = scale[:, None] * V[:, strong] / np.sqrt(weights[strong])
    # NumPy's divides and conquers; SciPy's leaves vectors of clusters a hundred times less orthogonal.
    values, Z = np.linalg.eigh(W.conj().T @ (S + S.conj().T) / 2 @ W)
    Q = np.zeros((len(sizes), len(values)), Z.dtype)
    Q[keep] = W @ Z
    return values, Q


def _rotate(bvs: Iterable[SLEPc.BV], Q: np.ndarray) -> None:
    """Replace each BV by BV Q, and have its first columns active."""
    square = np.zeros((Q.shape[0],) * 2, Q.dtype)
    square[:, : Q.shape[1]] = Q
    matrix = _dense(square)
    for bv in bvs:
        bv.multInPlace(matrix, 0, square.shape[0])
        bv.setActiveColumns(0, Q.shape[1])
    matrix.destroy()


def _dense(array: np.ndarray) -> PETSc.Mat:
    matrix = PETSc.Mat().createDense(array.shape, array=np.asfortranarray(array), comm=PETSc.COMM_SELF)
    matrix.assemble()
    return matrix
