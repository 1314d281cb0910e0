"""Eigenpairs of a complex Hermitian matrix, chosen out of those of its real form, where each stands twice."""

from __future__ import annotations

import itertools
from dataclasses import replace

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.count import Count
from sparsehess.eigen.problem.hermitian_problem import complex_rows
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.slepc_blocks import block, images, residual_norms, row_moments
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.solver_errors import Leftovers, solver_errors
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, destroy, on_root

# Eigenvalues are taken together that lie within this part of them, or so many roundings of entries.
_TOGETHER, _ROUNDINGS = 1e-4, 1e3

# What is left of a vector beside chosen ones, squared, for it to be another: where enough are chosen, and before.
_CLEAR, _LEFT = 0.05, 1e-6

# What is said of how it was solved.
_OTHER = "; by the real symmetric matrix of twice the size"


def doubled_spec(problem: EigenProblem, spec: SolveSpec) -> SolveSpec:
    """Return what is to be asked of the real form: twice as many pairs. Not collective."""
    if spec.k is None:
        return spec
    rows = problem.n // 2
    if spec.k > rows:
        raise InputError(f"k={spec.k} eigenpairs of a matrix with {rows} rows: ask for at most {rows}")
    return replace(spec, k=2 * spec.k)


def one_of_each(problem: EigenProblem, spec: SolveSpec, found: Spectrum) -> Spectrum:
    """Return the spectrum of a Hermitian matrix from that of its real form, whose vectors it takes over.

    Collective. The vectors x = u + iv of an eigenvalue of multiplicity d span d dimensions, and there are 2d of
    them: one after the other is chosen, the one of which most is left beside those before (a pivoted Cholesky
    factorization of XᴴMX). A Rayleigh-Ritz step then makes eigenvectors of them where eigenvalues are close.

    Parameters
    ----------
    spec
        What was asked for of the Hermitian matrix.
    """
    values, vectors = _chosen(problem, spec, found)
    scaled = problem.equilibrated
    errors, bars, orthogonality = np.empty(0), np.empty(0), 0.0
    count = None if found.count is None else halved(problem, found.count, len(found.eigenvalues), len(values))
    if vectors:
        copies = problem.scale_vectors(vectors)
        X = block(scaled, copies)
        AX, MX = images(scaled, X)
        errors, norms = residual_norms(scaled, np.ldexp(values, -problem.power), X, AX, MX)
        roundings = np.finfo(float).eps * np.ldexp(row_moments(scaled, X)[0], problem.power)
        destroy(AX, None if MX is X else MX, X, *copies)
        S = _products(problem, _columns(vectors), _columns_of_images(problem.A, vectors))
        left = Leftovers.of(norms, S, roundings, problem.power)
        bars = solver_errors(values, left, count, len(problem.null) // 2)
        G = _products(problem, _columns(vectors), _columns_of_images(problem.M, vectors))
        orthogonality = float(np.abs(G - np.eye(len(vectors))).max())
    advice = found.advice
    if not (errors <= max(found.held_to, spec.tol)).all() and not advice:
        advice = "one vector of each pair is less exact than was asked for: give a smaller tolerance"
    return replace(
        found,
        eigenvalues=values,
        vectors=vectors,
        residuals=errors,
        orthogonality=orthogonality,
        count=count,
        asked=(found.asked + 1) // 2,
        advice=advice,
        others=np.sort(found.others)[::2],
        reason=f"{found.reason}{_OTHER}",
        real_form=True,
        solver_errors=bars,
    )


def halved(problem: EigenProblem, count: Count, pairs: int, chosen: int) -> Count:
    """Return the count of the Hermitian matrix from that of its real form, of which `pairs` were found.

    Not collective. `chosen` of these pairs stand for all. Of a certified one all that were chosen lie in the
    interval; the rest of it was not asked for.
    """
    pieces = tuple((low, high, many // 2, found // 2) for low, high, many, found in count.unresolved)
    inertia, found = count.inertia // 2, count.found // 2
    halves = replace(count, inertia=inertia, found=found, group=count.group // 2, unresolved=pieces)
    found = chosen + len(problem.null) // 2
    if not (count.certified and count.inertia % 2 == 0 and 2 * chosen == pairs and found <= inertia):
        return replace(halves, certified=False)
    return replace(halves, found=found, group=inertia - found)


def _chosen(problem: EigenProblem, spec: SolveSpec, found: Spectrum) -> tuple[np.ndarray, list[PETSc.Vec]]:
    """Return eigenvalues, ascending, and M-orthonormal complex vectors, of what spans those of the real form.

    Collective. The vectors that were found are destroyed.
    """
    if not found.vectors:
        return np.empty(0), []
    W = _columns(found.vectors)
    images_m = _columns_of_images(problem.M, found.vectors)
    images_a = _columns_of_images(problem.A, found.vectors)
    G, S = _products(problem, W, images_m), _products(problem, W, images_a)
    roundings = found.roundings if len(found.roundings) else np.zeros(len(found.eigenvalues))
    values, T = on_root(problem.comm, _one_of_each, found.eigenvalues, roundings, G, S)
    if spec.k is not None and len(values) > spec.k:
        # Of a multiple eigenvalue at the end more may be spanned than were asked for.
        nearest = np.argsort(_distance(spec, values), kind="stable")[: spec.k]
        nearest.sort()
        values, T = values[nearest], T[:, nearest]
    vectors = []
    for column in (W @ T).T:
        vectors.append(found.vectors[0].duplicate())
        vectors[-1].setArray(np.ascontiguousarray(column).view(np.float64))
    destroy(*found.vectors)
    found.vectors.clear()
    return values, vectors


def _distance(spec: SolveSpec, values: np.ndarray) -> np.ndarray:
    """Return (m,) by what eigenvalues are chosen, the least first."""
    if spec.target is not None:
        return np.abs(values - spec.target)
    return {"largest": -values, "magnitude": -np.abs(values)}.get(spec.which, values)


def _one_of_each(
    values: np.ndarray, roundings: np.ndarray, G: np.ndarray, S: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (r,) Ritz values, ascending, and (m, r) coefficients of their vectors, from XᴴMX and XᴴAX."""
    near = _TOGETHER * np.abs(values) + _ROUNDINGS * roundings
    apart = np.diff(values) > np.maximum(near[1:], near[:-1])
    ends = [0, *(np.flatnonzero(apart) + 1), len(values)]
    found, T = [], []
    for first, last in itertools.pairwise(ends):
        here = slice(first, last)
        basis = _basis(G[here, here])
        reduced = basis.conj().T @ S[here, here] @ basis
        ritz, rotation = np.linalg.eigh((reduced + reduced.conj().T) / 2)
        coefficients = np.zeros((len(values), len(ritz)), complex)
        coefficients[here] = basis @ rotation
        found.append(ritz)
        T.append(coefficients)
    ritz, coefficients = np.concatenate(found), np.hstack(T)
    order = np.argsort(ritz, kind="stable")
    return ritz[order], _orthonormal(coefficients[:, order], G)


def _orthonormal(coefficients: np.ndarray, G: np.ndarray) -> np.ndarray:
    """Return the nearest coefficients (m, r) of orthonormal vectors, by those with the Gram matrix G (m, m).

    Vectors of different eigenvalues are orthogonal as real ones alone, and as complex ones to rounding of the
    matrix over the gap: what is shared here (Löwdin 1950) changes residuals by no more than about that rounding.
    """
    overlaps = coefficients.conj().T @ G @ coefficients
    weights, rotation = np.linalg.eigh((overlaps + overlaps.conj().T) / 2)
    if not weights[0] > 0.5:  # no rounding: the orthogonality tells of it
        return coefficients
    return coefficients @ ((rotation / np.sqrt(weights)) @ rotation.conj().T)


def _basis(G: np.ndarray) -> np.ndarray:
    """Return (m, r) coefficients of orthonormal vectors that span those with the Gram matrix G (m, m).

    A factorization of Cholesky with pivots: of 2d vectors, orthonormal as real ones, the largest rest beside j
    chosen ones is at least (d − j)/d.
    """
    m = len(G)
    left, picks = G.astype(complex), []
    for chosen in range(m):
        rests = np.diag(left).real
        best = int(rests.argmax())
        if not rests[best] > (_CLEAR if 2 * chosen >= m else _LEFT):
            break
        picks.append(best)
        left = left - np.outer(left[:, best], left[best]) / rests[best]
    factor = np.linalg.cholesky((G[np.ix_(picks, picks)] + G[np.ix_(picks, picks)].conj().T) / 2)
    basis = np.zeros((m, len(picks)), complex)
    basis[picks] = np.linalg.inv(factor).conj().T
    return basis


def _columns(vectors: list[PETSc.Vec]) -> np.ndarray:
    """Return the own rows (n_local, m), complex, of vectors of parts in turn. Not collective."""
    return np.column_stack([complex_rows(vector) for vector in vectors])


def _columns_of_images(matrix: PETSc.Mat | None, vectors: list[PETSc.Vec]) -> np.ndarray:
    """Return the own rows (n_local, m), complex, of a matrix times vectors; None for the identity. Collective."""
    if matrix is None:
        return _columns(vectors)
    image, columns = matrix.createVecLeft(), []
    for vector in vectors:
        matrix.mult(vector, image)
        columns.append(complex_rows(image))
    destroy(image)
    return np.column_stack(columns)


def _products(problem: EigenProblem, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return leftᴴ right of own rows, summed over ranks. Collective."""
    sums = left.conj().T @ right
    problem.comm.Allreduce(MPI.IN_PLACE, sums)
    return sums
