"""Whether a mass matrix is one, and how many of its directions have no mass."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsehess.eigen.problem.equilibration import AbsoluteRows, scaled_copy
from sparsehess.eigen.problem.inertia_of_matrix import signs_of
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, complex_scalars, destroy, has_package
from sparsehess.runtime.random_numbers import draw_normal
from sparsehess.runtime.row_layout import Layout

# Steps of Lanczos after which a factorization is asked instead, and steps between two looks at the bound.
_STEPS, _LOOK = 120, 10

# Logarithm of the probability with which the bound may be wrong.
_UNSURE = np.log(1e-9)

_SEED = 23


class MassFacts(NamedTuple):
    """What is known of a mass matrix.

    Attributes
    ----------
    massless
        Dimension of its null space.
    least
        M is no less than so many times its diagonal, 0 where that is not known; what the sums of its rows tell is
        not in it.
    """

    massless: int
    least: float = 0.0


# Of no mass matrix.
UNIT = MassFacts(0, 1.0)


def facts_of_mass(M: PETSc.Mat, layout: Layout) -> MassFacts:
    """Return what is known of a mass matrix, which must be positive semidefinite.

    Collective. Of M scaled to a diagonal of ones. Lanczos steps show most masses to be definite: with a random
    start the least Ritz value is farther than ε (λ_max - λ_min) above λ_min with a probability of at most
    1.648 √n exp(-√ε (2k - 1)) after k steps (Kuczyński and Woźniakowski 1992, "Estimating the largest eigenvalue
    by the power and Lanczos algorithms with a random start", theorem 4.2); here below 1e-9. Others are counted by
    LDLᵀ.

    Raises
    ------
    InputError
        It is indefinite, or zero.
    """
    comm = layout.comm
    rows = AbsoluteRows(M, layout)
    try:
        signed = M.getDiagonal()
        diagonal = signed.getArray(readonly=True).real.copy()
        destroy(signed)
        ones = np.ones(layout.n_local)
        sums = rows.sums(ones)
        least = float(diagonal.min(initial=np.inf))
        hollow = bool(((diagonal == 0) & (sums > 0)).any())
        lone = bool((sums <= np.abs(diagonal)).all())
        mass = bool((diagonal > 0).any())
        facts = comm.allgather((least, hollow, lone, mass))
        least, hollow = min(fact[0] for fact in facts), any(fact[1] for fact in facts)
        if least < 0 or hollow:
            what = (
                f"its diagonal goes down to {least:.3g}" if least < 0 else "a zero of its diagonal has a coupling"
            )
            raise InputError(_indefinite(what))
        if not any(fact[3] for fact in facts):
            raise InputError("the mass matrix is zero: leave it out, or say which variables move")
        empty = int(comm.allreduce(int(np.count_nonzero(diagonal == 0))))
        if all(fact[2] for fact in facts):
            return MassFacts(empty)
        d = np.ones(layout.n_local)
        d[diagonal > 0] = np.exp2(np.round(-0.5 * np.log2(diagonal[diagonal > 0])))
        scale = M.createVecRight()
        scale.setArray(d)
        scaled = scaled_copy(M, scale)
        try:
            least = _surely_definite(scaled, diagonal > 0, layout)
            if least > 0:
                return MassFacts(empty, 0.5 * least)  # its diagonal lies between 1/2 and 2
            if complex_scalars() or not has_package("mumps"):
                return MassFacts(empty)  # nothing counts: the zero rows alone are known
            signs = signs_of(scaled, rows.sums(d))
        finally:
            destroy(scaled, scale)
    finally:
        rows.close()
    if signs.negative:
        raise InputError(_indefinite(f"{signs.negative} of its eigenvalues are negative"))
    return MassFacts(signs.zero)


def _indefinite(what: str) -> str:
    return (
        f"the mass matrix must be positive semidefinite, this one is indefinite: {what}; where the other matrix "
        "is positive definite, as in buckling K x = λ G x, exchange the two: G x = (1/λ) K x"
    )


def _surely_definite(matrix: PETSc.Mat, inside: np.ndarray, layout: Layout) -> float:
    """Return a lower bound of the eigenvalues of a matrix in some of the variables, by Lanczos steps.

    Collective. 0 where they do not show it to be positive definite there.
    """
    v, w, before = matrix.createVecRight(), matrix.createVecRight(), matrix.createVecRight()
    v.setArray(np.where(inside, draw_normal(layout, _SEED), 0.0))
    v.normalize()
    before.set(0.0)
    alpha: list[float] = []
    beta: list[float] = []
    try:
        for step in range(1, _STEPS + 1):
            matrix.mult(v, w)
            if beta:
                w.axpy(-beta[-1], before)
            alpha.append(w.dot(v).real)
            w.axpy(-alpha[-1], v)
            beta.append(w.norm())
            exhausted = not beta[-1] > 1e-14
            if step % _LOOK == 0 or exhausted:
                ritz = np.linalg.eigvalsh(
                    np.diag(alpha) + np.diag(beta[: step - 1], 1) + np.diag(beta[: step - 1], -1)
                )
                if not ritz[0] > 0:
                    return 0.0
                share = ritz[0] / (ritz[-1] + beta[-1])  # of the spread of the spectrum
                if np.log(1.648 * layout.n**0.5) - share**0.5 * (2 * step - 1) < _UNSURE:
                    unsure = ((np.log(1.648 * layout.n**0.5) - _UNSURE) / (2 * step - 1)) ** 2
                    return float(ritz[0] - unsure * (ritz[-1] + beta[-1]))
            if exhausted:
                return 0.0  # a random vector in a small invariant space: a factorization tells
            v, w, before = w, before, v
            v.scale(1 / beta[-1])
    finally:
        destroy(v, w, before)
    return 0.0
