"""What stands behind a handle of the C ABI: collects what a host sets, and solves.

Arrays and functions of the host come as addresses. Arrays are copied when they are set. Setters are local: what
one rank refuses is kept, and told to the others by the next solve.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import mpi4py

# MPI is the host's, or was initialised by the C side, which also finalises it.
mpi4py.rc.initialize = False
mpi4py.rc.finalize = False

from mpi4py import MPI  # noqa: E402

import numpy as np  # noqa: E402

from sparsehess import runtime  # noqa: E402
from sparsehess.errors import BUG, InputError, SparseHessError, StackError, none_of  # noqa: E402

if TYPE_CHECKING:
    from petsc4py import PETSc

    from sparsehess.eigen.problem.spectrum import Spectrum
    from sparsehess.hessian.hessian import Hessian
    from sparsehess.pattern import Layout, Pattern

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


def _array(address: int, count: int, kind: type[np.generic] = np.float64) -> np.ndarray:
    """Return `count` numbers of the host's memory, not copied."""
    if count == 0:
        return np.empty(0, kind)
    if not address:
        raise InputError("the pointer is NULL")
    memory = (ctypes.c_char * (count * np.dtype(kind).itemsize)).from_address(address)
    return np.frombuffer(memoryview(memory), kind)


def _write(address: int, value: int, kind: type[ctypes.c_int] | type[ctypes.c_int64]) -> None:
    if not address:
        raise InputError("the pointer is NULL")
    kind.from_address(address).value = value


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
    """Keep the error of a setter until it is called again with success."""

    @wraps(method)
    def setter(self: Handle, *arguments: P.args, **named: P.kwargs) -> None:
        key = (method.__name__, arguments[0] if method.__name__ == "set_option" else None)
        self._refused.pop(key, None)
        try:
            method(self, *arguments, **named)
        except SparseHessError as error:
            told = type(error)(f"{method.__name__} on rank {self.comm.rank}: {error}")
            self._refused[key] = told
            raise told from error

    return setter


