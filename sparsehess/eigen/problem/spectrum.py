"""What a solver answers: eigenpairs, what was checked of them, and their count."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.eigen.problem.projection import Projection
from sparsehess.errors import InputError, none_of
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, communicator, destroy, versions
from sparsehess.runtime.gathered_rows import GATHERED, gathered_columns
from sparsehess.runtime.html_fragments import fragment, note, table, ticks
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.storage.json_files import SCHEMA
from sparsehess.storage.result_files import read_pairs
from sparsehess.storage.writers import RESULTS, check_writable, write_results

if TYPE_CHECKING:
    from mpi4py import MPI

from sparsehess.eigen.problem.count import Count, finite_or_none
from sparsehess.eigen.problem.search import Search
from sparsehess.eigen.problem.solve_spec import SolveSpec, read_spec

# Rows of a table in a notebook.
_ROWS = 12

# What a solver leaves changes a printed digit from this part of an eigenvalue on; roundings of entries that hold
# that of a quotient.
_PRINTED, _ROUNDINGS = 5e-11, 8.0


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(ShortRepr):
    """Eigenpairs of a problem.

    *Collective* to make, by `eigs`, and to close. A context manager; `close()` destroys the vectors.

    Attributes
    ----------
    eigenvalues
        (k,) ascending, the same on every rank.
    vectors
        k Vecs, M-orthonormal.
    real_form
        Whether vectors have real and imaginary parts in turn, 2n rows: of a complex Hermitian matrix where PETSc's
        scalars are real. `to_numpy` returns complex ones.
    residuals
        (k,) backward errors ‖Hx − λMx‖ / ((‖H‖ + |λ|‖M‖) ‖x‖) in Frobenius norms, from the vectors. For a
        matrix-free Hessian the largest Ritz value stands for the norm, and Krylov-Schur bounds them all by four
        products, with a probability of 6.4e-7 to be wrong.
    orthogonality
        Largest |XᵀMX − I|.
    count
        The inertia count, or None where none was made; `uncounted` says why.
    search
        What was searched for beyond the pairs where nothing counts, None where that was not done.
    zeros
        How many of the eigenvalues are zero to the accuracy of the matrix.
    asked
        How many pairs were asked for (fewer than the k of the request where no more exist).
    advice
        What to do if fewer converged than were asked for; else empty.
    iterations, method, reason
        Of the solver; `reason` says why this method.
    timings
        Seconds of `factorization`, `solve`, `certificate`.
    options
        PETSc options of the solve: defaults, overridden by the caller's.
    held_to
        Backward error that the pairs were held to: the error of products of the Hessian, where that is larger than
        the tolerance.
    others
        Eigenvalues that were found past those asked for, of one that was not loaded.
    errors, error_bound, zero, roundings, lost
        Error bars of the eigenvalues, see `ErrorBars`: what the error of the Hessian does.
    solver_errors
        (k,) how far from each value an eigenvalue of the matrix as it is may be, for what the solver has left: a
        bound from the residuals in the norm of M⁻¹, to second order where a certified count proves a gap. Rounding
        of quotients, `roundings`, is not in it. nan where no lower bound of the mass is known.
    projection
        What it has changed that directions were projected out whatever the Hessian says of them; None where none
        were, and of one that was loaded.
    spec
        What was asked for; None where that is not known.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.eigs(np.diag([1.0, 2.0, 3.0]), which="largest", k=2) as found:
    ...     print(np.round(found.eigenvalues, 8), found.converged, bool(found.residuals.max() < 1e-8))
    [2. 3.] 2 True
    """

    eigenvalues: np.ndarray
    vectors: list[PETSc.Vec]
    residuals: np.ndarray
    orthogonality: float
    count: Count | None
    uncounted: str
    zeros: int
    asked: int
    advice: str
    iterations: int
    method: str
    reason: str
    timings: dict[str, float]
    options: dict[str, object]
    held_to: float
    others: np.ndarray = field(default_factory=lambda: np.empty(0))
    errors: np.ndarray | None = None
    error_bound: float | None = None
    zero: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    roundings: np.ndarray = field(default_factory=lambda: np.zeros(0))
    lost: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    projection: Projection | None = None
    search: Search | None = None
    spec: SolveSpec | None = None
    real_form: bool = False
    solver_errors: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        values = self.eigenvalues
        if len(values):
            many = (
                number_of(len(values), "pair")
                if len(values) == self.asked
                else f"{len(values)} of {self.asked} pairs"
            )
            yield f"{many} from {values[0]:.6g} to {values[-1]:.6g}"
        else:
            yield "no pairs"
        yield "not counted" if self.count is None else self.count.in_short
        yield f"by {self.method}"
        if len(self.vectors) < len(values):
            yield "closed"

    @property
    def converged(self) -> int:
        """How many pairs reached the tolerance."""
        return len(self.eigenvalues)

    @property
    def total_errors(self) -> np.ndarray:
        """(k,) `errors` and `solver_errors` together, zeros where none are known.

        The first are two standard deviations, the second bounds: the sum holds an eigenvalue as surely as the
        first hold what the error of the Hessian does.
        """
        known = np.zeros(len(self.eigenvalues)) if self.errors is None else self.errors
        if len(self.solver_errors) != len(known):
            return known
        return known + np.nan_to_num(self.solver_errors, nan=0.0, posinf=np.inf)

    @property
    def bars(self) -> np.ndarray | None:
        """(k,) the ± of tables: `total_errors`, where no error of the Hessian is known with rounding.

        None where neither is known to change a digit of those that tables print.
        """
        total = self.total_errors
        if self.errors is not None:
            return total
        zero = self.zero if len(self.zero) == len(total) else np.zeros(len(total), bool)
        if not (total > _PRINTED * np.abs(self.eigenvalues))[~zero].any():
            return None
        return total + (_ROUNDINGS * self.roundings if len(self.roundings) == len(total) else 0.0)

    @property
    def unsure(self) -> np.ndarray:
        """(k,) whether the sign of an eigenvalue is open: `total_errors` reach across zero, which it is not."""
        zero = self.zero if len(self.zero) == len(self.eigenvalues) else np.zeros(len(self.eigenvalues), bool)
        return ~(np.abs(self.eigenvalues) > self.total_errors) & ~zero & (self.eigenvalues != 0)

    def _repr_html_(self) -> str:
        """Return a small table and a picture for notebooks. Not collective."""
        many = len(self.eigenvalues)
        shown = np.arange(many) if many <= _ROWS else np.r_[: _ROWS // 2, many - _ROWS // 2 : many]
        heads = ["", "eigenvalue", "residual"]
        rows = [[i + 1, f"{self.eigenvalues[i]:.12g}", f"{self.residuals[i]:.1e}"] for i in shown]
        bars = self.bars
        if bars is not None:
            heads.insert(2, "±")
            for row, i in zip(rows, shown, strict=True):
                row.insert(2, f"{bars[i]:.1g}")
        if many > _ROWS:
            rows.insert(_ROWS // 2, ["...", f"{many - _ROWS} more"])
        told = f"not counted: {self.uncounted}" if self.count is None else self.count.in_short
        picture = ticks(self.eigenvalues, "eigenvalues")
        return fragment(repr(self)[1:-1], table(rows, heads), picture, note(told))

    def to_numpy(self, where: str = "all") -> tuple[np.ndarray, np.ndarray]:
        """Return eigenvalues (k,) and eigenvectors (n, k), which are columns, as NumPy and SciPy have them.

        Collective, but for `local`, which every rank may ask for by itself. The eigenvalues are on every rank.

        Parameters
        ----------
        where
            Who gets vectors: `all`, every rank all rows; `root`, rank 0 all of them and the others none, (0, k);
            `local`, each rank its own rows (n_local, k), which takes no communication.

        Raises
        ------
        InputError
            The spectrum is closed, `where` is none of these, or there is no memory for so many rows.

        Examples
        --------
        >>> import numpy as np
        >>> import sparsehess as sh
        >>> with sh.eigs(np.diag([1.0, 2.0, 3.0]), 2) as found:
        ...     values, vectors = found.to_numpy()
        >>> print(vectors.shape, np.allclose(np.diag([1.0, 2.0, 3.0]) @ vectors, vectors * values))
        (3, 2) True
        """
        if where not in GATHERED:
            raise none_of(f"where={where!r}", where, GATHERED)
        k = len(self.eigenvalues)
        if len(self.vectors) < k:
            raise InputError("the spectrum is closed, and its vectors are destroyed: take them before")
        if not k:
            return np.empty(0), np.empty((0, 0))
        first = self.vectors[0]
        layout = Layout(communicator(first.comm), first.getOwnershipRanges().astype(np.int64))
        columns = [vector.getArray(readonly=True) for vector in self.vectors]
        if self.real_form:
            layout = Layout(layout.comm, layout.starts // 2)
            columns = [column.view(np.complex128) for column in columns]
        return self.eigenvalues.copy(), gathered_columns(layout, columns, columns[0].dtype, where)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write eigenpairs and what is known of them to a file, as `sparsehess eigs -o` does.

        Collective. `Spectrum.load` reads it on any number of ranks, and `sparsehess check` verifies it.

        Parameters
        ----------
        path
            Its name ends with .h5 or .npz. Rank 0 holds a piece of a vector at a time for .h5, all vectors
            for .npz.

        Raises
        ------
        InputError
            The spectrum is closed, or the file cannot be written.
        StackError
            There is no h5py.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> import sparsehess as sh
        >>> with tempfile.TemporaryDirectory() as folder, sh.eigs(np.diag([1.0, 2.0, 3.0]), 2) as found:
        ...     found.save(os.path.join(folder, "modes.npz"))
        ...     with sh.Spectrum.load(os.path.join(folder, "modes.npz")) as again:
        ...         print(np.round(again.eigenvalues, 8), again.count.certified)
        [1. 2.] True
        """
        if len(self.vectors) < len(self.eigenvalues):
            raise InputError("the spectrum is closed, and its vectors are destroyed: save it before")
        comm = communicator(self.vectors[0].comm if self.vectors else None)
        check_writable(path, RESULTS, comm)
        n = self.vectors[0].getSize() // (2 if self.real_form else 1) if self.vectors else 0
        facts = {"schema": SCHEMA, "task": "spectrum", "n": n, **self.facts(), "versions": versions()}
        arrays = {"eigenvalues": self.eigenvalues, "residuals": self.residuals}
        write_results(path, facts, arrays, self.vectors, comm)

    def facts(self) -> dict[str, Any]:
        """Return what is known beside the vectors, as JSON; `load` takes it.

        Not collective.
        """
        spec = self.spec or SolveSpec(k=max(self.asked, 1))
        which = "interval" if spec.interval is not None and spec.which != "negative" else spec.which
        return {
            "k": self.asked if spec.k is None else spec.k,
            "which": which if spec.target is None else "target",
            "interval": None if spec.interval is None else [finite_or_none(end) for end in spec.interval],
            "target": spec.target,
            "method": self.method,
            "reason": self.reason,
            "asked": self.asked,
            "converged": self.converged,
            "advice": self.advice,
            "eigenvalues": self.eigenvalues.tolist(),
            "residuals": self.residuals.tolist(),
            "held_to": self.held_to,
            "errors": None if self.errors is None else self.errors.tolist(),
            "error_bound": self.error_bound,
            "solver_errors": [finite_or_none(one) for one in self.solver_errors],
            "bars": None if self.bars is None else [finite_or_none(one) for one in self.bars],
            "resolution": self.roundings.tolist(),
            "orthogonality": self.orthogonality,
            "count": None if self.count is None else self.count.facts(),
            "uncounted": self.uncounted,
            "search": None if self.search is None else self.search.facts(),
            "zeros": self.zeros,
            "zero": self.zero.tolist(),
            "lost": self.lost.tolist(),
            "iterations": self.iterations,
            "timings": self.timings,
            "options": dict(self.options),
            "real_form": self.real_form,
        }

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, comm: MPI.Comm | None = None, layout: Layout | None = None
    ) -> Spectrum:
        """Return the spectrum of a file that `save` or `sparsehess eigs -o` has written; the caller closes it.

        Collective. On any number of ranks, whatever number has written it. What the run that wrote it has told is
        told again, the count too; nothing is computed anew: `certify` does that, from the matrix.

        Parameters
        ----------
        path
            An .h5 or .npz file.
        comm
            The ranks, over which rows are spread evenly; default this process alone.
        layout
            In place of `comm`: the rows of each rank, such as those of a matrix.

        Raises
        ------
        InputError
            The file is no result of `eigs`, is damaged, or has other rows than the layout.
        StackError
            There is no h5py.
        """
        stored = read_pairs(path, comm=comm, layout=layout)
        try:
            return cls(vectors=stored.vectors, **_read_facts(stored.facts, stored.arrays, path))
        except InputError:
            destroy(*stored.vectors)
            raise

    def close(self) -> None:
        """Destroy the vectors.

        Collective.
        """
        destroy(*self.vectors)
        self.vectors.clear()

    def __enter__(self) -> Spectrum:
        """Return the spectrum itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Destroy the vectors. Collective."""
        self.close()


