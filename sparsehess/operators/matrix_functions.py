"""Functions of Hessians: fractional powers, by eigendecomposition or by a coupled Newton iteration."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.errors import CheckError, InputError, NotConverged
from sparsehess.operators.block_diagonal import BlockDiagonal
from sparsehess.operators.eigenvalues import apply_to_eigenvalues
from sparsehess.operators.matrix_like import is_sparse, mat_of
from sparsehess.operators.operator import Operator
from sparsehess.runtime import PETSc, communicator, on_root
from sparsehess.runtime.petsc_matrices import is_assembled
from sparsehess.runtime.random_numbers import draw_uniform
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from typing import TypeAlias

    from mpi4py import MPI

    from sparsehess.operators.matrix_like import LocalMatrix, MatrixLike

    # A power, or a function of an array of eigenvalues.
    Function: TypeAlias = float | Callable[[np.ndarray], np.ndarray]

_EPS = float(np.finfo(float).eps)

# Up to this denominator a power is checked by multiplying it out.
_DENOMINATOR = 64

# A residual may be so many roundings; each product brings one of every row.
_ALLOWED = 1e3

# The smallest eigenvalue grows at least twofold a step: from rounding to 1 in so many, with room.
_STEPS = 120


def funm(
    matrix: MatrixLike, f: Function, *, method: str = "eigen", comm: MPI.Comm | None = None
) -> Operator | np.ndarray:
    """Return a power or another function of a symmetric matrix.

    *Collective.*

    Parameters
    ----------
    matrix
        A structured Hessian that knows its eigenvectors: the result is of its kind, or of that of its
        eigenvectors. An assembled Mat, or an object that has one as `mat`: block by block of its connected
        components, a `BlockDiagonal`. A dense or SciPy matrix that every rank has: a dense array.
    f
        A power, or a function of an array of eigenvalues. The power -1/4 is Shampoo's.
    method
        `eigen`, or `newton`: for powers of positive definite dense matrices and blocks, see `inverse_root`.
    comm
        For arrays: one rank works for all of these. Default this process alone.

    Returns
    -------
    Operator | np.ndarray
        The caller closes an operator.

    Raises
    ------
    InputError
        A structure whose eigenvectors are not known; a power that is not defined for some eigenvalue.
    CheckError
        The power, multiplied out, does not give the matrix back.
    NotConverged
        The Newton iteration leaves a residual.

    References
    ----------
    Gupta, Koren, Singer 2018, "Shampoo: preconditioned stochastic tensor optimization".

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> print(sh.funm(np.diag([4.0, 9.0]), 0.5))
    [[2. 0.]
     [0. 3.]]
    >>> with sh.Kronecker((np.diag([1.0, 4.0]), np.eye(2))) as H, sh.funm(H, -0.5) as root:
    ...     print(type(root).__name__, root.diagonal())
    EigenCorrected [1.  1.  0.5 0.5]
    """
    if method not in ("eigen", "newton"):
        raise InputError(f"method={method!r} is neither eigen nor newton")
    if method == "newton" and callable(f):
        raise InputError("the Newton iteration is for powers: give a number")
    if not callable(f) and not np.isfinite(reals(f, "the power")):
        raise InputError(f"the power {f} must be finite")
    if isinstance(matrix, BlockDiagonal) or (isinstance(matrix, Operator) and not is_assembled(matrix.mat)):
        return _of_operator(matrix, f, method)
    matrix = mat_of(matrix)
    if isinstance(matrix, PETSc.Mat):
        with BlockDiagonal.from_components(matrix) as blocks:
            return _of_operator(blocks, f, method)
    return on_root(communicator(comm), _of_array, matrix, f, method)


def _of_operator(matrix: Operator, f: Function, method: str) -> Operator:
    if callable(f):
        return matrix.function(f)
    power = f
    if method == "newton":
        if not isinstance(matrix, BlockDiagonal):
            raise InputError("the Newton iteration is for dense matrices and blocks: take method eigen")
        return matrix.map(lambda block: _newton_power(block, power))
    result = matrix.function(lambda values: power_of(values, power))
    try:
        residual = power_residual(matrix, result, power)
    except BaseException:
        result.close()
        raise
    if not residual <= _ALLOWED * _EPS:
        result.close()
        raise CheckError(f"the power {f} multiplied out is off by {residual:.1e}: a larger diagonal would help")
    return result


def _of_array(matrix: LocalMatrix, f: Function, method: str) -> np.ndarray:
    matrix = reals(matrix.toarray() if is_sparse(matrix) else matrix, "the matrix")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"a function of a matrix needs a square one, not {matrix.shape}")
    size = np.abs(matrix).max(initial=0.0)
    if not np.isfinite(size) or np.abs(matrix - matrix.T).max(initial=0.0) > 1e-10 * size:
        raise InputError("the matrix must be finite and symmetric")
    matrix = (matrix + matrix.T) / 2
    if method == "newton" and not callable(f):
        return _newton_power(matrix, f)
    values, Q = np.linalg.eigh(matrix)
    result = (Q * (apply_to_eigenvalues(f, values) if callable(f) else power_of(values, f))) @ Q.T
    if not callable(f):
        residual = _array_residual(matrix, result, f)
        if not residual <= _ALLOWED * _EPS:
            raise CheckError(f"the power {f} multiplied out is off by {residual:.1e}")
    return (result + result.T) / 2


def power_of(values: np.ndarray, power: float) -> np.ndarray:
    """Return a power of eigenvalues.

    Not collective.

    Raises
    ------
    InputError
        It is not defined for a real number among them.
    """
    lowest = values.min(initial=np.inf)
    whole = float(power).is_integer()
    if (
        (power < 0 and (values == 0).any())
        or (not whole and lowest < 0)
        or (power < 0 and not whole and lowest <= 0)
    ):
        raise InputError(
            f"the power {power} is not defined for the eigenvalue {lowest:.3g}: add to the diagonal first"
        )
    return values ** float(power)


def power_residual(matrix: Operator, result: Operator, power: float) -> float:
    """Return |X^b v - H^a v| / (|X|^b |v|) for X = H^(a/b), or |X^b H^a v - v| / (|X|^b |H|^a |v|) for H^(-a/b).

    Collective. v is random; 0 for powers of larger denominators than 64.
    """
    a, b, inverse = _fraction(power)
    if b is None:
        return 0.0
    v = draw_uniform(matrix.layout, 5)
    image, back = v, v
    for _ in range(a):
        image = matrix.product(image)
    for _ in range(b):
        back = result.product(image if inverse and back is v else back)
    norms = [float(np.abs(one.spectrum(1, "magnitude")).max()) for one in (matrix, result)]
    size = norms[1] ** b * (norms[0] ** a if inverse else 1.0)
    difference = back - (v if inverse else image)
    total = matrix.comm.allreduce(np.array([difference @ difference, v @ v]))
    return float(np.sqrt(total[0] / total[1]) / size) if size > 0 else 0.0


def _array_residual(matrix: np.ndarray, result: np.ndarray, power: float) -> float:
    a, b, inverse = _fraction(power)
    if b is None or not matrix.size:
        return 0.0
    forth, back = np.linalg.matrix_power(matrix, a), np.linalg.matrix_power(result, b)
    norms = np.linalg.norm(matrix, 2) ** a, np.linalg.norm(result, 2) ** b
    if inverse:
        return float(np.linalg.norm(back @ forth - np.eye(len(matrix)), 2) / (norms[0] * norms[1]))
    return float(np.linalg.norm(back - forth, 2) / norms[1]) if norms[1] else 0.0


def _fraction(power: float) -> tuple[int, int | None, bool]:
    """Return (a, b, whether the power is -a/b instead of a/b); b is None where it is no small fraction."""
    exact = Fraction(power).limit_denominator(_DENOMINATOR)
    if abs(float(exact) - power) > 4 * _EPS * abs(power):
        return 0, None, False
    return abs(exact.numerator), exact.denominator, exact < 0


# --- by iteration ----------------------------------------------------------------------


def inverse_root(matrix: np.ndarray, p: int) -> tuple[np.ndarray, float]:
    """Return (X, residual): A^(-1/p) of a dense symmetric positive definite matrix, by products alone.

    Not collective. The coupled Newton iteration of Guo and Higham 2006 (Higham 2008, section 7.4; for the root
    itself Iannazzo 2006): X ← X N, M ← N^p M with N = ((p + 1) I - M) / p, from X = I / c and M = A / c^p.

    Parameters
    ----------
    matrix
        (n, n).
    p
        Which root, at least 1.

    Returns
    -------
    (X, residual)
        residual is |X^p A - I| / (|X|^p |A|), 2-norms.

    Raises
    ------
    InputError
        Not positive definite.
    NotConverged
        Rounding keeps the residual above what it makes of a well-scaled product.

    Notes
    -----
    It converges for every such matrix: an eigenvalue m of M goes to m ((p + 1 - m) / p)^p, which maps (0, p + 1)
    into (0, 1], where it increases to 1, quadratically in the end. c is so large that all begin within
    (0, (p + 1) / 2].
    """
    if p < 1:
        raise InputError(f"the root p={p} must be at least 1")
    A = (matrix + matrix.T) / 2
    try:
        np.linalg.cholesky(A)
    except np.linalg.LinAlgError:
        raise InputError("the matrix is not positive definite to rounding: add to its diagonal first") from None
    n = len(A)
    unit = np.eye(n)
    bound = min(np.linalg.norm(A, 1), np.linalg.norm(A))  # both no less than the largest eigenvalue
    c = (2 * bound / (p + 1)) ** (1 / p)
    X, M = unit / c, A / c**p
    best = np.inf
    for _ in range(_STEPS):
        error = float(np.linalg.norm(M - unit))  # no less than that of any eigenvalue
        # Quadratic up to rounding: where an error below a tenth shrinks no more, it is that.
        if error == 0 or (error < 0.1 and error >= 0.5 * best):
            break
        best = min(best, error)
        N = ((p + 1) * unit - M) / p
        X, M = X @ N, np.linalg.matrix_power(N, p) @ M
        X, M = (X + X.T) / 2, (M + M.T) / 2  # all commute, which rounding forgets
    residual = _array_residual(A, X, -1 / p)
    if not residual <= _ALLOWED * _EPS * np.sqrt(n):
        raise NotConverged(f"A^(-1/{p}) by iteration has a residual of {residual:.1e}: take method eigen")
    return X, residual


def _newton_power(block: np.ndarray, power: float) -> np.ndarray:
    """Return a fractional power from an inverse root and products."""
    a, b, inverse = _fraction(power)
    if b is None or a == 0:
        raise InputError(
            f"the Newton iteration is for fractions of denominators up to {_DENOMINATOR}, not {power}"
        )
    X, _ = inverse_root(block, b)
    if not inverse:  # A^(1/b) = A X^(b-1)
        X = block @ np.linalg.matrix_power(X, b - 1)
    X = np.linalg.matrix_power(X, a)
    return (X + X.T) / 2
