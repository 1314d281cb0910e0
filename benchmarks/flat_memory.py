"""Memory, descriptors and communicators of a process that calls `eigs` thousands of times.

Each kind of call is a series of its own: after some calls, which fill caches, what is resident, allocated, and
held by PETSc is looked at, and a line is fitted to each. Told are bytes a call with the standard error of the
slope, and what descriptors, communicators, attributes of MPI and objects of Python have gained in all. The status
is 1 if any of them grows by more than its noise.

    mpiexec -n 2 python benchmarks/flat_memory.py [CALLS [SERIES …]]
"""

import ctypes
import gc
import os
import sys

os.environ["PETSC_OPTIONS"] = "-malloc_debug " + os.environ.get("PETSC_OPTIONS", "")

from mpi4py import MPI

import numpy as np
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.runtime import PETSc

N, LOOKS, FIRST = 120, 30, 10

# Where what is looked at stands.
COLUMNS = {"resident": 1, "allocated": 2, "PETSc": 7}

# Bytes a call, beyond which a slope is growth where it is also more than so many of its standard errors.
MOST, ERRORS = 256, 4


class _Allocated(ctypes.Structure):
    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keep")
    _fields_ = [(name, ctypes.c_size_t) for name in names]


LIBC = ctypes.CDLL(None)
LIBC.mallinfo2.restype = _Allocated
LIBPETSC = ctypes.CDLL(PETSc.__file__)


def chain(seed=0):
    """A chain of springs of random stiffness."""
    springs = np.random.default_rng(seed).uniform(1.0, 2.0, N + 1)
    return sp.diags([-springs[1:-1], springs[:-1] + springs[1:], -springs[1:-1]], [-1, 0, 1]).tocsr()


MASS = sp.diags(np.linspace(1.0, 2.0, N)).tocsr()


def gradient(x):
    """Return the gradient of a chain with quartic springs."""
    bonds = np.diff(np.concatenate([[0.0], x, [0.0]]))
    forces = bonds + bonds**3
    return forces[:-1] - forces[1:]


def objective(comm):
    """Return the objective of that chain."""
    pattern = sh.Pattern.from_scipy(chain(), comm=comm)
    return sh.Objective(x=np.linspace(0, 1, N), gradient=gradient, pattern=pattern, comm=comm)


def solve(*arguments, **more):
    """Return a call of `eigs`."""

    def call(number, comm):
        with sh.eigs(chain(number), *arguments, comm=comm, **more):
            pass

    return call


def assemble_and_update(number, comm):
    """Assemble, move, update, solve."""
    with sh.assemble(objective(comm)) as hessian:
        hessian.update(np.linspace(0, 1 + number % 7, N))
        with sh.eigs(hessian, 3):
            pass


def shell(number, comm):
    """Solve with products alone."""
    with (
        sh.MatrixFree(objective(comm)) as hessian,
        sh.eigs(hessian, 2, which="largest", method="krylovschur"),
    ):
        pass


def estimate(number, comm):
    """Estimate how many eigenvalues there are where."""
    with sh.EigenProblem.of(chain(number), comm=comm) as problem:
        sh.density(problem)


def refused(call, kinds):
    """Return a call that ends with an error."""

    def refuse(number, comm):
        try:
            call(number, comm)
        except kinds:
            return
        raise AssertionError("this call should have ended with an error")

    return refuse


def failing_product(number, comm):
    """End in a product of the user's that raises on one rank."""
    layout, count = sh.Layout.from_size(N, comm), [0]

    def product(v):
        count[0] += 1
        if count[0] > 5 and comm.rank == 0:
            raise ValueError("no such product")
        return v

    with (
        sh.from_matvec(product, layout.n_local, comm=comm) as hessian,
        sh.eigs(hessian, 2, which="largest", method="krylovschur"),
    ):
        pass


def bad_matrix(number, comm):
    """End with a matrix that is refused."""
    matrix = chain(number)
    matrix[3, 4] = np.nan
    with sh.eigs(matrix, 3, comm=comm):
        pass


