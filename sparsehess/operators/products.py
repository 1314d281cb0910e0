"""`from_matvec`: a symmetric matrix of which a function tells products, SciPy's linear operators among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.derivatives.returned_values import REAL, as_vector
from sparsehess.errors import EvaluationError, InputError, raised
from sparsehess.operators.operator import Operator
from sparsehess.operators.petsc_shells import BlockProducts
from sparsehess.runtime import agreement
from sparsehess.runtime.gathered_rows import rows_on_all
from sparsehess.runtime.guards import guard_of
from sparsehess.runtime.random_numbers import draw_signed
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.validation import whole_number

if TYPE_CHECKING:
    from mpi4py import MPI

# A diagonal takes so many products: exact where there are no more rows, else an estimate.
_SAMPLES = 64

# To what part of its size a matrix whose products are in single precision may be unsymmetric, and their error.
_SINGLE, _SINGLE_ERROR = 1e-5, float(np.finfo(np.float32).eps)
_DOUBLE = 1e-10


class Products(Operator):
    """A symmetric matrix of which only products are known; see `from_matvec`.

    Collective to make and to use. A context manager; `close()` destroys the matrix.
    """

    def __init__(
        self,
        matvec: Callable[[np.ndarray], Any],
        layout: Layout,
        matmat: Callable[[np.ndarray], Any] | None,
        distributed: bool,
        single: bool,
        name: str,
    ):
        self._matvec, self._matmat, self._name = matvec, matmat, name
        self._distributed, self.single = distributed, single
        self._make_shell(layout, context=BlockProducts(self))

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield from super()._repr_facts()
        yield f"by a {self._name}"

    @property
    def exactness(self) -> float:
        """To what part of its size products may differ from those of a symmetric matrix. Not collective."""
        return _SINGLE if self.single else _DOUBLE

    @property
    def error(self) -> float:
        """Relative error of the products, 0 where nothing but rounding is known. Not collective."""
        return _SINGLE_ERROR if self.single else 0.0

    @property
    def diagonal_is_exact(self) -> bool:
        """Whether `diagonal` is no estimate. Not collective."""
        return self.n <= _SAMPLES

    def product(self, vector: np.ndarray) -> np.ndarray:
        """Return H v (n_local,) for v (n_local,).

        Collective.
        """
        return self._called(self._matvec, vector)

    def products(self, X: np.ndarray) -> np.ndarray:
        """Return H X (n_local, k) for X (n_local, k), in one call where there is a function of blocks.

        Collective.
        """
        if self._matmat is None:
            return np.stack([self.product(np.ascontiguousarray(column)) for column in X.T], axis=1)
        return self._called(self._matmat, X)

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (n_local,): exact for up to 64 rows, else an estimate from 64 random products.

        Collective. Good enough to precondition (Bekas, Kokiopoulou, Saad 2007, equation 5).
        """
        layout, own = self.layout, np.arange(self.layout.start, self.layout.stop)
        total = np.zeros(layout.n_local)
        if self.diagonal_is_exact:
            for column in range(layout.n):
                unit = (own == column).astype(np.float64)
                total += unit * self.product(unit)
            return total
        for sample in range(_SAMPLES):
            signs = np.sign(draw_signed(layout, sample))
            total += signs * self.product(signs)
        return total / _SAMPLES

    def _called(self, function: Callable[[np.ndarray], Any], local: np.ndarray) -> np.ndarray:
        """Return the local rows of what a function makes of a vector or a block, (n_local,) or (n_local, k)."""
        layout = self.layout
        if self._distributed:
            given = local.copy()
        elif local.ndim == 1:
            given = rows_on_all(layout, local)
        else:
            given = np.stack([rows_on_all(layout, column) for column in local.T], axis=1)
        with agreement(layout.comm):
            returned = self._guarded(function, given)
            out = as_vector(returned, given.shape, REAL, f"the {self._name}", f" on rank {layout.comm.rank}")
            out = np.asarray(out, np.float64)
        return out if self._distributed else out[layout.start : layout.stop]

    def _guarded(self, function: Callable[[np.ndarray], Any], given: np.ndarray) -> Any:
        """Call a function of the user; what it raises becomes an EvaluationError that names the rank."""
        try:
            with guard_of(self.comm).watch_call(f"the {self._name}"):
                return function(given)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the user's code may raise anything
            raise EvaluationError(raised(f"the {self._name}", error, f" on rank {self.comm.rank}")) from error


def from_matvec(
    matvec: Callable[[np.ndarray], Any],
    n: int,
    *,
    matmat: Callable[[np.ndarray], Any] | None = None,
    distributed: bool = False,
    single: bool = False,
    comm: MPI.Comm | None = None,
    layout: Layout | None = None,
) -> Products:
    """Return a symmetric matrix of n rows of which a function tells products, for all that takes a Hessian.

    *Collective.* `eigs`, `density`, `trace`, `rank`, `inertia` and the others take a SciPy `LinearOperator` as it
    is, in the same way. Only products are asked for: a count certifies where n is at most 2,000, by n products;
    none is made beyond.

    Parameters
    ----------
    matvec
        `matvec(v) -> H v`. Of whole vectors (n,): then every rank has the operator, and all call it with the same
        vector. With `distributed` of this rank's rows (n_local,), all ranks together, on whatever they exchange.
    n
        How many rows over all ranks.
    matmat
        Optional, `matmat(V) -> H V` for (n, k), or (n_local, k).
    distributed
        Whether functions get and give the rows of a rank.
    single
        Whether products are in single precision: they may then be unsymmetric to 1e-5 of their size, and results
        are as exact as they are.
    comm, layout
        The ranks, over which rows are spread evenly, default this process alone; or the rows of each rank.

    Returns
    -------
    Products
        An `Operator`; the caller closes it.

    Raises
    ------
    InputError
        What is given is no function, or the layout has other rows.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> def product(v):  # a chain of masses and springs
    ...     return 2 * v - np.append(v[1:], 0.0) - np.append(0.0, v[:-1])
    >>> with sh.from_matvec(product, 100) as H, sh.eigs(H, 2) as found:
    ...     print(np.allclose(found.eigenvalues, 2 - 2 * np.cos(np.pi * np.arange(1, 3) / 101)))
    True
    """
    for function, name in ((matvec, "matvec"), (matmat, "matmat")):
        if not (callable(function) or (function is None and name == "matmat")):
            raise InputError(f"{name} must be a function of a vector, not {type(function).__name__}")
    n = whole_number(n, "n", 1)
    layout = layout or Layout.from_size(n, comm)
    if layout.n != n:
        raise InputError(f"n={n}, and the layout has {layout.n} rows")
    return Products(matvec, layout, matmat, distributed, single, "function of products")
