"""The definite inverse of a structured matrix P near the Hessian, by the structure's own solves.

For an end of the spectrum it is (P − σ)⁻¹ with σ below all eigenvalues of P (above them, and −(P − σ)⁻¹, for the
largest): positive definite whether P is or not, as LOBPCG and MINRES need it. σ is no farther inside than the
Hessian's own end as far as some Lanczos steps tell, and farther out by as much as P is wrong where its inverse is
large: a random vector shows that, for some products with the Hessian. A tenth of the least that the inverse of the
Hessian has is added, times the identity: what P is blind to is still seen.

At a contour point z it is |P − z|⁻¹ where the structure tells eigenvectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from sparsehess.eigen.problem.equilibration import median
from sparsehess.eigen.problem.lanczos_bounds import spectral_bounds
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError
from sparsehess.operators.operator import Operator
from sparsehess.runtime import PETSc, called_back, destroy
from sparsehess.runtime.random_numbers import draw_uniform

Map: TypeAlias = Callable[[np.ndarray], np.ndarray]

# Least distance of σ from what it is beside, as a part of a typical entry of the diagonal of P.
_LEAST = 1e-3

# Products with the Hessian that may be spent on how wrong P is.
_TRIALS = 6

# Lanczos steps that tell the ends of what counts nothing, and whether its inverse is definite.
_STEPS, _PROBE = 60, 15

# Inverses that tell where the lowest eigenvalue is, each nearer to it.
_NEARER = 3

# Times that σ may move out until the inverse is definite.
_RUNGS = 12

# What is added of the identity, beside the least of the inverse of the Hessian.
_SEEN = 0.1

# Of Chebyshev's iteration: error, most steps, and how far beyond the upper end an eigenvalue may lie.
_ERROR, _MOST, _BEYOND = 0.1, 200, 1.05

# Seed of the random vector.
_SEED = 37


class End:
    """One end of the spectrum of P: the lowest of P or, turned round, of −P.

    Collective to use.

    Parameters
    ----------
    operator
        P.
    sign
        1 for the lower end, -1 for the upper one.
    """

    def __init__(self, operator: Operator, sign: int):
        self.operator, self.sign = operator, sign
        low, high, error = spectral_bounds(operator.mat, operator.layout, _STEPS)
        low, high = (low, high) if sign > 0 else (-high, -low)
        self._ritz, self.beyond = low, low - error
        self.high = high + error

    def product(self, x: np.ndarray) -> np.ndarray:
        """Return ± P x (n_local,)."""
        return self.sign * self.operator.product(x)

    def lowest(self, within: float) -> float:
        """Return a number that no eigenvalue is below, nor all by far.

        Exact where the structure tells eigenvalues, to `within` where it counts; else what Lanczos steps show.
        """
        operator = self.operator
        if operator.knows_eigenvalues:
            which = "smallest" if self.sign > 0 else "largest"
            return float(self.sign * operator.spectrum(1, which)[0])
        if not operator.knows_counts:
            return self._approached() if operator.applies_inverse else self.beyond
        low, step = self.beyond, max(self._ritz - self.beyond, within)
        while self._below(low):
            low, step = low - step, 4 * step
        high = self._ritz
        while high - low > within:
            middle = (low + high) / 2
            if not low < middle < high:
                break
            low, high = (low, middle) if self._below(middle) else (middle, high)
        return low

    def _approached(self) -> float:
        """Return a number below all eigenvalues, near to the lowest as far as inverses below it show that."""
        number = self.beyond
        for _ in range(_NEARER):
            shell = inverse_shell(self.operator, self.inverse(-number))
            low, high, error = spectral_bounds(shell, self.operator.layout, _PROBE)
            destroy(shell)
            if not low > 0:
                return number
            number += 1 / (high + error)
        return number

    def _below(self, number: float) -> int:
        """Return how many eigenvalues are below a number."""
        operator = self.operator
        return operator.count(number) if self.sign > 0 else operator.n - operator.count(-number)

    def inverse(self, shift: float) -> Map:
        """Return b (n_local, m) to (± P + shift)⁻¹ b, or nearly so where that takes iterations: a polynomial."""
        operator, sign = self.operator, self.sign
        if operator.applies_inverse:
            return lambda b: sign * operator.apply_inverse(b, sign * shift)
        return _Chebyshev(self, shift)


class _Chebyshev:
    """About (± P + shift)⁻¹: so many steps of Chebyshev's iteration, which is one polynomial of P for all vectors.

    It is definite wherever the matrix is and the upper end is one: between them the error is less than one.
    """

    def __init__(self, end: End, shift: float):
        self._end, self._shift = end, shift
        self._high = _BEYOND * (end.high + shift)
        low = max(end.beyond + shift, self._high * 1e-8)
        wanted = np.sqrt(self._high / low) * np.log(2 / _ERROR) / 2
        self._steps = int(np.clip(np.ceil(wanted), 2, _MOST))
        if wanted > _MOST:
            low = self._high * (np.log(2 / _ERROR) / 2 / _MOST) ** 2
        self._low = low

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """Return the polynomial's image of b (n_local, m), from zero (Saad 2003, algorithm 12.1). Collective."""
        middle, half = (self._high + self._low) / 2, (self._high - self._low) / 2
        sigma = middle / half
        rho, rest = 1 / sigma, b.copy()
        step, x = rest / middle, np.zeros_like(b)
        for _ in range(self._steps):
            x += step
            rest -= self._image(step)
            after = 1 / (2 * sigma - rho)
            step = after * rho * step + 2 * after / half * rest
            rho = after
        return x

    def _image(self, x: np.ndarray) -> np.ndarray:
        out = self._shift * x
        for j in range(x.shape[1]):
            out[:, j] += self._end.product(np.ascontiguousarray(x[:, j]))
        return out


