"""`Operator`: what can be asked of every Hessian with a structure, and how it is solved with where none helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.petsc_shells import ShellProducts, ShellSolves
from sparsehess.operators.plain_solver import PlainSolver
from sparsehess.operators.solutions import System
from sparsehess.operators.tall_skinny_qr import local_array
from sparsehess.operators.told_eigenvalues import ToldEigenvalues
from sparsehess.runtime import (
    PETSc,
    communicator,
    destroy,
    require_real,
)
from sparsehess.runtime.linear_operator import linear_operator
from sparsehess.runtime.random_numbers import draw_uniform
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from typing import Self

    from mpi4py import MPI

    from scipy.sparse.linalg import LinearOperator

_EPS = float(np.finfo(float).eps)

# Of the right-hand side that shows whether a matrix is singular.
_SEED = 31


class Operator(ToldEigenvalues, ShortRepr):
    """A symmetric matrix with a structure, over the rows of a layout.

    *Collective* to make and to use. A context manager; `close()` destroys what it owns.

    Eigenvalues, counts, the inertia and functions are what the structure itself tells; where it does not they are
    refused, and `knows_eigenvalues`, `knows_counts` and `knows_pairs` say so. `eigs`, `trace`, `rank` and the
    other functions of the package take every operator: they ask the structure first. Products, solves and traces
    there are always: by a factorization of an assembled matrix, by iterations of a shell.

    Attributes
    ----------
    mat
        PETSc matrix: assembled, or a shell with products and a diagonal. PETSc takes it.
    layout
        Rows of each rank.
    comm
        The ranks.
    n
        How many rows.

    Raises
    ------
    StackError
        PETSc's scalars are complex.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.Kronecker((np.diag([1.0, 2.0]), np.diag([3.0, 5.0]))) as H:
    ...     print(H.n, H.trace(), H.spectrum(2), H.knows_eigenvalues)
    4 24.0 [3. 5.] True
    """

    mat: PETSc.Mat
    layout: Layout
    _anchor: PETSc.Vec | None = None
    _solver: PlainSolver | None = None
    _system: System | None = None
    _judge: type[System] = System

    def __new__(cls, *arguments: object, **named: object) -> Self:
        """Make one where scalars are real. Not collective."""
        require_real("a structured Hessian")
        return super().__new__(cls)

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield number_of(self.layout.n, "row")
        if len(self.layout.starts) > 2:
            yield f"over {len(self.layout.starts) - 1} ranks"
        if self.mat is None:
            yield "closed"

    def _take_matrix(self, mat: PETSc.Mat) -> None:
        """Take over an assembled matrix."""
        self.mat = mat
        mat.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        self.layout = Layout.from_local(mat.getLocalSize()[0], communicator(mat.comm))

    def _make_shell(self, layout: Layout, symmetric: bool = True, context: object | None = None) -> None:
        """Make the matrix a shell, of whose products this object is the source, through what PETSc calls."""
        self.layout = layout
        size, context = (
            ((layout.n_local, layout.n),) * 2,
            ShellProducts(self.product, self.transposed_product, self.diagonal) if context is None else context,
        )
        self.mat = PETSc.Mat().createPython(size, context, comm=layout.comm)
        self.mat.setOption(PETSc.Mat.Option.SYMMETRIC, symmetric)
        self.mat.setUp()

    def _keep_communicator(self, comm: PETSc.Comm | None) -> Self:
        """Keep the communicator of an object that this was made of, and may outlive; return this."""
        if comm is not None:
            self._anchor = PETSc.Vec().createMPI((0, 0), comm=comm)
        return self

    @property
    def _kept_communicator(self) -> PETSc.Comm | None:
        return None if self._anchor is None else self._anchor.comm

    @property
    def comm(self) -> MPI.Comm:
        """The ranks. Not collective."""
        return self.layout.comm

    @property
    def n(self) -> int:
        """How many rows. Not collective."""
        return self.layout.n

    # --- what shells define ---

    def product(self, vector: np.ndarray) -> np.ndarray:
        """Return H v (n_local,) for v (n_local,).

        Collective.
        """
        x, y = self._vec(vector), self.mat.createVecLeft()
        self.mat.mult(x, y)
        out = y.getArray().copy()
        destroy(x, y)
        return out

    def transposed_product(self, vector: np.ndarray) -> np.ndarray:
        """Return Hᵀ v (n_local,), which only rounding makes another than H v.

        Collective.
        """
        return self.product(vector)

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (n_local,).

        Collective.
        """
        diagonal = self.mat.getDiagonal()
        out = diagonal.getArray().copy()
        destroy(diagonal)
        return out

    @property
    def diagonal_is_exact(self) -> bool:
        """Whether `diagonal` is no estimate. Collective."""
        return True

    def diagonal_rounding(self) -> np.ndarray:
        """Return (n_local,) how far rounding may have moved `diagonal`.

        Collective.
        """
        return _EPS * np.abs(self.diagonal())

    def trace(self) -> float:
        """Return the trace.

        Collective.
        """
        return self.comm.allreduce(float(self.diagonal().sum()))

    # --- what the structure may tell beside its eigenvalues ---

    def function(self, f: Callable[[np.ndarray], np.ndarray]) -> Operator:
        """Return f(H), of a kind that has these eigenvectors.

        Collective.

        Raises
        ------
        InputError
            The structure does not tell the eigenvectors, or f is not finite at an eigenvalue.
        """
        raise InputError(f"the eigenvectors of a {type(self).__name__} are not known")

    def inverse_diagonal(self, shift: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the diagonal (n_local,) of (H + shift I)⁻¹ and how far rounding may have moved it.

        Collective. None where no formula for it is known but by eigenvectors.
        """
        return None

    # --- what all answer ---

    def solve(self, b: PETSc.Vec | np.ndarray, shift: float = 0.0, *, singular: str = "refuse") -> Any:
        """Return the solution of (H + shift I) x = b.

        Collective. Here by an LDLᵀ factorization of an assembled matrix, kept for the next solve with this
        shift, and by MINRES (Paige, Saunders 1975) of a shell. Every solution is judged, whichever structure
        has made it: it is refined, and taken where it leaves no more than 1e-6 of b and the condition of
        H + shift I is estimated to be at most 4.5e13. Both are measured with variables scaled to a diagonal of
        ones where the condition is far less so. Iterations find the x of least norm where there are several.

        Parameters
        ----------
        b
            Vec, or array (n_local,) or (n_local, m).
        shift
            Added to the diagonal.
        singular
            `refuse`, or `least-squares`: return the x of least norm of those with the least residual, which
            is the solution where there is one alone. From eigenvalues and eigenvectors where the structure
            tells them, of which those up to 2.2e-14 of the largest are left out; from the null vectors of
            Woodbury's formula; else by LSQR (Paige, Saunders 1982).

        Returns
        -------
        PETSc.Vec | np.ndarray
            x, of the kind of b.

        Raises
        ------
        InputError
            H + shift I is singular to rounding; the message has its condition.
        NotConverged
            Iterations did not reach a relative residual of 1e-10, or LSQR no least residual.
        """
        if singular not in ("refuse", "least-squares"):
            raise InputError(f"singular={singular!r} is neither refuse nor least-squares")
        if not np.isfinite(reals(shift, "the shift")):
            raise InputError(f"the shift {shift} must be finite")
        own = local_array(b, self.layout, "the right-hand side")
        if own.ndim == 2 and not own.shape[1]:
            return own
        system = self._system_of(float(shift))
        answer = system.solve if singular == "refuse" else system.least_squares
        x = answer(own if own.ndim == 2 else own[:, None]).reshape(own.shape)
        if not isinstance(b, PETSc.Vec):
            return x
        out = b.duplicate()
        out.setArray(x)
        return out

    def _system_of(self, shift: float) -> System:
        """Return H + shift I with what is known of it: the last one, if it was for this shift."""
        if self._system is None or self._system.shift != shift:
            self._system = self._judge(self, shift)
        return self._system

    def logdet(self, shift: float = 0.0) -> float:
        """Return log |det (H + shift I)|, -inf where it is singular; `inertia` tells the sign.

        Collective. Here from all eigenvalues where the structure tells them, else from the pivots of MUMPS.

        Raises
        ------
        InputError
            A shell of no known eigenvalues.
        """
        if self.knows_eigenvalues:
            return self.eigenvalues().logdet(shift)
        if not self._plain.factorizes:
            raise InputError(
                "the log-determinant of a shell without known eigenvalues can only be estimated: assemble it"
            )
        try:
            factor = self._plain.factorized(shift).getPC().getFactorMatrix()
        except InputError:
            return -np.inf
        mantissa, power = factor.getMumpsRinfog(12), factor.getMumpsInfog(34)
        return float(np.log(np.abs(mantissa)) + power * np.log(2.0)) if mantissa else -np.inf

    @property
    def knows_inverse(self) -> bool:
        """Whether the structure tells the inverse, and `inverse_root` of it. Collective the first time."""
        return self.knows_eigenvalues

    def condition(self, shift: float = 0.0) -> float:
        """Return about the condition number of H + shift I, infinite where it is singular to rounding.

        Collective. By some steps of the power method on it and on its inverse; the same number on every rank.
        """
        return self._system_of(float(shift)).condition

    def judged_condition(self, shift: float = 0.0) -> tuple[np.ndarray, float]:
        """Return (n_local,) what variables are scaled by where solutions are judged, and the condition then.

        Collective. Ones, but where units alone make the condition large.
        """
        return self._system_of(float(shift)).judged

    def inverse_root(self, z: np.ndarray, shift: float = 0.0) -> np.ndarray:
        """Return R z (n_local, m) with R Rᵀ = (H + shift I)⁻¹.

        Collective. Of normal z these are samples of N(0, (H + shift I)⁻¹).

        Parameters
        ----------
        z
            (n_local, m).
        shift
            Added to the diagonal.

        Raises
        ------
        InputError
            The structure does not tell it, or H + shift I is not positive definite.
        """
        self._refuse_indefinite(shift)
        with self.function(lambda values: 1 / np.sqrt(values + shift)) as root:
            return np.stack([root.product(np.ascontiguousarray(column)) for column in z.T], axis=1)

    def _refuse_indefinite(self, shift: float) -> None:
        """Raise InputError where H + shift I is not positive definite. Collective."""
        self._refuse_singular(shift)
        negative = self.negative(shift)
        if negative:
            raise InputError(
                f"{negative} eigenvalues of the matrix with {shift:g} on its diagonal are negative: it is the "
                "inverse of no covariance"
            )

    def _refuse_singular(self, shift: float) -> None:
        """Raise InputError where a solution would not be taken. Collective."""
        self.solve(draw_uniform(self.layout, _SEED), shift)

    @classmethod
    def weighted(cls, items: Sequence[tuple[float, Self]], shift: float) -> Self | None:
        """Return Σ a H + shift I of (a, H) of this kind as one of this kind; None where it is none.

        Collective.
        """
        return None

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
        >>> with sh.LowRankDiagonal(2.0, np.ones((50, 1))) as H:
        ...     solution, status = scipy.sparse.linalg.cg(H.aslinearoperator(), np.ones(50), atol=1e-10)
        >>> print(np.allclose(solution, 1 / 52), status)
        True 0
        """
        return linear_operator(self.mat, type(self).__name__)

    def preconditioner(self, shift: float = 0.0) -> PETSc.PC:
        """Return a PETSc preconditioner that solves with H + shift I. The caller destroys it, before this.

        Collective. For `KSP.setPC`, and through `ST.getKSP` for eigensolvers. It need not be exact: solutions
        are neither refined nor judged, but those that are not finite are refused.
        """
        pc = PETSc.PC().create(self.comm)
        pc.setOperators(self.mat)
        pc.setType("python")
        pc.setPythonContext(ShellSolves(self.apply_inverse, shift, self.comm))
        return pc

    @property
    def applies_inverse(self) -> bool:
        """Whether `apply_inverse` is by no iterations. Collective the first time."""
        return self.solves_directly

    def apply_inverse(self, b: np.ndarray, shift: float) -> np.ndarray:
        """Return about (H + shift I)⁻¹ b (n_local, m), neither refined nor judged: for preconditioners.

        Collective. Not finite, or of no use, where the matrix is singular.
        """
        return self._solve(b, shift)

    def close(self) -> None:
        """Destroy the matrix and what was made of it.

        Collective.
        """
        self._forget()
        destroy(self.mat, self._anchor)
        self.mat = self._anchor = None

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close the object. Collective."""
        self.close()

    # --- where no structure helps ---

    @property
    def solves_directly(self) -> bool:
        """Whether solutions are by no iterations: refinement gains digits. Collective the first time."""
        return self._plain.factorizes

    def _solve(self, b: np.ndarray, shift: float) -> np.ndarray:
        """Return a solution (n_local, m) that nobody has judged, not finite where the system is singular."""
        return self._plain.solve(b, shift)

    def _least_squares(self, b: np.ndarray, shift: float) -> np.ndarray:
        """Return the solution of least norm (n_local, m) of those with the least residual."""
        out, reached = np.zeros_like(b), ~self._system_of(shift).takes(b)  # zero is the least of null vectors
        out[:, reached] = self._plain.least_squares(b[:, reached], shift)
        return out

    @property
    def _plain(self) -> PlainSolver:
        """What solves with the matrix as any."""
        if self._solver is None:
            self._solver = PlainSolver(
                self.mat, self.layout, lambda shift, x, b: self._system_of(shift).condition_of(x, b)
            )
        return self._solver

    def _forget(self) -> None:
        """Forget what has been made of a matrix that is another now. Collective."""
        if self._solver is not None:
            self._solver.close()
        self._solver = self._system = None

    def _vec(self, array: np.ndarray) -> PETSc.Vec:
        vector = self.mat.createVecRight()
        vector.setArray(array)
        return vector