def _read_facts(
    facts: dict[str, Any], arrays: dict[str, np.ndarray], path: str | os.PathLike[str]
) -> dict[str, Any]:
    """Return the fields of a spectrum beside its vectors, as a file tells them. Not collective."""
    values = arrays["eigenvalues"]
    k = len(values)

    def numbers(name: str, default: Any, kind: type) -> np.ndarray:
        found: np.ndarray = np.asarray(facts.get(name, default), kind)
        if found.shape not in ((k,), (0,)):
            raise ValueError(f"{name} of {found.size} pairs, not {k}")
        return found

    try:
        residuals = np.asarray(arrays.get("residuals", facts.get("residuals")), np.float64)
        if residuals.shape != (k,):
            raise ValueError(f"residuals of {residuals.size} pairs, not {k}")
        return {
            "eigenvalues": values,
            "residuals": residuals,
            "orthogonality": float(facts["orthogonality"]),
            "count": None if facts["count"] is None else Count.read(facts["count"]),
            "uncounted": str(facts.get("uncounted", "")),
            "search": Search.read(facts.get("search")),
            "zeros": int(facts["zeros"]),
            "asked": int(facts.get("asked", facts["k"])),
            "advice": str(facts.get("advice", "")),
            "iterations": int(facts["iterations"]),
            "method": str(facts["method"]),
            "reason": str(facts.get("reason", "")),
            "timings": dict(facts["timings"]),
            "options": dict(facts["options"]),
            "held_to": float(facts["held_to"]),
            "errors": None if facts["errors"] is None else numbers("errors", None, float),
            "error_bound": None if facts["error_bound"] is None else float(facts["error_bound"]),
            "zero": numbers("zero", [], bool),
            "solver_errors": numbers("solver_errors", [], float),
            "roundings": numbers("resolution", [], float),
            "lost": numbers("lost", [], bool),
            "spec": read_spec(facts, path),
            "real_form": facts.get("real_form") is True,
        }
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise InputError(f"{os.fspath(path)}: no result of sparsehess eigs ({said})") from error