class DefiniteInverse:
    """(± (P − σ))⁻¹, positive definite, for an end of the spectrum of a problem.

    Collective to make and to use.

    Parameters
    ----------
    problem
        Whose preconditioner is an `Operator`.
    which
        `smallest` or `largest`.

    Raises
    ------
    InputError
        P has numbers that are not finite, or no shift makes it definite.
    """

    def __init__(self, problem: EigenProblem, which: str):
        self._problem, self._operator = problem, structure_of(problem)
        self._end = End(self._operator, 1 if which == "smallest" else -1)
        low, high, error = problem.ritz
        theta = low if which == "smallest" else -high
        self._range = high - low + error
        size = max(abs(self._end.high), abs(self._end.beyond), abs(theta)) or 1.0
        typical = median(np.abs(self._operator.diagonal()), problem.comm) or size
        self.away = _LEAST * min(typical, size)  # how far σ is from what it is beside
        self._beside = min(self._end.lowest(self.away / 2), theta)
        self._make()
        self._settle()

    def _make(self) -> None:
        """Make the inverse, σ moved out until its eigenvalues are positive, as far as they are told."""
        for _ in range(_RUNGS):
            self._map = self._end.inverse(self.away - self._beside)
            if self._operator.knows_counts or self._seems_definite():
                return
            self.away *= 4
        raise InputError(
            f"no shift up to {self.away:.2g} makes the preconditioner positive definite: is it symmetric, and are "
            "its solves exact?"
        )

    def _seems_definite(self) -> bool:
        shell = inverse_shell(self._operator, self)
        try:
            return spectral_bounds(shell, self._operator.layout, _PROBE)[0] > 0
        finally:
            destroy(shell)

    def _settle(self) -> None:
        """Move σ out as far as P is wrong where its inverse is large."""
        for _ in range(_TRIALS):
            error = error_of(self._problem, self._operator, self)
            if error <= self.away:
                return
            self.away = max(error, 2 * self.away)
            self._make()

    def widen(self, factor: float) -> None:
        """Move σ out. Collective."""
        self.away *= factor
        self._make()

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """Return the image (n_local, m) of b (n_local, m). Collective.

        Raises
        ------
        InputError
            It is not finite.
        """
        return _finite(self._operator, self._map, b) + _SEEN / (self._range + self.away) * b

    def close(self) -> None:
        """Do nothing: P is the caller's. Not collective."""


