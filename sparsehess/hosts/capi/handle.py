"""What stands behind a handle of the C ABI: collects what a host sets, and solves.

Arrays and functions of the host come as addresses. Arrays are copied when they are set. Setters are local: what
one rank refuses is kept, and told to the others by the next solve.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias

import mpi4py

# MPI is the host's, or was initialised by the C side, which also finalises it.
mpi4py.rc.initialize = False
mpi4py.rc.finalize = False

from mpi4py import MPI  # noqa: E402

import numpy as np  # noqa: E402
import scipy.sparse  # noqa: E402

from sparsehess import runtime  # noqa: E402
from sparsehess.errors import CheckError, InputError, SparseHessError, StackError, none_of  # noqa: E402
from sparsehess.hosts.capi.answers import Answers  # noqa: E402
from sparsehess.hosts.capi.host_memory import array_at, index_type  # noqa: E402
from sparsehess.runtime.row_layout import send_to_owners  # noqa: E402

if TYPE_CHECKING:
    from petsc4py import PETSc

    from sparsehess.hessian.hessian import Hessian
    from sparsehess.pattern import Layout, Pattern

    # Global rows and columns of entries, and their values.
    _Entries: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]

P = ParamSpec("P")

_GRADIENT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_HVP = ctypes.CFUNCTYPE(ctypes.c_int, *(ctypes.c_void_p,) * 4)


def _start_petsc() -> None:
    """Initialise PETSc with each process by itself, unless the host has.

    Not collective: a host may call from some of its ranks only, and the world communicator needs all.
    """
    if "PETSc" in vars(runtime):
        return
    with suppress(ImportError, ValueError):  # what is missing is said by the next call
        import petsc4py

        petsc4py.init(["sparsehess", "-no_signal_handler"], comm=MPI.COMM_SELF)
    runtime.initialize()
    runtime.require_real("the interface to C")


def _own_rows(layout: Layout) -> np.ndarray:
    """Return the global numbers of this rank's rows."""
    return np.arange(layout.start, layout.stop)


def _truth(text: str) -> bool:
    if text.lower() not in ("0", "1", "no", "yes", "false", "true"):
        raise ValueError(text)
    return text.lower() in ("1", "yes", "true")


def _ends(text: str) -> tuple[float, float]:
    low, high = text.split()
    return float(low), float(high)


# Option: how its text is read, and who takes it.
_OPTIONS: dict[str, tuple[Callable, str]] = {
    "name": (str, "objective"),
    "derivative": (str, "assemble"),
    "coloring": (str, "assemble"),
    "order": (str, "assemble"),
    "columns": (int, "assemble"),
    "verify": (_truth, "assemble"),
    "count": (str, "eigs"),
    "groups": (int, "eigs"),
    "interval": (_ends, "eigs"),
    "target": (float, "eigs"),
    "seed": (int, "both"),
}


def _setter(method: Callable[Concatenate[Handle, P], None]) -> Callable[Concatenate[Handle, P], None]:
    """Keep the error of a setter until it, or another one of the same thing, is called with success."""
    what = "set_mass" if method.__name__.startswith("set_mass") else method.__name__

    @wraps(method)
    def setter(self: Handle, *arguments: P.args, **named: P.kwargs) -> None:
        key = (what, arguments[0] if method.__name__ == "set_option" else None)
        self._refused.pop(key, None)
        try:
            method(self, *arguments, **named)
        except SparseHessError as error:
            told = type(error)(f"{method.__name__} on rank {self.comm.rank}: {error}")
            self._refused[key] = told
            raise told from error

    return setter