class Handle:
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
        self.comm = runtime.communicator(MPI.Intracomm(MPI.Comm.f2py(comm)))
        self.n_local: int | None = None
        self._point: np.ndarray | None = None
        self._moved = False  # the point, since the last solve
        self._new = True  # anything else that the Hessian is made from
        self._reweighed = False  # a new mass, or none any more
        self._half_made = False  # the Hessian, by a solve that failed
        self._has_pattern = False
        self._rows: tuple[np.ndarray, np.ndarray] | None = None  # of a pattern, until solve makes it
        self._diagonal: np.ndarray | None = None
        self._calls = {"gradient": 0, "hvp": 0}
        self._functions: dict[str, Any] = {}
        self._options: dict[str, Any] = {}
        self._refused: dict[tuple, SparseHessError] = {}
        self._guard: runtime.Guard = _HostGuard(runtime.Guard.patience)
        self._x: PETSc.Vec = runtime.PETSc.Vec()
        self._mass: PETSc.Mat | None = None
        self._pattern: Pattern | None = None
        self._hessian: Hessian | None = None
        self._spectrum: Spectrum | None = None

    # --- what the host sets ---

    @_setter
    def set_sizes(self, n_local: int) -> None:
        """Take the number of this rank's variables, and forget all arrays. Not collective."""
        if n_local < 0:
            raise InputError(f"n_local={n_local} must not be negative")
        self.n_local = n_local
        self._point = self._rows = self._diagonal = None
        self._has_pattern, self._new = False, True

    @_setter
    def set_point(self, address: int) -> None:
        """Take the local piece of x. Not collective."""
        self._point = _array(address, self._size()).copy()
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
        if base not in (0, 1):
            raise InputError(f"base={base}: numbers begin at 0 or 1")
        kind = np.int32 if bits == 32 else np.int64
        starts = _array(indptr, self._size() + 1, kind) - kind(base)
        if starts[0] != 0 or (np.diff(starts) < 0).any():  # before its end is taken for the length of indices
            raise InputError(f"indptr must begin with {base} and not descend")
        self._rows = starts, _array(indices, int(starts[-1]), kind) - kind(base)
        self._has_pattern = self._new = True

    @_setter
    def set_mass(self, address: int) -> None:
        """Take the local piece of a mass diagonal, or none for NULL. Not collective."""
        n_local = self._size()
        self._diagonal = _array(address, n_local).copy() if address else None
        self._reweighed = True

    @_setter
    def set_option(self, name: str | None, value: str | None) -> None:
        """Take an option, or none for NULL. Not collective."""
        if not name or not (name in _OPTIONS or name.startswith("-")):
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
        self._guard = _HostGuard(seconds) if seconds >= 0 else runtime.Guard()

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
        asked, error = (k, which or "smallest", tol, method or "auto"), None
        with runtime.use_guard(self.comm, self._guard):
            try:
                self._solve(*asked)
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

        self._agree((k, which, tol, method))
        self._forget_spectrum()
        self._half_made = True
        self._take_hessian()
        self._half_made = False
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

    def _agree(self, asked: tuple) -> None:
        """Raise on all ranks if one has an error, or asks for something else than the others. Collective."""
        with runtime.agreement(self.comm):
            for error in self._refused.values():
                raise error
            if not 0 <= asked[2] < 1:
                raise InputError(f"tol={asked[2]} must be from 0, the default, to 1")
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
            "k, which, tol, method": asked,
            "functions": sorted(self._functions),
            "whether there is a pattern, and a new one,": (self._has_pattern, self._rows is not None),
            "options": sorted(self._options.items()),
        }
        if self.n_local:  # a rank without variables cannot be told from one without a mass
            mine["whether there is a mass"] = self._diagonal is not None
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
        """Make the Hessian, or move it to the point. Collective."""
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
        rows = np.arange(layout.n_local + 1)
        diagonal = np.empty(0) if self._diagonal is None else self._diagonal
        return runtime.aij(layout, rows, rows[:-1] + layout.start, diagonal)

    # --- answers ---

    def _answer(self) -> Spectrum:
        if self._spectrum is None:
            raise InputError("there are no answers: no solve has ended with any")
        return self._spectrum

    def get_converged(self, address: int) -> None:
        """Write how many pairs there are. Not collective."""
        _write(address, self._answer().converged, ctypes.c_int)

    def get_eigenvalues(self, address: int) -> None:
        """Write the eigenvalues. Not collective."""
        values = self._answer().eigenvalues
        _array(address, len(values))[:] = values

    def get_residuals(self, address: int) -> None:
        """Write the backward errors. Not collective."""
        errors = self._answer().residuals
        _array(address, len(errors))[:] = errors

    def get_vectors(self, first: int, many: int, address: int) -> None:
        """Write local pieces of vectors, one after another. Not collective."""
        vectors = self._answer().vectors
        if first < 0 or many < 0 or first + many > len(vectors):
            raise InputError(f"there are {len(vectors)} vectors, not {many} from number {first}")
        pieces = [vector.getArray(readonly=True) for vector in vectors[first : first + many]]
        out = _array(address, sum(map(len, pieces))).reshape(many, len(pieces[0]) if pieces else 0)
        for row, piece in zip(out, pieces, strict=True):
            row[:] = piece

    def get_certified(self, address: int) -> None:
        """Write whether a count has confirmed the answers. Not collective."""
        count = self._answer().count
        _write(address, int(count is not None and count.certified), ctypes.c_int)

    def get_count(self, inertia: int, found: int) -> None:
        """Write the count by inertia and what was found there, -1 for none. Not collective."""
        count = self._answer().count
        _write(inertia, -1 if count is None else count.inertia, ctypes.c_int64)
        _write(found, -1 if count is None else count.found, ctypes.c_int64)

    def get_evaluations(self, gradients: int, products: int) -> None:
        """Write how often the host's functions were called so far. Not collective."""
        _write(gradients, self._calls["gradient"], ctypes.c_int64)
        _write(products, self._calls["hvp"], ctypes.c_int64)

    # --- the end ---

    def _forget_spectrum(self) -> None:
        if self._spectrum is not None:
            self._spectrum.close()
            self._spectrum = None

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


class _HostGuard(runtime.Guard):
    """Ends the job where ranks are stuck in the host's calls, after the patience that the host has set."""

    def __init__(self, seconds: float):
        self.patience = seconds

    def end_stuck(self, comm: MPI.Comm, error: Exception) -> None:
        """Say why, and end all ranks. Not collective."""
        sys.stderr.write(f"sparsehess: {error} (the other ranks wait in another call: ending all)\n")
        sys.stderr.flush()
        comm.Abort(error.status if isinstance(error, SparseHessError) else BUG)
