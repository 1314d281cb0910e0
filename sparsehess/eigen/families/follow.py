"""`follow`: modes of a problem that depends on a parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.eigen.families.followed_modes import FollowedModes
from sparsehess.eigen.families.followed_path import Path
from sparsehess.eigen.families.followed_points import PointSolver
from sparsehess.errors import InputError
from sparsehess.runtime.validation import positive_number, reals, whole_number

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.operators.matrix_like import VectorsLike


def follow(
    problem_of: Callable[[float], Any],
    values: Sequence[float] | np.ndarray,
    k: int = 6,
    *,
    beside: int = 2,
    target: float | None = None,
    limit: int = 16,
    resolution: float = 1e-6,
    nullspace: VectorsLike | None = None,
    tol: float = 1e-8,
    method: str = "auto",
    seed: int = 0,
    done: Callable[[Any], None] | None = None,
    comm: MPI.Comm | None = None,
) -> FollowedModes:
    """Follow the lowest modes of A(p) x = λ M(p) x over a parameter p, such as a speed, a load or a temperature.

    *Collective.* At each value the modes are solved for by `eigs`, from those of the value before, and counted.
    From value to value they are matched by their overlaps in the mass [1]_; a multiple eigenvalue by the
    principal angles of its space [2]_, in which the vectors are turned to go on as they were. Where modes cannot
    be matched, and where two change places, values between are looked at, until it is clear which is which: at a
    crossing the eigenvalues meet, and vectors go on; where curves veer they stay apart, and the vectors turn into
    each other.

    Parameters
    ----------
    problem_of
        Called as problem_of(p) on every rank; returns what `eigs` takes: a matrix, a `Hessian`, an `Operator`, or
        (K, M). It may change and return the same one each time.
    values
        (m,) of p, rising or falling.
    k
        How many modes.
    beside
        How many more are kept in sight, so that those that come among the k are known.
    target
        The k nearest to this eigenvalue instead of the smallest.
    limit
        How often the way between two values may be divided, one part after another.
    resolution
        Eigenvalues that differ by less than this part of them are taken for equal: curves that veer with a smaller
        gap are told as a crossing.
    nullspace, tol, method, seed, comm
        As for `eigs`, at every value.
    done
        Called with what `problem_of` has returned when it is not needed any more, to destroy it.

    Returns
    -------
    FollowedModes
        Curves, events, MAC tables; no vectors.

    Raises
    ------
    InputError
        Values that neither rise nor fall, or matrices that cannot be used or have other rows than before.
    EvaluationError
        `problem_of` raised.
    NotConverged, CheckError
        As for `eigs`, with the value.

    Notes
    -----
    Vectors are kept of the value that was reached, and of those ahead that a division has put aside: no more than
    `limit` + 2 times k + `beside`. A curve that leaves the k + `beside` modes ends there. A mode that changes by
    more than half between two values is divided for, too: the smoother, the fewer values.

    References
    ----------
    .. [1] R. J. Allemang, The modal assurance criterion: twenty years of use and abuse, Sound and Vibration 37
       (2003), 14-23.
    .. [2] Å. Björck and G. H. Golub, Numerical methods for computing angles between linear subspaces, Mathematics
       of Computation 27 (1973), 579-594.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> def problem_of(p):  # two modes that avoid each other by 0.2 at p = 1
    ...     return np.array([[1.0, 0.1, 0.0], [0.1, p, 0.0], [0.0, 0.0, 9.0]])
    >>> found = sh.follow(problem_of, np.linspace(0.0, 2.0, 5), k=2)
    >>> (event,) = found.events
    >>> print(event.kind, round(event.value, 3), round(event.gap, 3), bool(found.counted.all()))
    veering 1.0 0.2 True
    """
    path_of = reals(values, "values")
    if path_of.ndim != 1 or not len(path_of) or not np.isfinite(path_of).all():
        raise InputError("values must be finite numbers, one after another")
    steps = np.diff(path_of)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise InputError("values must rise, or fall, all of them: modes are followed from each to the next")
    if not callable(problem_of):
        raise InputError(f"problem_of must be a function of the parameter, not {type(problem_of).__name__}")
    solver = PointSolver(
        problem_of=problem_of,
        done=done,
        wanted=whole_number(k, "k", 1),
        beside=whole_number(beside, "beside", 0),
        resolution=positive_number(resolution, "resolution"),
        target=target,
        tol=tol,
        method=method,
        seed=seed,
        nullspace=nullspace,
        comm=comm,
    )
    path = Path(solver, whole_number(limit, "limit", 0))
    path.follow(path_of)
    return FollowedModes.of(path)