class Handle(Answers):
    """A problem of a host, and the answers of its last solve.

    Collective to make, to solve and to close; all else is local.

    Parameters
    ----------
    comm
        Fortran's number of an MPI communicator.
    """

    def __init__(self, comm: int):
        if not MPI.Is_initialized():
            raise StackError(
                "mpi4py belongs to another MPI library than this program: build the library with the mpicc of the "
                f"MPI that mpi4py has ({MPI.Get_library_version().splitlines()[0]})"
            )
        _start_petsc()
        super().__init__()
        self.comm = runtime.communicator(MPI.Intracomm(MPI.Comm.f2py(comm)))
        self.n_local: int | None = None
        self._point: np.ndarray | None = None
        self._moved = False  # the point, since the last solve
        self._new = True  # anything else that the Hessian is made from
        self._reweighed = False  # a new mass, or none any more
        self._half_made = False  # the Hessian, by a solve that failed
        self._has_pattern = False
        self._rows: tuple[np.ndarray, np.ndarray] | None = None  # of a pattern, until solve makes it
        self._weights: Callable[[Layout], _Entries] | None = None  # entries of a mass that this rank brings
        self._functions: dict[str, Any] = {}
        self._options: dict[str, Any] = {}
        self._refused: dict[tuple, SparseHessError] = {}
        self._strangers: set[str | None] = set()  # options that are none, until they are taken away
        self._guard: runtime.Guard = runtime.JobEnd(runtime.Guard.patience)
        self._x: PETSc.Vec = runtime.PETSc.Vec()
        self._mass: PETSc.Mat | None = None
        self._pattern: Pattern | None = None
        self._hessian: Hessian | None = None

    # --- what the host sets ---

    @_setter
    def set_sizes(self, n_local: int) -> None:
        """Take the number of this rank's variables, and forget all arrays. Not collective."""
        if n_local < 0:
            raise InputError(f"n_local={n_local} must not be negative")
        self.n_local = n_local
        self._point = self._rows = self._weights = None
        self._has_pattern, self._new = False, True

    @_setter
    def set_point(self, address: int) -> None:
        """Take the local piece of x. Not collective."""
        self._point = array_at(address, self._size()).copy()
        self._moved = True

    @_setter
    def set_gradient(self, address: int, context: int) -> None:
        """Take the gradient. Not collective."""
        if not address:
            raise InputError("the gradient is NULL")
        self._functions["gradient"] = self._adapted("gradient", _GRADIENT(address), context)
        self._new = True

    @_setter
    def set_hvp(self, address: int, context: int) -> None:
        """Take products, or none for NULL. Not collective."""
        if address:
            self._functions["hvp"] = self._adapted("hvp", _HVP(address), context)
        else:
            self._functions.pop("hvp", None)
        self._new = True

    @_setter
    def set_pattern(self, bits: int, base: int, indptr: int, indices: int) -> None:
        """Take the local rows of a pattern. Not collective."""
        self._rows = self._compressed(bits, base, indptr, indices)
        self._has_pattern = self._new = True

    def _compressed(self, bits: int, base: int, indptr: int, indices: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where the local rows begin, and their global columns, counted from 0."""
        kind = index_type(bits, base)
        starts = array_at(indptr, self._size() + 1, kind) - kind(base)
        if starts[0] != 0 or (np.diff(starts) < 0).any():  # before its end is taken for the length of indices
            raise InputError(f"indptr must begin with {base} and not descend")
        return starts, array_at(indices, int(starts[-1]), kind) - kind(base)

    @_setter
    def set_mass(self, address: int) -> None:
        """Take the local piece of a mass diagonal, or no mass at all for NULL. Not collective."""
        n_local = self._size()
        diagonal = array_at(address, n_local).copy() if address else None
        self._weights = None if diagonal is None else lambda layout: (*(_own_rows(layout),) * 2, diagonal)
        self._reweighed = True

    @_setter
    def set_mass_csr(self, bits: int, base: int, indptr: int, indices: int, values: int) -> None:
        """Take the local rows of a mass matrix. Not collective."""
        starts, columns = self._compressed(bits, base, indptr, indices)
        entries = array_at(values, len(columns)).copy()
        self._weights = lambda layout: (np.repeat(_own_rows(layout), np.diff(starts)), columns, entries)
        self._reweighed = True

    @_setter
    def set_mass_coo(self, bits: int, base: int, count: int, rows: int, columns: int, values: int) -> None:
        """Take entries of a mass matrix, in whichever rows; those of one place add up. Not collective."""
        self._size()
        kind = index_type(bits, base)
        if count < 0:
            raise InputError(f"count={count} must not be negative")
        first, second = (array_at(address, count, kind) - kind(base) for address in (rows, columns))
        entries = array_at(values, count).copy()
        self._weights = lambda layout: (first, second, entries)
        self._reweighed = True

    @_setter
    def set_option(self, name: str | None, value: str | None) -> None:
        """Take an option, or none for NULL. Not collective."""
        if not name or not (name in _OPTIONS or name.startswith("-")):
            if value is None and name in self._strangers:
                self._strangers.remove(name)
                return
            self._strangers.add(name)
            raise none_of(f"option {name!r}", name, _OPTIONS, ", -petsc_option")
        if value is None:
            self._options.pop(name, None)
        elif name.startswith("-"):
            self._options[name] = value
        else:
            try:
                self._options[name] = _OPTIONS[name][0](value)
            except ValueError as error:
                raise InputError(f"option {name}: {value!r} cannot be read") from error
        if name in _OPTIONS and _OPTIONS[name][1] != "eigs":
            self._new = True

    @_setter
    def set_patience(self, seconds: float) -> None:
        """Take how long a failed rank waits before it ends the job; negative for ever. Not collective."""
        self._guard = runtime.JobEnd(seconds) if seconds >= 0 else runtime.Guard()

    def _size(self) -> int:
        if self.n_local is None:
            raise InputError("set_sizes comes first")
        return self.n_local

    def _adapted(self, name: str, function: Callable[..., int], context: int) -> Callable[..., None]:
        """Return a function of Vecs that calls one of C: the inputs, then the output."""
        calls = self._calls

        def called(*vectors: PETSc.Vec) -> None:
            calls[name] += 1
            arrays = [vector.getArray(readonly=True) for vector in vectors[:-1]]
            out = vectors[-1].getArray()
            out[:] = np.nan  # what is left out is found by the check for finite numbers
            status = function(*(array.ctypes.data for array in (*arrays, out)), context)
            if status:
                raise RuntimeError(f"the function returned {status}")

        return called

    # --- solving ---

    def solve(self, k: int, which: str | None, tol: float, method: str | None) -> None:
        """Take the Hessian at the point, and its eigenpairs.

        Collective.

        Raises
        ------
        SparseHessError
            On every rank; where pairs are missing, those that were found can be read all the same.
        """
        asked = (k, which or "smallest", tol, method or "auto")
        self._run(lambda: self._solve(*asked))

    def count_inertia(self, zero: float) -> None:
        """Take the Hessian at the point, and count its negative, zero and positive eigenvalues.

        Collective.

        Parameters
        ----------
        zero
            Eigenvalues up to this size count as zero; 0 for the accuracy of the Hessian.

        Raises
        ------
        SparseHessError
            On every rank; where the counts are not certain, they can be read all the same.
        """
        self._run(lambda: self._count_inertia(zero))

    def _run(self, task: Callable[[], None]) -> None:
        """Do what may fail, so that it fails on every rank; a Hessian that was half made is forgotten."""
        error = None
        with runtime.use_guard(self.comm, self._guard):
            try:
                task()
            except Exception as caught:
                error = caught
            try:
                # Errors of the library are raised on all ranks; this is for others, such as no memory on one.
                runtime.raise_together(self.comm, error)
            except Exception:
                if self.comm.allreduce(self._half_made, op=MPI.LOR):
                    self._forget_hessian()
                raise
            finally:
                error = None  # its traceback holds this frame

    def _solve(self, k: int, which: str, tol: float, method: str) -> None:
        from sparsehess.eigen.solvers.eigs import eigs, shortfall

        unusable = "" if 0 <= tol < 1 else f"tol={tol} must be from 0, the default, to 1"
        self._agree("k, which, tol, method", (k, which, tol, method), unusable)
        self._forget_spectrum()
        self._take_hessian()
        options = {name[1:]: value for name, value in self._options.items() if name.startswith("-")}
        self._spectrum = eigs(
            self._hessian,
            k or None,
            which=which,
            tol=tol or 1e-8,
            method=method,
            mass=self._mass,
            options=options,
            strict=False,
            **self._chosen("eigs"),
        )
        error = shortfall(self._spectrum)
        if error is not None:
            raise error

    def _count_inertia(self, zero: float) -> None:
        from sparsehess.eigen.certificates.inertia import inertia

        unusable = "" if 0 <= zero < np.inf else f"zero={zero} must be 0, the default, or above"
        self._agree("zero", (zero,), unusable)
        self._inertia = None
        self._take_hessian()
        found = self._inertia = inertia(self._hessian, mass=self._mass, zero=zero or None)
        if not found.certified and found.stderr is None:
            raise CheckError(
                f"the counts are not certain: {found.doubt}; eigenvalues lie near ±{found.threshold:.1e}, give "
                "another zero"
            )

    def _agree(self, names: str, asked: tuple, unusable: str) -> None:
        """Raise on all ranks if one has an error, or asks for something else than the others. Collective."""
        with runtime.agreement(self.comm):
            for error in self._refused.values():
                raise error
            if unusable:
                raise InputError(unusable)
            wanting = [
                name
                for name, there in (
                    ("set_sizes", self.n_local is not None),
                    ("set_point", self._point is not None),
                    ("set_gradient", bool(self._functions)),
                )
                if not there
            ]
            if wanting:
                raise InputError(f"rank {self.comm.rank} has not called {', '.join(wanting)}")
        mine: dict[str, Any] = {
            names: asked,
            "functions": sorted(self._functions),
            "whether there is a pattern, and a new one,": (self._has_pattern, self._rows is not None),
            "options": sorted(self._options.items()),
        }
        if self.n_local:  # a rank without variables cannot be told from one without a mass
            mine["whether there is a mass"] = self._weights is not None
        told = self.comm.allgather((mine, self._new, self._moved, self._reweighed))
        first: dict[str, tuple[int, Any]] = {}
        for rank, (theirs, *_) in enumerate(told):
            for what, value in theirs.items():
                other, before = first.setdefault(what, (rank, value))
                if value != before:
                    raise InputError(f"{what} differ: {before} on rank {other}, {value} on rank {rank}")
        _, news, moves, weighings = zip(*told, strict=True)
        self._new, self._moved, self._reweighed = any(news), any(moves), any(weighings)
        self._weighted = first.get("whether there is a mass", (0, False))[1]

    def _chosen(self, whose: str) -> dict[str, Any]:
        return {
            name: value
            for name, value in self._options.items()
            if name in _OPTIONS and _OPTIONS[name][1] in (whose, "both")
        }

    def _take_hessian(self) -> None:
        """Make the Hessian, or move it to the point; it is half made where that fails. Collective."""
        self._half_made = True
        self._make_hessian()
        self._half_made = False

    def _make_hessian(self) -> None:
        from sparsehess.derivatives.objective import Objective
        from sparsehess.hessian.assembly import assemble
        from sparsehess.pattern import Pattern

        if not self._new and self._hessian is not None:
            if self._reweighed:
                runtime.destroy(self._mass)
                self._mass, self._reweighed = self._mass_matrix(self._hessian.objective.layout), False
            if self._moved:
                self._x.setArray(self._point)
                self._hessian.update(self._x, verify=self._options.get("verify", True))
                self._moved = False
            return
        self._forget_hessian()
        petsc = runtime.PETSc
        self._x = petsc.Vec().createMPI((self.n_local, petsc.DETERMINE), comm=self.comm)
        self._x.setArray(self._point)
        if self._rows is not None or not self._has_pattern:
            self._forget_pattern()
        if self._rows is not None:
            self._pattern, self._rows = Pattern.from_csr(*self._rows, comm=self.comm, source="host"), None
        objective = Objective(
            x=self._x, pattern=self._pattern, **self._functions, **self._chosen("objective"), comm=self.comm
        )
        self._mass = self._mass_matrix(objective.layout)
        more: dict[str, Any] = {} if self._pattern is not None else {"pattern": "detect"}
        self._hessian = assemble(objective, **more, **self._chosen("assemble"))
        self._new = self._moved = self._reweighed = False

    def _mass_matrix(self, layout: Layout) -> PETSc.Mat | None:
        if not self._weighted:
            return None
        from sparsehess.eigen.problem.matrix_inputs import with_diagonal

        with runtime.agreement(layout.comm):
            none = np.empty(0, np.int64)
            rows, columns, values = (none, none, np.empty(0)) if self._weights is None else self._weights(layout)
            rows, columns = rows.astype(np.int64), columns.astype(np.int64)
            for name, numbers in (("row", rows), ("column", columns)):
                if len(numbers) and not (numbers.min() >= 0 and numbers.max() < layout.n):
                    raise InputError(
                        f"the mass on rank {layout.comm.rank}: {name} numbers run from {numbers.min()} to "
                        f"{numbers.max()}, counted from 0, but there are {layout.n} variables"
                    )
        rows, columns, values = send_to_owners(layout, rows, columns, values)
        local = scipy.sparse.coo_matrix((values, (rows - layout.start, columns)), (layout.n_local, layout.n))
        own = with_diagonal(local.tocsr(), layout)
        return runtime.aij(layout, own.indptr, own.indices, own.data)

    # --- the end ---

    def _forget_hessian(self) -> None:
        """Destroy the Hessian and what it was made of, but the pattern."""
        if self._hessian is not None:
            self._hessian.close()
        runtime.destroy(self._mass, self._x)
        self._hessian = self._mass = None
        self._x = runtime.PETSc.Vec()
        self._half_made = False

    def _forget_pattern(self) -> None:
        if self._pattern is not None:
            self._pattern.free()
            self._pattern = None

    def close(self) -> None:
        """Destroy what belongs to this handle. Collective."""
        self._forget_spectrum()
        self._forget_hessian()
        self._forget_pattern()