class Untold(InputError):
    """A structure that tells no eigenvectors."""


class AbsoluteInverse:
    """|P − z|⁻¹ with z complex, where the structure tells eigenvectors; `close()` destroys it.

    The imaginary part is no less than what P is wrong by where its inverse is large.

    Collective to make and to use.

    Raises
    ------
    Untold
        The structure does not tell its eigenvectors.
    """

    def __init__(self, problem: EigenProblem, z: complex):
        self._operator = structure_of(problem)
        mass = problem.masses[0]
        low, high, beyond = problem.ritz
        self._seen = _SEEN / (max(abs(low - z * mass), abs(high - z * mass)) + beyond)
        self._centre, width = z.real * mass, abs(z.imag) * mass
        self._take(width)
        try:
            for _ in range(_TRIALS):
                error = error_of(problem, self._operator, self)
                if error <= width:
                    return
                width = max(error, 2 * width)
                self.close()
                self._take(width)
        except BaseException:  # raised on every rank
            self.close()
            raise

    def _take(self, width: float) -> None:
        centre = self._centre
        try:
            self._made = self._operator.function(lambda values: 1 / np.hypot(values - centre, width))
        except InputError as error:  # on all ranks
            raise Untold(str(error)) from None

    def __call__(self, b: np.ndarray) -> np.ndarray:
        """Return the image (n_local, m) of b (n_local, m). Collective."""
        return _finite(self._operator, self._image, b) + self._seen * b

    def _image(self, b: np.ndarray) -> np.ndarray:
        return np.stack([self._made.product(np.ascontiguousarray(column)) for column in b.T], axis=1)

    def close(self) -> None:
        """Destroy the matrix. Collective."""
        self._made.close()


def structure_of(problem: EigenProblem) -> Operator:
    """Return the structured preconditioner of a problem that has one. Not collective."""
    if not isinstance(problem.preconditioner, Operator):
        raise InputError("this problem has no structured preconditioner")
    return problem.preconditioner


def error_of(problem: EigenProblem, operator: Operator, inverse: Map) -> float:
    """Return |(H − P) w| / |w| for w the image of a random vector under an inverse of P: one product with H.

    Collective.
    """
    w = inverse(draw_uniform(problem.layout, _SEED)[:, None])[:, 0]
    x, image = problem.A.createVecs()
    try:
        x.setArray(w)
        problem.A.mult(x, image)
        apart = image.getArray(readonly=True) - operator.product(w)
    finally:
        destroy(x, image)
    squares = problem.comm.allreduce(np.array([apart @ apart, w @ w]))
    error = float(np.sqrt(squares[0] / squares[1])) if squares[1] > 0 else np.nan
    if not np.isfinite(error):
        raise InputError("the preconditioner has products or solutions that are not finite, or zero")
    return error


def inverse_shell(operator: Operator, inverse: Map) -> PETSc.Mat:
    """Return a matrix whose products are an inverse's; the caller destroys it. Collective."""
    size = ((operator.layout.n_local, operator.layout.n),) * 2
    shell = PETSc.Mat().createPython(size, _Products(inverse), comm=operator.mat.comm)
    shell.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    shell.setUp()
    return shell


class _Products:
    """What PETSc calls."""

    def __init__(self, inverse: Map):
        self._inverse = inverse

    @called_back
    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.setArray(self._inverse(x.getArray(readonly=True)[:, None].copy()))

    multTranspose = mult  # the name is PETSc's


def _finite(operator: Operator, inverse: Map, b: np.ndarray) -> np.ndarray:
    """Return the image of b, refused where it is not finite."""
    with np.errstate(all="ignore"):
        x = inverse(b)
    if operator.comm.allreduce(int(not np.isfinite(x).all())):
        raise InputError(
            "the preconditioner's solves are not finite: its entries are too large, or of sizes too "
            "different; scale it"
        )
    return x
