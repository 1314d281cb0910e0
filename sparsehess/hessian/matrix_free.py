"""`MatrixFree`: the Hessian of an objective as a PETSc shell matrix, products by AD or by differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.coloring import Coloring, color
from sparsehess.derivatives.consistency import check_consistency
from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.finite_differences import compress, directional, plan_steps, scheme_of
from sparsehess.derivatives.gradient_noise import Noise, estimate_noise
from sparsehess.derivatives.objective import Objective
from sparsehess.derivatives.scales import Scales
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, called_back, destroy
from sparsehess.runtime.linear_operator import linear_operator
from sparsehess.runtime.random_numbers import draw_signed
from sparsehess.runtime.short_repr import ShortRepr, number_of

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

# To what part of its norm products are symmetric: in double precision, by differences, in single precision.
_EXACT, _DIFFERENCES, _SINGLE = 1e-10, 1e-5, 1e-5

# A gradient is noisy whose noise is this part of its change over a typical length.
_NOISY = 1e-9

# Random products for a diagonal where there is no pattern.
_SAMPLES = 64


class MatrixFree(ShortRepr):
    """A Hessian that is never assembled.

    Collective to make and to use. A context manager; `close()` destroys the matrix.

    Parameters
    ----------
    objective
        With products (`hvp`, `hvps`), or a gradient, whose noise is measured with 7 calls.
    x
        Where the Hessian is taken; default the objective's x.
    seed
        Of random vectors.
    precision
        `double`, or `single`: the objective's products get and give float32, everything else stays in float64.
    verify
        Whether products, gradient and energy are compared, of what the objective has: two calls of each, at this
        x and not at those of updates.

    Attributes
    ----------
    mat
        PETSc shell matrix, symmetric, in the objective's layout. A product costs one of the objective's, or
        two gradients. It has a diagonal, see `diagonal`.
    evaluations
        Calls so far of `gradient` and `hvp`, and those for the `noise` and to verify (`verification`).

    Raises
    ------
    InputError
        The objective has neither products nor a gradient; or single precision is wanted of what is not products
        of arrays.
    CheckError
        Products, gradient and energy contradict each other.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> objective = sh.Objective(x=np.ones(4), gradient=lambda x: x**3, hvp=lambda x, v: 3 * x**2 * v)
    >>> with sh.MatrixFree(objective) as H:
    ...     print(H.product(np.arange(4.0)))
    [0. 3. 6. 9.]
    """

    def __init__(
        self,
        objective: Objective,
        x: np.ndarray | PETSc.Vec | None = None,
        *,
        seed: int = 0,
        precision: str = "double",
        verify: bool = True,
    ) -> None:
        if precision not in ("double", "single"):
            raise InputError(f"precision={precision!r} is neither double nor single")
        self.objective = objective if precision == "double" else _in_single(objective)
        self.seed, self.precision = seed, precision
        self.evaluations = {"gradient": 0, "hvp": 0, "energy": 0, "noise": 0, "verification": 0}
        self.noise: Noise | None = None
        self._scheme = scheme_of("auto", objective)
        self._coloring: Coloring | None = None
        layout = objective.layout
        size = ((layout.n_local, layout.n),) * 2
        x = objective.x if x is None else x
        if verify:
            self.evaluations["verification"] = check_consistency(self.objective, x, seed=seed)
        self.update(x)
        self.mat = PETSc.Mat().createPython(size, _Context(self), comm=layout.comm)
        self.mat.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        self.mat.setOption(PETSc.Mat.Option.SYMMETRY_ETERNAL, True)
        self.mat.setUp()

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield repr(self.objective.name)
        yield number_of(self._evaluations.layout.n, "variable")
        yield "products by differences" if self.by_differences else f"products in {self.precision} precision"
        if self.mat is None:
            yield "closed"

    @property
    def point(self) -> np.ndarray:
        """Where it is taken, (n_local,)."""
        return self._evaluations.x

    @property
    def exactness(self) -> float:
        """To what part of its norm products may differ from those of a symmetric matrix."""
        if self.precision == "single":
            return _SINGLE
        return max(_DIFFERENCES, 10 * self.error) if self.by_differences else _EXACT

    @cached_property
    def error(self) -> float:
        """About how inexact products are, relative to their size; 0 where nothing but rounding is known.

        Collective the first time after an `update`. Of differences by a second one, along a random direction with
        half the step: steps and noise both show in what that changes, noise twice over. In single precision its
        rounding.
        """
        if self.precision == "single":
            return float(np.finfo(np.float32).eps)
        if not self.by_differences:
            return 0.0
        direction = draw_signed(self.objective.layout, self.seed)
        full, half = self.product(direction), self._by_differences(direction, 0.5)
        squares = np.array([np.linalg.norm(full - half) ** 2, np.linalg.norm(full) ** 2])
        apart, size = self.objective.comm.allreduce(squares).tolist()
        if not np.isfinite(apart + size):
            return 0.0  # products that are not finite are refused by who takes them
        return float(np.sqrt(apart / size)) if size > 0 else float(apart > 0)

    @cached_property
    def noisy(self) -> bool:
        """Whether the gradient has more noise than its rounding makes. Collective the first time."""
        if self.noise is None:
            return False
        sums = np.array([float(self.noise.relative.sum()), float(len(self.noise.relative))])
        total, rows = self.objective.comm.allreduce(sums).tolist()
        return bool(total > _NOISY * rows)

    @property
    def by_differences(self) -> bool:
        """Whether products are differences of gradients."""
        return self._scheme != "product"

    @property
    def calls_of_product(self) -> int:
        """How many calls of the objective's functions a product takes: one, two gradients, or their energies."""
        if not self.by_differences:
            return 1
        return 2 if self.objective.gradient is not None else 4 * self.objective.n

    @property
    def diagonal_is_exact(self) -> bool:
        """Whether `diagonal` is no estimate from random products."""
        return self.objective.pattern is not None or self.objective.layout.n <= _SAMPLES

    def update(self, x: np.ndarray | PETSc.Vec) -> None:
        """Take the Hessian at x, of the kind of the objective's x.

        Collective.
        """
        self._evaluations = here = Evaluations(self.objective, x)
        scales = Scales.of(here)
        if self.noise is None and self._scheme != "product":
            self.noise = estimate_noise(here, scales)
            self.evaluations["noise"] += sum(here.counts.values())
            here.counts.update(gradient=0, energy=0)
        scales = scales if self.noise is None else replace(scales, length=self.noise.length)
        self._steps = plan_steps(scales, self.noise, self._scheme)
        self.__dict__.pop("error", None)  # that was of another point

    def product(self, vector: np.ndarray) -> np.ndarray:
        """Return H v (n_local,) for v (n_local,).

        Collective.
        """
        if self._scheme != "product":
            return self._by_differences(vector, 1.0)
        out = self._evaluations.along(vector[None])[0]
        self._count()
        return out

    def _by_differences(self, vector: np.ndarray, part: float) -> np.ndarray:
        """Return H v by a difference whose step is this part of the one that is best. Collective."""
        # As long a step as the variable that moves farthest allows.
        sizes = np.abs(vector) / (part * self._steps.wanted)
        farthest = max(self.objective.comm.allgather(float(sizes.max(initial=0.0))))
        if farthest == 0.0:
            return np.zeros(len(vector))
        out, _ = directional(self._evaluations, vector / farthest, self._scheme)
        self._count()
        return out * farthest

    def products(self, X: np.ndarray) -> np.ndarray:
        """Return H X (n_local, k) for X (n_local, k), in batches where the objective has them.

        Collective.
        """
        if self._scheme != "product":
            return np.stack([self.product(np.ascontiguousarray(column)) for column in X.T], axis=1)
        out = self._evaluations.along(np.ascontiguousarray(X.T)).T
        self._count()
        return out

    def noise_of_column(self, column: int) -> np.ndarray:
        """Return (n_local,) standard deviations of what the gradient's noise makes of a column; zeros of products.

        Collective.
        """
        layout = self.objective.layout
        if self.noise is None:
            return np.zeros(layout.n_local)
        own = layout.start <= column < layout.stop
        step = self.objective.comm.allreduce(float(self._steps.wanted[column - layout.start]) if own else 0.0)
        return np.sqrt(0.5) * self.noise.level / step  # of two gradients, over two steps

    def noise_of_whole(self) -> float:
        """Return about the Frobenius norm of what the gradient's noise makes of all columns; 0 of products.

        Collective. In a column alone one variable moves, and every row is noisy.
        """
        if self.noise is None:
            return 0.0
        sums = np.array([self.noise.level @ self.noise.level, np.sum(self._steps.wanted**-2.0)])
        levels, steps = self.objective.comm.allreduce(sums).tolist()
        return float(np.sqrt(0.5 * levels * steps))

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (n_local,).

        Collective. With a pattern exact, from one difference for each colour of a star colouring, and of up to 64
        variables, from as many products; else an estimate from 64 random products (Bekas, Kokiopoulou, Saad 2007,
        equation 5), good enough to precondition.
        """
        here, pattern, layout = self._evaluations, self.objective.pattern, self.objective.layout
        if pattern is not None:
            coloring = self._coloring = self._coloring or color(pattern)
            found = compress(here, coloring, self._steps)
            self._count()
            out, rows = np.zeros(layout.n_local), np.flatnonzero(coloring.colors >= 0)  # others have none
            out[rows] = found.changes[coloring.colors[rows], rows] / found.taken[rows]
            return out
        total, own = np.zeros(layout.n_local), np.arange(layout.start, layout.stop)
        if self.diagonal_is_exact:
            for column in range(layout.n):
                unit = (own == column).astype(np.float64)
                total += unit * self.product(unit)
            return total
        for sample in range(_SAMPLES):
            signs = np.sign(draw_signed(layout, self.seed + sample))
            total += signs * self.product(signs)
        return total / _SAMPLES

    def _count(self) -> None:
        for name, calls in self._evaluations.counts.items():
            self.evaluations[name] += calls
            self._evaluations.counts[name] = 0

    def aslinearoperator(self) -> LinearOperator:
        """Return it as a SciPy `LinearOperator`, for as long as this is not closed.

        Not collective; its products are. On several ranks they take and give whole vectors (n,), the same on
        every rank: iterations that begin at random must be given the same start everywhere (`v0` of `eigsh`).

        Raises
        ------
        InputError
            It is closed.

        Examples
        --------
        >>> import numpy as np
        >>> import scipy.sparse.linalg
        >>> import sparsehess as sh
        >>> objective = sh.Objective(x=np.ones(50), gradient=lambda x: x**3, hvp=lambda x, v: 3 * x**2 * v)
        >>> with sh.MatrixFree(objective) as H:
        ...     solution, status = scipy.sparse.linalg.cg(H.aslinearoperator(), np.ones(50), atol=1e-10)
        >>> print(np.allclose(solution, 1 / 3), status)
        True 0
        """
        return linear_operator(self.mat, "MatrixFree")

    def close(self) -> None:
        """Destroy the matrix.

        Collective.
        """
        destroy(self.mat)
        self.mat = None

    def __enter__(self) -> MatrixFree:
        """Return the object itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close the object. Collective."""
        self.close()


def _in_single(objective: Objective) -> Objective:
    """Return the objective with products that get and give float32."""
    if objective.distributed or (objective.hvp is None and objective.hvps is None):
        raise InputError("single precision is for products (hvp, hvps) of arrays")

    def rounded(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
        single = np.float32
        return function and (lambda x, v: function(x.astype(single), v.astype(single)))

    return replace(objective, hvp=rounded(objective.hvp), hvps=rounded(objective.hvps))


class _Context:
    """What PETSc calls."""

    def __init__(self, owner: MatrixFree) -> None:
        self._owner = owner

    @called_back
    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.setArray(self._owner.product(x.getArray(readonly=True).copy()))

    multTranspose = mult  # the name is PETSc's

    @called_back
    def getDiagonal(self, mat: PETSc.Mat, d: PETSc.Vec) -> None:
        d.setArray(self._owner.diagonal())

    def matmat(self, X: np.ndarray) -> np.ndarray:
        return self._owner.products(X)
