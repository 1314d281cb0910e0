"""All of a small problem by LAPACK, on one rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.solve_monitor import OnProgress, OnRestart, ignore_progress, ignore_restart
from sparsehess.errors import InputError, none_of
from sparsehess.runtime import PETSc, destroy, on_root

# A direction with less than this part of the largest mass, or stiffness, has none.
_MASSLESS = 1e3 * float(np.finfo(float).eps)

# Beyond this a dense matrix takes half a gigabyte, and LAPACK minutes.
LIMIT = 8000


@dataclass
class LapackSolver:
    """LAPACK's dsyevd or dsygvd on matrices gathered to the first rank, with the interface of `KrylovSchur`.

    Of complex ones zheevd or zhegvd.

    Attributes
    ----------
    problem
        What is solved; shells are applied to the columns of the identity. Massless dofs are condensed out.
    options
        None can be given.
    target
        What `nearest` refers to.
    on_progress
        Called once, when all is done.
    seconds, iterations
        As those of `KrylovSchur`.

    Raises
    ------
    InputError
        n beyond `LIMIT`, or options.
    """

    problem: EigenProblem
    options: dict = field(default_factory=dict)
    target: float = field(default=0.0, kw_only=True)
    on_progress: OnProgress = field(default=ignore_progress, kw_only=True)
    seconds: dict[str, float] = field(default_factory=lambda: {"factorization": 0.0, "solve": 0.0}, init=False)
    iterations: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Refuse what LAPACK is not for."""
        if self.problem.n > LIMIT:
            raise InputError(
                f"method dense is for n up to {LIMIT}, this problem has n = {self.problem.n}: "
                "use method krylovschur or lobpcg"
            )
        if self.options:
            listed = ", ".join("-" + key for key in sorted(self.options))
            raise InputError(f"PETSc options that nothing has used: {listed}; method dense takes none")
        self._matrices: tuple[np.ndarray | None, np.ndarray | None] | None = None  # A and M

    @property
    def products(self) -> int:
        """How many products would take as long: all."""
        return self.problem.n

    def predict_products(self, low: float, high: float, expected: int) -> float:
        """Return 0: products are no measure of a dense solve. Not collective."""
        return 0.0

    def used_defaults(self) -> dict:
        """Return the options of this solver: none.

        Not collective.
        """
        return {}

    def solve(
        self,
        which: str,
        k: int,
        *,
        deflate: Sequence[PETSc.Vec] = (),
        wider: int = 0,
        seed: int = 0,
        guess: Sequence[PETSc.Vec] = (),
        on_restart: OnRestart = ignore_restart,
    ) -> list[PETSc.Vec]:
        """Return the k eigenvectors asked for, fewer where no more exist. The caller destroys them.

        Collective. `wider`, `seed`, `guess` and `on_restart` change nothing.

        Parameters
        ----------
        which
            `smallest`, `largest`, `magnitude`, or `nearest` to the target.
        k
            How many.
        deflate
            Eigenvectors to leave out, Vecs, beside the problem's null vectors.
        """
        return self._solve(deflate, k, lambda values: _first(values, which, k, self.target))

    def find(
        self,
        low: float,
        high: float,
        expected: int,
        *,
        deflate: Sequence[PETSc.Vec] = (),
        seed: int = 0,
        on_restart: OnRestart = ignore_restart,
    ) -> list[PETSc.Vec]:
        """Return the eigenvectors with eigenvalues in [low, high]. The caller destroys them.

        Collective. `expected`, `seed` and `on_restart` change nothing.
        """

        def inside(values: np.ndarray) -> np.ndarray:
            return np.flatnonzero((values >= low) & (values <= high))

        return self._solve(deflate, expected, inside)

    def _solve(
        self, deflate: Sequence[PETSc.Vec], expected: int, choose: Callable[[np.ndarray], np.ndarray]
    ) -> list[PETSc.Vec]:
        problem = self.problem
        began = time.perf_counter()
        if self._matrices is None:
            M = None if problem.M is None else gather(problem, problem.M)
            self._matrices = gather(problem, problem.A), M
        null, away = (
            [_gather_vector(problem, vector) for vector in vectors] for vectors in (problem.null, deflate)
        )
        columns = on_root(problem.comm, _chosen, *self._matrices, null, away, choose)
        vectors = []
        for column in columns:
            vector = problem.A.createVecRight()
            vector.setArray(column[problem.layout.start : problem.layout.stop])
            vectors.append(vector)
        self.seconds["solve"] += time.perf_counter() - began
        self.on_progress(len(vectors), expected)
        return vectors

    def close(self) -> None:
        """Forget the gathered matrices.

        Not collective.
        """
        self._matrices = None


def gather(problem: EigenProblem, matrix: PETSc.Mat) -> np.ndarray | None:
    """Return a matrix as a dense array on the first rank, None on the others.

    Collective. Column by column, which serves assembled and shell matrices alike.
    """
    layout, comm = problem.layout, problem.comm
    unit, image = matrix.createVecRight(), matrix.createVecLeft()
    own = np.empty((layout.n, layout.n_local), PETSc.ScalarType)
    for j in range(layout.n):
        unit.set(0.0)
        if layout.start <= j < layout.stop:
            unit.getArray()[j - layout.start] = 1.0
        matrix.mult(unit, image)
        own[j] = image.getArray(readonly=True)
    destroy(unit)
    destroy(image)
    parts = comm.gather(own)
    if parts is None:
        return None
    whole = np.concatenate(parts, axis=1).T  # its columns were gathered, as rows
    return (whole + whole.conj().T) / 2


