"""Samples of a normal law whose precision is a Hessian: Laplace's approximation, Gaussian Markov random fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.inverses.inverse_square_root import inverse_square_root
from sparsehess.eigen.inverses.saddle_point import SaddlePoint
from sparsehess.eigen.inverses.selected_inverse import factorized_inverse
from sparsehess.eigen.solvers.spectrum_targets import SAFE
from sparsehess.errors import CheckError, InputError
from sparsehess.operators.operator import Operator
from sparsehess.operators.tall_skinny_qr import local_array
from sparsehess.runtime.random_numbers import draw_normal, hash_numbers
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import positive_number, reals, whole_number

if TYPE_CHECKING:
    from petsc4py import PETSc

    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.operators.matrix_like import MatrixLike, VectorsLike

# Steps of inverse iteration to the lowest eigenvalue, and parts of that below which none is looked for.
_STEPS, _PARTS = 6, (0.5, 0.1, 0.01)

_SEED, _EPS = 32452843, float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False, repr=False)
class Samples(ShortRepr):
    """Samples of a normal law.

    *Not collective.* Made by `gaussian_samples`.

    Attributes
    ----------
    values
        (n_local, count) this rank's rows, a sample a column.
    error
        δ: the covariance C of the law that was sampled has (1 - δ)² Σ ≤ C ≤ (1 + δ)² Σ in the order of symmetric
        matrices, Σ the inverse that was asked for. Of the partial fractions, on an interval that holds the
        spectrum by a count, and ten times the error of the factors as measured at them.
    of
        What the precision is, as in `SelectedInverse`.
    factorizations
        How many were made; 0 where a structure has told a root.
    how
        `partial fractions`, or `structure`.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.Kronecker((np.diag([1.0, 4.0]), np.eye(2))) as H:
    ...     found = sh.gaussian_samples(H, 3)
    >>> print(found.values.shape, found.how, found.factorizations)
    (4, 3) structure 0
    """

    values: np.ndarray
    error: float
    of: str
    factorizations: int
    how: str

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{number_of(self.values.shape[1], 'sample')} of N(mean, inverse of {self.of})"
        yield f"covariance to {2 * self.error:.1g}"
        yield f"by {self.how}"


def gaussian_samples(
    matrix: MatrixLike | EigenProblem,
    count: int = 1,
    *,
    mean: PETSc.Vec | np.ndarray | None = None,
    shift: float = 0.0,
    nullspace: VectorsLike | None = None,
    seed: int = 0,
    error: float = 1e-10,
    comm: MPI.Comm | None = None,
) -> Samples:
    """Return samples of N(mean, H⁻¹), of a positive definite H.

    *Collective.* r(H) z of normal z, r(λ) = Σ w / (λ + t) near 1 / √λ on an interval that holds all eigenvalues:
    of the scaled H by the sums of its rows, and by an inertia count. One factorization for each of the terms, ten
    to forty, whatever the number of samples; all ranks solve together. The samples depend on H, `seed` and
    `error` alone: not on the number of ranks, but for an `error` of themselves. A structure that knows its
    eigenvectors, or Woodbury's formula, tells a root to rounding, and nothing is factorized.

    Parameters
    ----------
    matrix, shift, nullspace, comm
        As for `selected_inverse`. With null vectors samples are of the law on their complement, whose covariance
        is the pseudo-inverse: an intrinsic field.
    count
        How many.
    mean
        Vec, or (n_local,) of this rank's rows; default zero.
    seed
        Of the random numbers.
    error
        δ of `Samples.error` that the partial fractions are to keep.

    Returns
    -------
    Samples
        The samples, and how exact their law is.

    Raises
    ------
    InputError
        H is singular, or has negative eigenvalues: the message says how many.
    NotConverged
        The error takes too many factorizations.

    References
    ----------
    Hale, Higham, Trefethen 2008, "Computing A^α, log(A), and related matrix functions by contour integrals"; Rue
    and Held 2005, "Gaussian Markov Random Fields", section 2.4.

    Examples
    --------
    >>> import numpy as np
    >>> import scipy.sparse
    >>> import sparsehess as sh
    >>> H = scipy.sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(4, 4))
    >>> found = sh.gaussian_samples(H, 2000, seed=1)
    >>> print(found.values.shape, found.error < 1e-9)
    (4, 2000) True
    >>> print(np.abs(np.cov(found.values) - np.linalg.inv(H.toarray())).max() < 0.15)
    True
    """
    _check(count, seed, error)
    if not np.isfinite(reals(shift, "the shift")):
        raise InputError(f"the shift {shift} must be finite")
    if isinstance(matrix, Operator) and nullspace is None and matrix.knows_inverse:
        values = matrix.inverse_root(_normal(matrix.layout, count, seed), float(shift))
        made = SAFE * _EPS * matrix.judged_condition(float(shift))[1]
        of = f"H + {shift:g} I" if shift else "H"
        return Samples(_moved(values, mean, matrix.layout), made, of, 0, "structure")
    with factorized_inverse(matrix, float(shift), nullspace, comm) as (system, of, signs):
        if signs.negative:
            raise InputError(
                f"{of} has {signs.negative} negative eigenvalues: it is the inverse of no covariance; a shift "
                "above their size, or the Hessian at a minimum, has none"
            )
        return samples_on_constraints(system, of, count, mean, seed, error)


def samples_on_constraints(
    system: SaddlePoint,
    of: str,
    count: int,
    mean: PETSc.Vec | np.ndarray | None,
    seed: int,
    error: float,
) -> Samples:
    """Return samples of N(mean, Z (ZᵀHZ)⁻¹ Zᵀ), of a system that is factorized and positive definite there.

    Collective. See `gaussian_samples`.
    """
    _check(count, seed, error)
    values, made, factorizations = _sampled(system, _normal(system.layout, count, seed), error)
    return Samples(_moved(values, mean, system.layout), made, of, factorizations, "partial fractions")


def _check(count: int, seed: int, error: float) -> None:
    whole_number(count, "count", 1)
    whole_number(seed, "seed", 0)
    positive_number(error, "error")


def _normal(layout: Layout, count: int, seed: int) -> np.ndarray:
    """Return normal numbers (n_local, count), functions of seed, column and global row alone. Not collective."""
    seeds = hash_numbers(np.arange(count), seed) >> np.uint64(33)
    return np.stack([draw_normal(layout, int(one)) for one in seeds], axis=1)


def _moved(values: np.ndarray, mean: PETSc.Vec | np.ndarray | None, layout: Layout) -> np.ndarray:
    """Return samples about a mean. Collective."""
    return values if mean is None else values + local_array(mean, layout, "the mean").reshape(-1, 1)


def _sampled(system: SaddlePoint, z: np.ndarray, error: float) -> tuple[np.ndarray, float, int]:
    """Return samples (n_local, count), the error of their law, and how many factorizations that took.

    Collective. All in the scaled variables y, x = S y, whose precision Ĥ = S H S is factorized with poles on its
    diagonal: Z r(ZᵀĤZ) Zᵀz has the covariance Z r(ZᵀĤZ)² Zᵀ.
    """
    factors, n_local = system.factors, system.layout.n_local
    made = factors.measured()
    high = _largest_sum(system)
    low, counts = _below_all(system)
    fractions = inverse_square_root(low, high, error)
    z = np.where(system.free[:, None], z, 0.0)
    y = np.zeros_like(z)
    for weight, pole in zip(fractions.weights, fractions.poles, strict=True):
        factors.factorize(system.of_whole(np.where(system.free, pole, 0.0)))
        y += weight * factors.apply(system.of_whole(z))[:n_local]
    y *= factors.scales[:n_local, None]
    if system.any_of(not np.isfinite(y).all()):
        raise CheckError("samples are not finite")
    lost = (SAFE * made.error + factors.entry_error) / made.least
    return y, fractions.error + lost, 1 + counts + len(fractions.poles)


def _largest_sum(system: SaddlePoint) -> float:
    """Return the largest sum of a row of |Ĥ|, which no eigenvalue is above (Gershgorin). Collective."""
    own = system.factors.problem.scales.rows_a[: system.layout.n_local]
    largest = system.whole.comm.allreduce(float(np.max(own[system.free], initial=0.0)), op=MPI.MAX)
    return float(np.exp2(np.ceil(np.log2(largest)))) if largest > 0 else 1.0


def _below_all(system: SaddlePoint) -> tuple[float, int]:
    """Return a number below all eigenvalues of ZᵀĤZ, by a count, and how many counts that took.

    Collective. Inverse iteration says where to count; it is a power of two, so that hardly any rounding moves it.
    """
    estimate, m = _lowest(system), system.multipliers.n
    for counts, part in enumerate(_PARTS, 1):
        low = float(np.exp2(np.floor(np.log2(part * estimate))))
        pivots = system.factors.factorize(system.of_whole(np.where(system.free, -low, 0.0)))
        if pivots.negative == m and pivots.zero == 0 and system.factors.measured().margin > SAFE:
            return low, counts
    raise CheckError(
        f"no count says that all eigenvalues are above {low:.1e}, where inverse iteration finds none below "
        f"{estimate:.1e}: the matrix is too near to a singular one"
    )


def _lowest(system: SaddlePoint) -> float:
    """Return a Rayleigh quotient near the lowest eigenvalue of ZᵀĤZ, from above. Collective."""
    factors, n_local, comm = system.factors, system.layout.n_local, system.whole.comm
    factors.factorize()
    estimate = np.inf
    y = np.where(system.free, draw_normal(system.layout, _SEED), 0.0)[:, None]
    for _ in range(_STEPS):
        image = factors.apply(system.of_whole(y))[:n_local]
        within, size = comm.allreduce(np.array([np.vdot(y, image), np.vdot(image, image)]))
        if not (within > 0 and 0 < size < np.inf):
            break
        estimate = within / size
        y = image / np.sqrt(size)
    if not 0 < estimate < np.inf:
        raise CheckError("inverse iteration has found no lowest eigenvalue")
    return float(estimate)
