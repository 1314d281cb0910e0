"""The lowest curvature: its sign as soon as that is decided, its direction, and the condition number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem, slepc_tolerance
from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.whole_matrix import is_cheaper_whole, whole_problem
from sparsehess.eigen.solvers.eigs import shortfall, solve
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.method_choice import products_spent
from sparsehess.errors import InputError, NotConverged
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.short_repr import ShortRepr

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.operators.matrix_like import MatrixLike, VectorsLike

# Basis vectors beyond those that SLEPc takes: the end of a spectrum where eigenvalues crowd needs them.
_WIDER = 40

# SLEPc's tolerances, one after another, until the sign is decided.
_LADDER = 10.0 ** -np.arange(1, 13)


@dataclass(frozen=True, eq=False, repr=False)
class Curvature(ShortRepr):
    """The lowest eigenvalue as far as it takes to know its sign.

    *Not collective.* Made by `curvature`; the numbers are the same on every rank.

    Attributes
    ----------
    value, error
        Rayleigh quotient of the direction, and how far an eigenvalue may be from it; with the error bar of the
        matrix, where its error is known.
    sign
        -1, 0 (to the accuracy of the matrix) or 1.
    certified
        Whether the sign is proven: a negative quotient is a proof, a positive one is none; there only a count is.
    direction
        Of norm 1 in the mass; the caller destroys it.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> lowest = sh.curvature(np.diag([-2.0, 1.0, 3.0]))
    >>> print(lowest.sign, lowest.certified, round(lowest.value, 6))
    -1 True -2.0
    >>> print(np.round(np.abs(lowest.direction.getArray()), 6))
    [1. 0. 0.]
    """

    value: float
    error: float
    sign: int
    certified: bool
    direction: PETSc.Vec

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{self.value:.6g} ± {self.error:.1g}"
        sign = {-1: "negative", 0: "zero", 1: "positive"}[self.sign]
        yield f"{sign}, {'certified' if self.certified else 'not certified'}"


def curvature(
    matrix: MatrixLike | EigenProblem,
    *,
    mass: MatrixLike | None = None,
    nullspace: VectorsLike | None = None,
    comm: MPI.Comm | None = None,
    seed: int = 0,
) -> Curvature:
    """Find the sign of the lowest eigenvalue of H x = λ x, or H x = λ M x, and a direction of that curvature.

    *Collective.* Assembled matrices by shift-and-invert, with the count that certifies it; so small shells, which
    as many products as they have rows make whole. Structured Hessians that tell their eigenpairs are asked. Others
    by products: the search ends as soon as a quotient is below zero, and not before the quotient less its error is
    above.

    Parameters
    ----------
    matrix, mass, nullspace, comm
        As for `eigs`, or an `EigenProblem`; null vectors are left out.
    seed
        Of the starting vector.

    Returns
    -------
    Curvature
        With a direction that the caller destroys.

    Raises
    ------
    NotConverged
        Neither sign is decided.
    InputError
        The matrix, or its mass, is not symmetric, or they do not fit each other.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> sh.curvature(np.diag([0.5, 1.0, 3.0])).sign
    1
    """
    if isinstance(matrix, EigenProblem):
        return _decided(matrix, seed)
    with EigenProblem.of(matrix, mass=mass, nullspace=nullspace, comm=comm) as problem:
        return _decided(problem, seed)


def _decided(problem: EigenProblem, seed: int) -> Curvature:
    if _pays_whole(problem):
        with whole_problem(problem) as whole:
            return _beside_rows(problem, _decided(whole, seed))
    if problem.told.knows_pairs or not problem.uncounted:
        spectrum = solve(problem, SolveSpec(k=1, seed=seed))
        error = shortfall(spectrum)
        if error is not None:
            spectrum.close()
            raise error
        value = float(spectrum.eigenvalues[0])
        counted = spectrum.count is not None and spectrum.count.certified
        sign, direction = 0 if spectrum.zero[0] else int(np.sign(value)), spectrum.vectors[0]
        if sign < 0 and not _quotient(problem, direction) < 0:  # the proof is made afresh
            sign, counted = 0, False
        counted = counted and not (sign > 0 and value <= spectrum.total_errors[0])
        residual = _error(problem, value, float(spectrum.residuals[0]), direction)
        residual += 0.0 if spectrum.errors is None else float(spectrum.errors[0])
        return _beside_rows(problem, Curvature(value, residual, sign, counted or sign < 0, direction))
    found: list[PETSc.Vec] = []
    for tol in _LADDER:
        if found and tol < slepc_tolerance(problem, 1e-10):
            break
        solver = KrylovSchur(problem, False, {}, tol=tol)
        try:
            fresh = solver.solve("smallest", 1, seed=seed, guess=found, wider=_WIDER)
        finally:
            solver.close()
        if not fresh:
            continue
        destroy(*found)
        values, found, errors, *_ = rayleigh_ritz(problem, fresh)
        destroy(*found[1:])
        del found[1:]
        value = float(values[0])
        residual = _error(problem, value, float(errors[0]), found[0])
        if value < -problem.zero or value - residual > problem.zero or residual == 0.0:
            sign = _decided_sign(problem, value)
            return Curvature(value, residual, sign, sign < 0, found[0])
    if found and abs(value) <= problem.zero:
        return Curvature(value, residual, 0, False, found[0])
    destroy(*found)
    raise NotConverged("the sign of the lowest eigenvalue is not decided: assemble the Hessian, for a count")


def _beside_rows(problem: EigenProblem, found: Curvature) -> Curvature:
    """Return what was found, with the sign that a structure tells where it is zero to the matrix as a whole.

    Collective. Each row is judged beside itself there.
    """
    if found.sign or not problem.told.knows_signs:
        return found
    signs = problem.told.inertia()
    sign = -1 if signs.negative else int(not signs.zero)
    return replace(found, sign=sign, certified=signs.certified)


def _quotient(problem: EigenProblem, x: PETSc.Vec) -> float:
    """Return xᴴHx. Collective."""
    image = problem.A.createVecLeft()
    problem.A.mult(x, image)
    found = float(np.real(image.dot(x)))
    destroy(image)
    return found


def _pays_whole(problem: EigenProblem) -> bool:
    """Return whether all of a shell costs no more products than a search. Not collective."""
    if problem.assembled or problem.told.knows_pairs:
        return False
    return is_cheaper_whole(problem.n, products_spent(problem.n, SolveSpec(k=1)))


def _error(problem: EigenProblem, value: float, backward: float, vector: PETSc.Vec) -> float:
    """Return how far an eigenvalue may be, from the backward error of a vector of norm 1 in the mass. Collective.

    The residual in the norm of M⁻¹ (Parlett 1998, theorem 15.9.1), bounded by the least diagonal entry: exact for
    a diagonal mass, an estimate for others.
    """
    residual = backward * (problem.norms[0] + abs(value) * problem.norms[1]) * vector.norm()
    least = problem.masses[1]
    return residual / least**0.5 if least > 0 else np.inf


def _decided_sign(problem: EigenProblem, value: float) -> int:
    """Return the sign of an eigenvalue, 0 to the accuracy of the matrix."""
    return -1 if value < -problem.zero else int(value > problem.zero)


def condition_number(problem: EigenProblem, seed: int = 0) -> float:
    """Return the largest over the least magnitude of an eigenvalue without null vectors, inf where one is zero.

    Collective.

    Raises
    ------
    InputError
        A large shell that is not positive definite: its least magnitude is inside its spectrum.
    """
    if _pays_whole(problem):
        with whole_problem(problem) as whole:
            return condition_number(whole, seed)
    largest = abs(_single(problem, SolveSpec(k=1, which="magnitude", seed=seed)))
    if not largest > problem.zero:
        return np.inf  # nothing but zeros
    if problem.assembled or problem.told.knows_pairs:
        least = abs(_single(problem, SolveSpec(k=1, target=0.0, seed=seed)))
    else:
        wider = {"eps_ncv": min(problem.n, _WIDER + 20), "eps_max_it": 1000}
        least = _single(problem, SolveSpec(k=1, seed=seed, options=wider))
        if least < -problem.zero:
            raise InputError("the condition number of an indefinite matrix-free Hessian: assemble it")
    return largest / least if least > problem.zero else np.inf


def _single(problem: EigenProblem, spec: SolveSpec) -> float:
    spectrum = solve(problem, spec)
    error, values = shortfall(spectrum), spectrum.eigenvalues
    spectrum.close()
    if error is not None:
        raise error
    return float(values[0])