def _gather_vector(problem: EigenProblem, vector: PETSc.Vec) -> np.ndarray | None:
    parts = problem.comm.gather(vector.getArray(readonly=True).copy())
    return None if parts is None else np.concatenate(parts)


def _chosen(
    A: np.ndarray,
    M: np.ndarray | None,
    null: list[np.ndarray],
    away: list[np.ndarray],
    choose: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Return the wanted eigenvectors as rows; on one rank."""
    values, vectors = _all(A, M, null)
    if away:
        values, vectors = _without(values, vectors, M, np.array(away).T)
    return np.ascontiguousarray(vectors[:, choose(values)].T)


def _first(values: np.ndarray, which: str, k: int, target: float) -> np.ndarray:
    """Return the places of the k wanted values."""
    distance = {
        "smallest": lambda: values,
        "largest": lambda: -values,
        "magnitude": lambda: -np.abs(values),
        "nearest": lambda: np.abs(values - target),
    }
    if which not in distance:
        raise none_of(f"which={which!r}", which, distance)
    return np.argsort(distance[which](), kind="stable")[:k]


def _all(A: np.ndarray, M: np.ndarray | None, null: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return all finite eigenpairs orthogonal to null vectors.

    Massless directions follow the others statically (Guyan 1965); those that A does not resist among themselves,
    such as multipliers, constrain the others.
    """
    if M is None:
        return _on_complement(A, None, null)
    diagonal = np.diag(M).real
    unit = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    masses, V = np.linalg.eigh(unit[:, None] * M * unit)
    heavy = masses > _MASSLESS * max(masses[-1], 0.0)
    if heavy.all():
        return _on_complement(A, M, null)
    R, N = unit[:, None] * V[:, heavy], unit[:, None] * V[:, ~heavy]
    stiff, turn = np.linalg.eigh(N.conj().T @ A @ N)
    resists = np.abs(stiff) > _MASSLESS * np.abs(stiff).max(initial=0.0)
    N1, N0 = N @ turn[:, resists], N @ turn[:, ~resists]
    follow = -(N1.conj().T @ A @ R) / stiff[resists, None]
    R = R + N1 @ follow
    coupling = R.conj().T @ A @ N0
    if coupling.size:
        left, sizes, _ = np.linalg.svd(coupling)
        rank = int(np.count_nonzero(sizes > _MASSLESS * sizes.max(initial=0.0)))
        if rank < coupling.shape[1]:
            raise InputError(
                f"the pencil is singular to rounding: the Hessian and the mass matrix share "
                f"{coupling.shape[1] - rank} null vector(s); hold what neither resists, or give it a mass"
            )
        R = R @ left[:, rank:]
    dual = [R.conj().T @ (M @ vector) for vector in null]  # M-orthonormal vectors in R's own coordinates
    gram = R.conj().T @ M @ R
    values, small = _on_complement(R.conj().T @ A @ R, gram, [np.linalg.solve(gram, one) for one in dual])
    vectors = R @ small
    if coupling.size:  # the forces of constraints
        rest = M @ vectors * values - A @ vectors
        vectors = vectors + N0 @ np.linalg.lstsq(A @ N0, rest, rcond=None)[0]
    return values, vectors


def _on_complement(A: np.ndarray, M: np.ndarray | None, null: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return all eigenpairs of the pencil on what is orthogonal to null vectors in the mass."""
    import scipy.linalg

    if not null:
        return np.linalg.eigh(A) if M is None else scipy.linalg.eigh(A, M)
    N = np.array(null).T
    Z = scipy.linalg.qr(N if M is None else M @ N)[0][:, len(null) :]
    small = Z.conj().T @ A @ Z
    small = (small + small.conj().T) / 2
    if M is None:
        values, vectors = np.linalg.eigh(small)
    else:
        mass = Z.conj().T @ M @ Z
        values, vectors = scipy.linalg.eigh(small, (mass + mass.conj().T) / 2)
    return values, Z @ vectors


def _without(
    values: np.ndarray, vectors: np.ndarray, M: np.ndarray | None, away: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Leave the span of `away`, which eigenvectors span, out of a full set of eigenpairs.

    In the coordinates of the eigenvectors: for each eigenvalue that holds some of it, the complement within
    its cluster, which Householder's QR gives.
    """
    import scipy.linalg

    inside = vectors.conj().T @ (away if M is None else M @ away)
    inside = scipy.linalg.orth(inside)
    size = np.linalg.norm(inside, axis=1)
    touched = np.flatnonzero(size > 1e-6)
    rest = np.setdiff1d(np.arange(len(values)), touched)
    complement = scipy.linalg.null_space(inside[touched].conj().T, rcond=1e-6)
    small, turn = np.linalg.eigh(complement.conj().T @ (values[touched, None] * complement))
    values = np.concatenate([small, values[rest]])
    return values, np.hstack([vectors[:, touched] @ complement @ turn, vectors[:, rest]])