def null_vectors(number, comm):
    """Solve where a null vector is known."""
    springs = np.random.default_rng(number).uniform(1.0, 2.0, N - 1)
    free = sp.diags([-springs, np.r_[springs, 0] + np.r_[0, springs], -springs], [-1, 0, 1]).tocsr()
    with sh.eigs(free, 3, nullspace=np.ones((1, N)), comm=comm):
        pass


SERIES = {
    "assembled": solve(3),
    "largest": solve(3, which="largest"),
    "target": solve(3, target=1.0),
    "mass": solve(3, mass=MASS),
    "null vectors": null_vectors,
    "interval": solve(interval=(0.0, 0.05)),
    "lobpcg": solve(3, method="lobpcg"),
    "gd": solve(3, method="gd"),
    "feast": solve(interval=(0.0, 0.02), method="feast"),
    "filter": solve(interval=(0.0, 0.05), method="filter"),
    "dense": solve(3, method="dense"),
    "shell": shell,
    "assemble and update": assemble_and_update,
    "estimates": estimate,
    "not converged": refused(
        solve(3, which="largest", options={"eps_max_it": 1, "eps_ncv": 5}, count="no"), sh.errors.NotConverged
    ),
    "bad matrix": refused(bad_matrix, sh.errors.SparseHessError),
    "failing product": refused(failing_product, Exception),
}


class Looks:
    """What was seen of a process; its tables are made beforehand, for their growth would be seen, too."""

    def __init__(self, most):
        self.rows, self.seen = np.zeros((most, 8)), 0

    def look(self, call):
        """Look once more."""
        gc.collect()
        LIBC.malloc_trim(0)
        said = LIBC.mallinfo2()
        comm, used = MPI.COMM_SELF.Dup(), ctypes.c_double()
        keyval = MPI.Comm.Create_keyval()
        LIBPETSC.PetscMallocGetCurrentUsage(ctypes.byref(used))
        with open("/proc/self/statm") as facts:
            resident = int(facts.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        self.rows[self.seen] = (
            call,
            resident,
            said.uordblks + said.hblkhd,
            len(os.listdir("/proc/self/fd")),
            comm.py2f(),
            keyval,
            len(gc.get_objects()),
            used.value,
        )
        self.seen += 1
        MPI.Comm.Free_keyval(keyval)
        comm.Free()


def slope(calls, values):
    """Return the slope of a line through values, and its standard error."""
    x, y = np.asarray(calls, float), np.asarray(values, float)
    x -= x.mean()
    found = float(x @ y / (x @ x))
    rest = y - y.mean() - found * x
    return found, float(np.sqrt(rest @ rest / max(1, len(x) - 2) / (x @ x)))


def measure(name, calls, comm):
    """Return whether a series is flat on all ranks, and print a line for each."""
    first, every = max(calls // 10, FIRST), max(1, calls // LOOKS)
    looks = Looks(calls // every + 2)
    for number in range(first + calls + 1):
        if number >= first and (number - first) % every == 0:
            looks.look(number - first)
        SERIES[name](number, comm)
    rows = looks.rows[1 : looks.seen]  # the first look loads what looking takes
    slopes = {word: slope(rows[:, 0], rows[:, place]) for word, place in COLUMNS.items()}
    gained = rows[-1, 3:7] - rows[0, 3:7]
    grows = any(found > max(MOST, ERRORS * error) for found, error in slopes.values())
    grows = grows or bool((gained[:3] > 0).any())
    line = f"{name:20} rank {comm.rank}"
    line += (
        "".join(f"  {word} {found:7.0f} ± {error:4.0f}" for word, (found, error) in slopes.items()) + " B a call"
    )
    names = ("descriptors", "communicators", "attributes", "objects")
    line += "".join(f"  {int(gain):+d} {word}" for gain, word in zip(gained, names, strict=True) if gain)
    for said in comm.gather(line + ("  GROWS" if grows else "")) or ():
        print(said, flush=True)
    return not comm.allreduce(grows, op=MPI.LOR)


def main():
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    comm = MPI.COMM_WORLD
    flat = [measure(name, calls, comm) for name in sys.argv[2:] or SERIES]
    sys.exit(0 if all(flat) else 1)


if __name__ == "__main__":
    main()
