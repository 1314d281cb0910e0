"""The inverse of A - shift M on what is orthogonal to known null vectors, and its inertia.

With F = A − σM factorized, N an orthonormal basis of the null vectors and W = F⁻¹MN, the solution of
Pᵀ(A − σM)P y = b is y = F⁻¹b − W S⁻¹ NᵀM F⁻¹b, S = NᵀMW: the first unknowns of the bordered system
[[F, MN], [NᵀM, 0]]. The inertia of that is that of F and of −S together (Haynsworth 1968, "Determination of the
inertia of a partitioned Hermitian matrix"), and that of the operator on the complement with one negative and one
positive eigenvalue for each null vector (Gould 1985, "On practical conditions for the existence and uniqueness of
solutions to the general equality quadratic programming problem"). So there are as many eigenvalues below the shift
as negative pivots of F and positive eigenvalues of S together, less the number of null vectors.
"""

from __future__ import annotations

import numpy as np

from sparsehess.eigen.problem.factorization import UNKNOWN, Pivots
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.runtime import PETSc, SLEPc, called_back, destroy, on_root

# An eigenvalue of S is zero where it is no larger than so many times what the residuals of W make of it.
_SURE = 4.0

_EPS = float(np.finfo(float).eps)


class ProjectedInverse:
    """Solves with PᵀAP − shift M by what solves with A − shift M, for the length of a factorization.

    Collective to make and to use; `close()` gives the transformation its own solver back.

    Parameters
    ----------
    problem
        What is solved, with null vectors.
    st
        The transformation of SLEPc, set up at the shift; it solves on the complement from now on.
    shift
        Where it is factorized.
    """

    def __init__(self, problem: EigenProblem, st: SLEPc.ST, shift: float):
        self._problem, self._st, self.inner = problem, st, st.getKSP()
        space = problem.null_space
        self._W = SLEPc.BV().create(problem.A.comm)
        self._W.setSizesFromVec(space.basis[0], len(space))
        self._W.setType("svec")
        for i, image in enumerate(space.images):
            column = self._W.getColumn(i)
            self.inner.solve(image, column)
            self._W.restoreColumn(i, column)
        S, self._doubt = self._schur_complement(shift)
        self._values, self._inverse = on_root(problem.comm, _spectral_inverse, S)
        self._outer = PETSc.KSP().createPython(self, comm=problem.A.comm)
        self._outer.setOptionsPrefix("projected_")  # no option of the factorization is for it
        self._outer.setOperators(*self.inner.getOperators())
        st.setKSP(self._outer)

    def _schur_complement(self, shift: float) -> tuple[np.ndarray, float]:
        """Return S, to second order in the residuals of W, and how far they and rounding may have moved it.

        With R = MN − F W it is NᵀMW + WᵀR + RᵀF⁻¹R, all but the last known.
        """
        problem, W = self._problem, self._W
        m = len(problem.null)
        S, correction, sizes = np.empty((m, m), PETSc.ScalarType), np.empty((m, m), PETSc.ScalarType), np.empty(m)
        left, image = problem.A.createVecs()
        for i, dual in enumerate(problem.null_space.images):
            w = W.getColumn(i)
            sizes[i] = w.norm() * dual.norm()
            problem.A.mult(w, left)
            if problem.M is None:
                left.axpy(-shift, w)
            else:
                problem.M.mult(w, image)
                left.axpy(-shift, image)
            left.aypx(-1.0, dual)  # the residual
            S[:, i] = problem.null_space.parts(w)
            W.restoreColumn(i, w)
            correction[:, i] = np.asarray(W.dotVec(left))
        destroy(left, image)
        S, correction = (S + S.conj().T) / 2, (correction + correction.conj().T) / 2
        return S + correction, float(np.linalg.norm(correction) + m * _EPS * sizes.max())

    def pivots(self, whole: Pivots) -> Pivots:
        """Return the inertia on the complement, from that of A - shift M. Not collective."""
        zero = int(np.count_nonzero(~(np.abs(self._values) > _SURE * self._doubt)))
        if whole.negative == UNKNOWN:
            return Pivots(UNKNOWN, whole.zero + zero, UNKNOWN)
        m = len(self._values)
        positive = int(np.count_nonzero(self._values > 0))
        sought = self._problem.n - m
        below = whole.negative + positive - m
        return Pivots(below, whole.zero + zero, sought - below - whole.zero - zero)

    @called_back
    def solve(self, outer: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec) -> None:
        """Solve on the complement; PETSc calls this. Collective."""
        self.inner.solve(b, x)
        self._W.multVec(-1.0, 1.0, x, self._inverse @ self._problem.null_space.parts(x))
        outer.setConvergedReason(self.inner.getConvergedReason())

    def close(self) -> None:
        """Give the transformation back what it had. Collective."""
        self._st.setKSP(self.inner)
        destroy(self._outer, self._W)


def _spectral_inverse(S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of S, and its inverse without those that are zero."""
    values, V = np.linalg.eigh(S)
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=values != 0)
    return values, (V * inverse) @ V.conj().T
