"""Residuals of pairs of a Krylov space by four products: what they say is never less than what is so."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.eigen.problem.krylov_pairs import PRODUCTS, krylov_pairs, pays
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.runtime import destroy
from tests.support.counted_products import KINDS, diagonal, like_a_network

pytestmark = pytest.mark.parallel([1, 2, 3])


def measured(mat, values, vectors, size):
    """Return backward errors, a product for each."""
    image, errors = mat.createVecLeft(), []
    for value, vector in zip(values, vectors, strict=True):
        mat.mult(vector, image)
        image.axpy(-value, vector)
        errors.append(image.norm() / (size + abs(value)))
    image.destroy()
    return np.array(errors)


def pairs_of(mat, seed, **asked):
    found = sh.eigs(mat, 10, which="magnitude", count="no", seed=seed, **asked)
    return found.eigenvalues, found.vectors, found.residuals


def test_they_bound_what_is_measured(comm):
    for seed in range(30):
        spectrum = like_a_network(KINDS[seed % len(KINDS)], seed)
        mat, context = diagonal(spectrum, comm)
        values, vectors, told = pairs_of(mat, seed)
        so = measured(mat, values, vectors, np.abs(spectrum).max())
        assert (so <= told + 1e-15).all() and told.max() <= 1e-8
        gram = [[a.dot(b) for a in vectors] for b in vectors]
        assert np.abs(np.array(gram) - np.eye(10)).max() < 1e-12
        context.products = 0
        with EigenProblem.of(mat) as problem:
            problem.note_reach((spectrum.min(), spectrum.max()))
            again = krylov_pairs(problem, vectors, 1e-8, 1)
        assert context.products == 2 + PRODUCTS
        assert again is not None and again.values == pytest.approx(values, abs=1e-13)
        destroy(*vectors, mat)


def test_what_is_disturbed_is_told_or_refused(comm):
    """Any one of the vectors, by any size: the bound holds, or nothing is said; seldom too little of it."""
    spectrum = like_a_network("twice", 4)
    mat, _ = diagonal(spectrum, comm)
    _, vectors, _ = pairs_of(mat, 0)
    first, last = mat.getOwnershipRange()
    said = refused = 0
    with EigenProblem.of(mat) as problem:
        problem.note_reach((spectrum.min(), spectrum.max()))
        for seed in range(200):
            draw = np.random.default_rng(seed)
            size, place = 10.0 ** draw.uniform(-15, -3), draw.integers(10)
            kept = vectors[place].copy()
            vectors[place].getArray()[:] += size * draw.standard_normal(len(spectrum))[first:last] / 50
            for other in (*vectors[:place], *vectors[place + 1 :]):
                vectors[place].axpy(-vectors[place].dot(other), other)
            vectors[place].normalize()
            pairs = krylov_pairs(problem, list(vectors), 1e-8, seed)
            if pairs is None:
                refused += 1
            else:
                said += 1
                so = measured(mat, pairs.values, pairs.vectors, np.abs(spectrum).max())
                assert (so <= pairs.residuals + 1e-15).all()
            kept.copy(vectors[place])
            kept.destroy()
    assert said > 30 and refused > 30
    destroy(*vectors, mat)


def test_vectors_that_are_no_eigenvectors_or_not_orthonormal_are_refused(comm):
    mat, _ = diagonal(np.linspace(1, 2, 400), comm)
    first, last = mat.getOwnershipRange()
    draw = np.random.default_rng(0)
    arrays = np.linalg.qr(draw.standard_normal((400, 8)))[0]
    with EigenProblem.of(mat) as problem:
        for columns in (arrays, np.eye(400)[:, [1, 1, 2, 3, 4, 5]]):
            vectors = []
            for column in columns.T:
                vectors.append(mat.createVecRight())
                vectors[-1].setArray(column[first:last])
            assert krylov_pairs(problem, vectors, 1e-8, 0) is None
            destroy(*vectors)
    mat.destroy()


def test_products_that_are_not_so_exact_are_asked_for_each_pair(comm):
    mat, _ = diagonal(np.linspace(1, 2, 400), comm)
    with EigenProblem.of(mat) as problem:
        assert pays(problem, 10, 1e-8) and not pays(problem, PRODUCTS, 1e-8)
        problem.relative_error = 1e-9
        assert not pays(problem, 10, 1e-8)
    mat.destroy()


def test_what_is_solved_beyond_what_products_tell_is_judged_pair_by_pair(comm):
    spectrum = like_a_network("decay", 1)
    mat, _ = diagonal(spectrum, comm)
    values, vectors, told = pairs_of(mat, 0, tol=1e-13)
    so = measured(mat, values, vectors, np.abs(spectrum).max())
    assert told.max() <= 1e-13 and (so <= told + 1e-15).all()
    destroy(*vectors, mat)
