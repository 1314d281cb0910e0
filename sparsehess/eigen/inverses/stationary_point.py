"""Whether a point is a minimum or a saddle, of which index: inertia with a margin, and how far from rest it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.objective import Objective
from sparsehess.eigen.certificates.inertia import count_inertia
from sparsehess.eigen.inverses.constraint_matrices import constraints_of_vectors
from sparsehess.eigen.inverses.saddle_point import SaddlePoint
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.solvers.eigs import shortfall, solve
from sparsehess.errors import InputError
from sparsehess.hessian.assembly import assemble
from sparsehess.hessian.hessian import Hessian
from sparsehess.operators.eigenvalues import Inertia
from sparsehess.runtime import destroy
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import positive_number

if TYPE_CHECKING:
    from petsc4py import PETSc

# So many directions of negative curvature are computed at most.
MOST = 10

# A Newton step goes to a stationary point where it leaves no more than this part of the gradient, or so many times
# its noise.
_LEAVES, _NOISES = 0.5, 5.0

# Where null vectors are projected out, an eigenvalue is zero that is no larger than this part of a middle one.
_BESIDE_NULL = 1e-6


# What JSON tells as it is.
_TOLD = (
    *("index", "certified", "doubt", "nearest", "margin", "gradient", "gradient_max", "step", "step_max"),
    *("energy_change", "left", "noise", "step_tol"),
)


@dataclass(frozen=True, eq=False, repr=False)
class StationaryPoint(ShortRepr):
    """What the Hessian and the gradient tell of a point; made by `stationary_point`.

    *Not collective*, but for `close()`, which destroys the directions; a context manager. Numbers are the same on
    every rank.

    Attributes
    ----------
    index
        How many eigenvalues are negative, beside the null vectors that are projected out.
    certified
        Whether that is proven of the Hessian, up to what is known of its error.
    doubt
        Why not; empty where it is.
    signs
        The counts, and up to which size an eigenvalue is zero: the error of the Hessian, or more.
    eigenvalues, errors
        (m,) the lowest, ascending: the negative ones, `MOST` of them at most, and one above; their error bars.
    nearest
        The eigenvalue nearest to zero.
    margin
        Its size over how far the error of the Hessian, or the last digits of its entries, may move it.
    directions
        Vecs of negative curvature, of norm 1 in the mass, in the order of the eigenvalues.
    gradient, gradient_max
        2-norm of the gradient at the point, and the largest size of a component.
    step, step_max
        2-norm of the Newton step -H⁻¹g in the complement of the null vectors, and the largest size of a component;
        nan where the Hessian has eigenvalues near zero.
    energy_change
        What that step changes the energy by to second order, gᵀs/2: the height of this point above the stationary
        point is minus that.
    left
        2-norm of the gradient at the end of the step, which is evaluated: how far the Hessian holds.
    noise
        2-norm of the noise of the gradient, as far as it was measured; 0 where it was not.
    step_tol
        Up to which largest component of a Newton step the point is called stationary; None where none is given.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> pattern = sh.Pattern.from_edges(np.array([[0, 1]]), 2)
    >>> top = sh.Objective(x=np.array([0.3, 0.0]), gradient=lambda x: np.array([-x[0], 2 * x[1]]), pattern=pattern)
    >>> with sh.stationary_point(top, step_tol=0.01) as found:
    ...     print(found.index, found.certified, found.stationary)
    ...     print(found.verdict)
    1 True False
    NOT STATIONARY to 0.01: the Newton step is 0.3; index 1, proven of the Hessian here
    """

    index: int
    certified: bool
    doubt: str
    signs: Inertia
    eigenvalues: np.ndarray
    errors: np.ndarray
    nearest: float
    margin: float
    directions: list[PETSc.Vec]
    gradient: float
    gradient_max: float
    step: float
    step_max: float
    energy_change: float
    left: float
    noise: float
    step_tol: float | None

    @property
    def stationary(self) -> bool | None:
        """Whether a stationary point is within `step_tol`, as one Newton step shows; None without a tolerance.

        Not collective. The step is no longer than that, and the gradient at its end is at most half of that here,
        or five times its noise.
        """
        if self.step_tol is None:
            return None
        near = self.step_max <= self.step_tol
        return bool(near and self.left <= max(_LEAVES * self.gradient, _NOISES * self.noise))

    def is_saddle(self, index: int = 1) -> bool:
        """Return whether it is proven to have this index, at a point that is stationary to `step_tol`.

        Not collective. Index 0 is a minimum.
        """
        return self.certified and self.index == index and self.stationary is True

    @property
    def verdict(self) -> str:
        """What may be said, in words. Not collective."""
        kind = "minimum" if self.index == 0 else f"saddle point of index {self.index}"
        if not self.certified:
            return f"not told: {self.doubt}"
        if self.stationary:
            return f"{kind}, proven of the Hessian here; stationary to {self.step_tol:.3g}"
        proven = f"index {self.index}, proven of the Hessian here"
        if self.step_tol is None:
            return f"{proven}; no stationary point is claimed without a tolerance, step_tol"
        if not self.step_max <= self.step_tol:
            return f"NOT STATIONARY to {self.step_tol:.3g}: the Newton step is {self.step_max:.3g}; {proven}"
        return (
            f"NOT STATIONARY as far as is known: the Newton step leaves {self.left:.2g} of a gradient of "
            f"{self.gradient:.2g}; {proven}"
        )

    @property
    def index_told(self) -> str:
        """The index, and whether it is proven, in words. Not collective."""
        return f"{self.index}, proven" if self.certified else f"{self.index} or more, NOT PROVEN: {self.doubt}"

    def __str__(self) -> str:
        """Return what was found, for people."""
        bars = zip(self.eigenvalues, self.errors, strict=True)
        return "\n".join(
            [
                f"index        {self.index_told}",
                f"lowest       {', '.join(f'{value:.6g} ± {error:.1g}' for value, error in bars)}",
                f"margin       {self.margin:.2g}: the nearest to zero, {self.nearest:.4g}, over what may move it",
                f"gradient     {self.gradient_max:.3g} at most, norm {self.gradient:.3g}",
                f"newton step  {self._step_told()}",
                f"verdict      {self.verdict}",
            ]
        )

    def _step_told(self) -> str:
        if not self.certified:
            return "not taken: a sign is not told"
        return (
            f"{self.step_max:.3g} at most, norm {self.step:.3g}; it changes the energy by "
            f"{self.energy_change:+.3g}, and leaves a gradient of {self.left:.2g}"
        )

    def facts(self) -> dict[str, Any]:
        """Return what JSON says of it; null for what is not known. Not collective."""
        told = {name: getattr(self, name) for name in _TOLD}
        finite = {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in told.items()
        }
        lists = {"eigenvalues": self.eigenvalues.tolist(), "errors": self.errors.tolist()}
        return {**finite, **lists, "stationary": self.stationary, "verdict": self.verdict}

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"index {self.index}, {'proven' if self.certified else 'not proven'}"
        yield f"margin {self.margin:.2g}"
        yield {None: "no tolerance", True: "stationary", False: "not stationary"}[self.stationary]

    def close(self) -> None:
        """Destroy the directions.

        Collective.
        """
        destroy(*self.directions)
        self.directions.clear()

    def __enter__(self) -> StationaryPoint:
        """Return the point itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close it."""
        self.close()


def stationary_point(
    given: Objective | Hessian, *, step_tol: float | None = None, seed: int = 0, **how: Any
) -> StationaryPoint:
    """Return the index of a point, proven by inertia with a margin, and how far from a stationary point it is.

    *Collective.* The index is that of the Hessian on the complement of its null vectors: rigid motions of atoms
    are projected out, variables that are held are left out. It is proven where four factorizations agree that no
    eigenvalue is within four times what the error of the Hessian may move one (Sylvester, and Weyl [1]_). A
    stationary point is claimed only to a tolerance that is given: the Newton step -H⁻¹g has no larger component,
    and the gradient at its end, which is evaluated, is at most half of that here, or noise.

    Parameters
    ----------
    given
        An objective, whose Hessian is assembled at its x, or a `Hessian`, where it was taken.
    step_tol
        The largest component of a Newton step up to which the point is called stationary, in the units of x.
    seed
        Of starting vectors.
    how
        Other arguments of `assemble`, for an objective.

    Returns
    -------
    StationaryPoint
        The caller closes it.

    Raises
    ------
    InputError
        Neither an objective nor a Hessian, a tolerance that is no length, or an objective without a gradient.
    NotConverged
        The eigenvalues nearest to zero are not found.
    StackError
        PETSc has no MUMPS, or complex scalars.

    References
    ----------
    .. [1] B. N. Parlett, The Symmetric Eigenvalue Problem, SIAM, 1998, sections 1.6 and 10.3.

    Examples
    --------
    The saddle of x⁴ - x² + y² at 0, from a point beside it:

    >>> import numpy as np
    >>> import sparsehess as sh
    >>> saddle = sh.Objective(
    ...     x=np.array([1e-4, 0.0]),
    ...     gradient=lambda x: np.array([4 * x[0] ** 3 - 2 * x[0], 2 * x[1]]),
    ...     pattern=sh.Pattern.from_edges(np.array([[0, 1]]), 2),
    ... )
    >>> with sh.stationary_point(saddle, step_tol=1e-3) as found:
    ...     print(found.index, found.certified, found.stationary, found.is_saddle(1))
    1 True True True
    """
    if step_tol is not None:
        step_tol = positive_number(step_tol, "step_tol")
    if isinstance(given, Hessian):
        if how:
            raise InputError(f"{next(iter(how))}: the Hessian is given, and is not assembled")
        return _of_hessian(given, step_tol, seed)
    if not isinstance(given, Objective):
        raise InputError(f"stationary_point takes an Objective or a Hessian, not {type(given).__name__}")
    with assemble(given, **how) as hessian:
        return _of_hessian(hessian, step_tol, seed)


def _of_hessian(hessian: Hessian, step_tol: float | None, seed: int) -> StationaryPoint:
    """Return what a Hessian and its objective tell of the point where it was taken. Collective."""
    objective = hessian.objective
    if objective.gradient is None:
        raise InputError(f"{objective.name} has no gradient, which tells how far a point is from rest")
    with EigenProblem.of(hessian) as problem:
        known = len(problem.null)
        if not problem.sought:
            raise InputError(
                f"{objective.name}: {known} null vectors span all that may move: no direction is left"
            )
        signs = count_inertia(problem, None, {})
        many = min(min(signs.negative, MOST) + 1, problem.sought)
        lowest = _solved(problem, SolveSpec(k=many, seed=seed))
        try:
            nearest = _solved(problem, SolveSpec(k=1, target=0.0, seed=seed))
            nearest.close()
            reach = max(_reach(nearest), 0.0 if lowest.error_bound is None else lowest.error_bound)
            if reach > signs.threshold or (reach > 0 and not signs.certified):
                signs = count_inertia(problem, max(reach, _BESIDE_NULL * problem.scale * bool(known)), {})
            signs = _without_zeros(signs, known)
            move = _newton(hessian, problem, signs.certified)
        except BaseException:
            lowest.close()
            raise
    directions = [vector for value, vector in zip(lowest.eigenvalues, lowest.vectors, strict=True) if value < 0]
    destroy(*lowest.vectors[len(directions) :])
    value = float(nearest.eigenvalues[0])
    return StationaryPoint(
        index=signs.negative,
        certified=signs.certified,
        doubt=signs.doubt,
        signs=signs,
        eigenvalues=lowest.eigenvalues,
        errors=np.maximum(lowest.total_errors, lowest.roundings),
        nearest=value,
        margin=abs(value) / reach if reach > 0 else np.inf,
        directions=directions,
        step_tol=step_tol,
        **move,
    )


def _solved(problem: EigenProblem, spec: SolveSpec) -> Spectrum:
    """Return pairs, all that were asked for. Collective."""
    found = solve(problem, spec)
    error = shortfall(found)
    if error is not None:
        found.close()
        raise error
    return found


def _reach(found: Spectrum) -> float:
    """Return how far the error of the matrix, or a solver, or last digits may move one. Not collective."""
    error = float(found.total_errors[0])
    if found.error_bound is not None and found.errors is not None:
        error += found.error_bound - float(found.errors[0])
    return max(error, float(found.roundings[0]))


def _without_zeros(signs: Inertia, known: int) -> Inertia:
    """Return counts that are certified only where nothing but known null vectors is zero. Not collective."""
    flat = signs.zero - known
    if signs.doubt:
        return replace(signs, certified=False, doubt=f"the error of the Hessian may hide a sign: {signs.doubt}")
    if not flat and not signs.infinite:
        return signs
    told = f"{number_of(flat, 'eigenvalue is', 'eigenvalues are')} zero to {signs.threshold:.1e}"
    if signs.infinite:
        told = f"{number_of(signs.infinite, 'variable has', 'variables have')} no mass"
    return replace(signs, certified=False, doubt=told)


def _newton(hessian: Hessian, problem: EigenProblem, sound: bool) -> dict[str, float]:
    """Return what the gradient is, where a Newton step goes, and what is left there. Collective."""
    objective = hessian.objective
    comm, evaluations = objective.comm, Evaluations(objective, objective.x)
    g = evaluations.gradients([hessian.point])[0]
    noise = 0.0 if hessian.noise is None else _norm(comm, hessian.noise.level)
    found = {"gradient": _norm(comm, g), "gradient_max": _largest(comm, g), "noise": noise}
    if not sound:
        return found | dict.fromkeys(("step", "step_max", "energy_change", "left"), np.nan)
    s = _step(problem, g)
    after = evaluations.gradients([hessian.point + s])[0]
    change = 0.5 * comm.allreduce(float(g @ s))
    moved = {"step": _norm(comm, s), "step_max": _largest(comm, s), "energy_change": change}
    return found | moved | {"left": _norm(comm, after)}


def _step(problem: EigenProblem, g: np.ndarray) -> np.ndarray:
    """Return (n_local,) the Newton step, orthogonal to null vectors in the mass. Collective."""
    images = [problem.A.createVecLeft() for _ in problem.null]
    for vector, image in zip(problem.null, images, strict=True):
        if problem.M is None:
            vector.copy(image)
        else:
            problem.M.mult(vector, image)
    C = constraints_of_vectors(images, problem.layout)
    try:
        system = SaddlePoint.of(problem, C)
    finally:
        destroy(C, *images)
    try:
        system.factors.factorize()
        return system.factors.solve(system.of_whole(-g[:, None]))[: problem.layout.n_local, 0]
    finally:
        system.close()


def _norm(comm: MPI.Comm, own: np.ndarray) -> float:
    return float(np.sqrt(comm.allreduce(float(own @ own))))


def _largest(comm: MPI.Comm, own: np.ndarray) -> float:
    return float(comm.allreduce(float(np.abs(own).max(initial=0.0)), op=MPI.MAX))
