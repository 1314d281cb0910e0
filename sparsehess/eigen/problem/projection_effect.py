"""What projecting directions out has changed in eigenvalues: by Rayleigh-Ritz on these and the eigenvectors."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.projection import Projection
from sparsehess.runtime import PETSc, destroy, on_root


def effect_of_projection(problem: EigenProblem, values: np.ndarray, vectors: list[PETSc.Vec]) -> Projection | None:
    """Return what projection has changed, None where nothing was projected out but checked null vectors.

    Collective. Costs a product with A for each direction. On the span of N and the eigenvectors X, A is
    [[Λ, XᵀAN], [NᵀAX, NᵀAN]]; an eigenvalue of PᵀAP goes over into that whose vector holds most of its own.

    Parameters
    ----------
    values, vectors
        Eigenpairs of PᵀAP, M-orthonormal, orthogonal to N in the mass.
    """
    if not (problem.projected and problem.null):
        return None
    image, k = problem.A.createVecLeft(), len(vectors)
    parts = np.empty((k + len(problem.null), len(problem.null)))
    for j, direction in enumerate(problem.null):
        problem.A.mult(direction, image)
        here = image.getArray(readonly=True)
        parts[:, j] = [vector.getArray(readonly=True) @ here for vector in (*vectors, *problem.null)]
    destroy(image)
    problem.comm.Allreduce(MPI.IN_PLACE, parts)
    C, S = parts[:k], (parts[k:] + parts[k:].T) / 2
    resisted, moved = on_root(problem.comm, _without_projection, values, C, S)
    return Projection(resisted, np.linalg.norm(C, axis=1), moved, whole=k + len(problem.null) == problem.finite)


def _without_projection(values: np.ndarray, C: np.ndarray, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of S, and by how much those of the whole differ from `values`."""
    k = len(values)
    whole, vectors = np.linalg.eigh(np.block([[np.diag(values), C], [C.T, S]]))
    followed = np.abs(vectors[:k]).argmax(axis=1)
    return np.linalg.eigvalsh(S), whole[followed] - values
