"""Eigenpairs of one stored case, by sparsehess or by a peer, in a process of its own or on several ranks.

Prints one line of JSON: seconds (from SciPy matrices to eigenpairs), bytes (growth of the peak, over all
ranks), values, errors (backward errors ‖Kx − θMx‖ / ((‖K‖ + |θ| ‖M‖) ‖x‖) in Frobenius norms, recomputed
here from everybody's vectors) and work (what is known of products and solves). `absent` instead says why the
peer is not there, `failed` what it died of. A small case is solved first, which loads everything.

    python benchmarks/contenders/eigenpairs.py FOLDER 'scipy eigsh'

Everybody runs on one thread and is asked for the same: Krylov methods with shift-and-invert stop as ours do, at
a relative 1e-10 of the transformed eigenvalues; PRIMME and LOBPCG at residuals of 1e-5 of the size of the wanted
eigenvalues or, where that is less, at half of a backward error of 1e-8; FEAST at one of 1e-8. `multigrid` is
PETSc's, with rigid-body modes.
"""

import ctypes
import json
import resource
import sys
import time
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from mpi4py import MPI

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg as sla

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]  # where sparsehess is not installed
from contenders.process_memory import forget_peak, memory

from sparsehess.eigen.problem.rigid_body_modes import rigid_body_modes
from sparsehess.runtime import PETSc, SLEPc
from support.elastic_block import brick

TOL = 1e-8


class Absent(Exception):
    """The peer is not installed; the message says what is missing."""


@dataclass(kw_only=True)
class Case:
    """Eigenvalues that are wanted: all `number` of an interval, or as many of the lowest.

    Attributes
    ----------
    K, M
        CSR; M is None for the identity.
    number
        How many.
    interval
        (low, high), or None for the lowest.
    x
        (n / 3, 3) coordinates of the nodes, for multigrid, or None.
    size
        Of the wanted eigenvalues: what residuals are relative to.
    exact
        What is known of them, or None.
    """

    K: sp.csr_matrix
    M: sp.csr_matrix | None = None
    number: int
    interval: tuple[float, float] | None = None
    x: np.ndarray | None = None
    size: float = 1.0
    exact: np.ndarray | None = None

    def save(self, folder):
        for name in ("K", "M"):
            if getattr(self, name) is not None:
                sp.save_npz(folder / f"{name}.npz", getattr(self, name), compressed=False)
        if self.x is not None:
            np.save(folder / "x.npy", self.x)
        facts = {name: getattr(self, name) for name in ("number", "interval", "size")}
        (folder / "facts.json").write_text(json.dumps(facts))

    @classmethod
    def load(cls, folder):
        matrices = {
            name: sp.load_npz(folder / f"{name}.npz") for name in "KM" if (folder / f"{name}.npz").exists()
        }
        x = np.load(folder / "x.npy") if (folder / "x.npy").exists() else None
        return cls(x=x, **matrices, **json.loads((folder / "facts.json").read_text()))

    @cached_property
    def mass(self):
        """Mean of M's diagonal."""
        return 1.0 if self.M is None else self.M.diagonal().mean()

    @property
    def typical(self):
        """Size of an eigenvalue in the middle of the spectrum."""
        return self.K.diagonal().mean() / self.mass

    @property
    def shift(self):
        """Where to invert: just below the spectrum, or in the middle of the interval, to which the wanted
        ones are the nearest."""
        return -1e-10 * self.typical if self.interval is None else sum(self.interval) / 2

    @property
    def within(self):
        """Residual norm of a vector of norm 1 in the mass."""
        return min(1e-5 * self.size * np.sqrt(self.mass), 0.5 * TOL * self.norms()[0] / np.sqrt(self.mass))

    def shifted(self, shift):
        return self.K - shift * (sp.identity(self.K.shape[0]) if self.M is None else self.M)

    def norms(self):
        return sla.norm(self.K), 1.0 if self.M is None else sla.norm(self.M)

    def errors(self, values, X):
        norm_k, norm_m = self.norms()
        residual = self.K @ X - (X if self.M is None else self.M @ X) * values
        norm = partial(np.linalg.norm, axis=0)
        return norm(residual) / ((norm_k + np.abs(values) * norm_m) * norm(X))


def small(like):
    """Return a small case of the same kind."""
    K, M, x = brick((3, 4, 5))
    values = scipy.linalg.eigvalsh(K.toarray(), None if like.M is None else M.toarray())
    low, high = (values[[4, 14]] + values[[5, 15]]) / 2
    return Case(
        K=K,
        M=None if like.M is None else M,
        number=10,
        interval=None if like.interval is None else (low, high),
        x=x,
    )


# Contenders: each returns (eigenvalues, vectors, work) for a case; the vectors are Vecs or columns, the work is
# empty where PETSc knows it.


# --- sparsehess, and SLEPc by hand ---


def ours(case, **asked):
    import sparsehess as sh

    asked = {"k": case.number, **asked} if case.interval is None else {"interval": case.interval, **asked}
    spectrum = sh.eigs(case.K, mass=case.M, tol=TOL, comm=MPI.COMM_WORLD, **asked)
    return spectrum.eigenvalues, spectrum.vectors, f"iterations {spectrum.iterations}" if "method" in asked else ""


def our_lobpcg(case):
    return ours(case, method="lobpcg", near_null=rigid_body_modes(case.x)[0], count="no")


def our_feast(case, points):
    """Run FEAST alone, without counts."""
    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz
    from sparsehess.eigen.solvers.feast import Feast

    with EigenProblem.of(case.K, mass=case.M) as problem:
        solver = Feast(problem, {}, TOL, points=points)
        values, vectors, _, _, _ = rayleigh_ritz(problem, solver.find(*case.interval, case.number))
        work = f"iterations {solver.iterations}"
        solver.close()
    return values, vectors, work


def slepc(A, M, which):
    """Return a solver with shift-and-invert, as a careful user of slepc4py sets it up; `factorize` its KSP."""
    eps = SLEPc.EPS().create(A.comm)
    eps.setOperators(A, M)
    kind = SLEPc.EPS.ProblemType
    eps.setProblemType(kind.HEP if M is None else kind.GHEP)
    eps.setTolerances(tol=1e-10)
    eps.setWhichEigenpairs(which)
    eps.getST().setType("sinvert")
    return eps


def factorize(ksp):
    ksp.setType("preonly")
    ksp.getPC().setType("cholesky")
    ksp.getPC().setFactorSolverType("mumps")


def solved(eps, A, most=None):
    """Return (values, vectors) of a solver, at most so many, and destroy it."""
    eps.solve()
    values, vectors = [], []
    for i in range(min(eps.getConverged(), most or A.getSize()[0])):
        vectors.append(A.createVecRight())
        values.append(complex(eps.getEigenpair(i, vectors[-1])).real)
    eps.destroy()
    return np.array(values), vectors


def by_hand(A, k, shift, M=None):
    """Return the k eigenvalues nearest to a shift, and their vectors."""
    eps = slepc(A, M, SLEPc.EPS.Which.TARGET_MAGNITUDE)
    eps.setDimensions(k)
    eps.setTarget(shift)
    eps.getST().setShift(shift)
    factorize(eps.getST().getKSP())
    return solved(eps, A, k)


def by_hand_slicing(A, interval, M=None):
    """Return all eigenvalues of an interval by SLEPc's spectrum slicing, and their vectors."""
    options = PETSc.Options("hand_")
    options["st_mat_mumps_icntl_13"] = options["st_mat_mumps_icntl_24"] = 1  # what inertia needs of MUMPS
    eps = slepc(A, M, SLEPc.EPS.Which.ALL)
    eps.setOptionsPrefix("hand_")
    eps.setType("krylovschur")
    eps.setInterval(*interval)
    factorize(eps.getKrylovSchurKSP())
    eps.setFromOptions()
    return solved(eps, A)


def of_slepc(case):
    A, M = aij(case.K), None if case.M is None else aij(case.M)
    if case.interval is None:
        return *by_hand(A, case.number, case.shift, M), ""
    return *by_hand_slicing(A, case.interval, M), ""


def aij(matrix):
    return PETSc.Mat().createAIJ(matrix.shape, csr=(matrix.indptr, matrix.indices, matrix.data))


def petsc_work():
    """Return what PETSc has done so far: {what: times}."""
    events = {
        "factorizations": ("MatCholFctrNum", "MatLUFactorNum"),
        "solves": ("MatSolve",),
        "block solves": ("MatMatSolve",),
        "products": ("MatMult",),
    }
    return {
        what: sum(PETSc.Log.Event(name).getPerfInfo()["count"] for name in names) for what, names in events.items()
    }


# --- preconditioners of PETSc for those who have none ---


def rigid_modes(x):
    modes = []
    for mode in rigid_body_modes(x)[0]:
        modes.append(PETSc.Vec().createSeq(len(mode)))
        modes[-1].setArray(mode)
    return modes


def multigrid(case):
    matrix = aij(case.shifted(-0.1 * case.size).tocsr())  # nearer to zero modes it amplifies rounding
    matrix.setBlockSize(3)
    matrix.setNearNullSpace(PETSc.NullSpace().create(vectors=rigid_modes(case.x), comm=PETSc.COMM_SELF))
    for key, value in {"levels_ksp_type": "chebyshev", "levels_ksp_max_it": 2, "levels_pc_type": "jacobi"}.items():
        PETSc.Options("peer_mg_")[key] = value
    pc = PETSc.PC().create(PETSc.COMM_SELF)
    pc.setType("gamg")
    return applied(pc, matrix)


def mumps(case):
    pc = PETSc.PC().create(PETSc.COMM_SELF)
    pc.setType("cholesky")
    pc.setFactorSolverType("mumps")
    return applied(pc, aij(case.shifted(case.shift).tocsr()))


def applied(pc, matrix):
    """Return a preconditioner as SciPy's operator."""
    pc.setOptionsPrefix("peer_")
    pc.setOperators(matrix)
    pc.setFromOptions()
    pc.setUp()
    right, left = matrix.createVecs()

    def apply(vector):
        right.setArray(vector)
        pc.apply(right, left)
        return left.getArray().copy()

    return sla.LinearOperator(matrix.getSize(), matvec=apply, dtype=float)


# --- peers ---


def scipy_eigsh(case):
    M = None if case.M is None else case.M.tocsc()
    values, X = sla.eigsh(case.K.tocsc(), case.number, M, sigma=case.shift, tol=1e-10)
    return values, X, ""


def scipy_lobpcg(case):
    start = np.random.default_rng(0).normal(size=(case.K.shape[0], case.number))
    asked = {"tol": case.within, "maxiter": 500, "largest": False, "retResidualNormsHistory": True}
    values, X, history = sla.lobpcg(case.K, start, case.M, multigrid(case), **asked)
    order = np.argsort(values)[: case.number]
    return values[order], X[:, order], f"iterations {len(history)}"


def primme(case, preconditioner):
    try:
        import primme
    except ImportError as error:
        raise Absent(str(error)) from error
    within = case.within
    where = {"which": "SA"} if case.interval is None else {"which": "SM", "sigma": case.shift}
    values, X, facts = primme.eigsh(
        case.K,
        case.number,
        M=case.M,
        OPinv=preconditioner(case),
        method="PRIMME_DEFAULT_MIN_MATVECS",
        convtest=lambda value, vector, residual: residual <= within,
        return_stats=True,
        **where,
    )
    return values, X, f"products {facts['numMatvecs']}, solves {facts['numPreconds']}"


def mkl_feast(case, points):
    """Call MKL's FEAST with a subspace as wide as ours and a tolerance that amounts to ours."""
    mkl = mkl_library()
    K, M, n = upper(case.K), None if case.M is None else upper(case.M), case.K.shape[0]
    fpm = np.zeros(128, np.int32)
    mkl.feastinit(pointer(fpm))
    norm_k, norm_m = case.norms()
    largest = np.abs(case.interval).max()
    fpm[1] = points
    fpm[2] = int(
        np.ceil(-np.log10(TOL * (norm_k / largest + norm_m) / case.mass))
    )  # digits of ‖r‖ / (largest ‖Mx‖)
    wide = int(np.ceil(1.5 * case.number)) + 10
    values, X, residuals = np.zeros(wide), np.zeros((n, wide), order="F"), np.zeros(wide)
    reached = ctypes.c_double()
    loops, found, info = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    call = mkl.dfeast_scsrev if M is None else mkl.dfeast_scsrgv
    call(
        ctypes.c_char_p(b"U"),
        whole(n),
        *(pointer(array) for matrix in (K, M) if matrix is not None for array in matrix),
        pointer(fpm),
        ctypes.byref(reached),
        ctypes.byref(loops),
        *(ctypes.byref(ctypes.c_double(end)) for end in case.interval),
        whole(wide),
        pointer(values),
        pointer(X),
        ctypes.byref(found),
        pointer(residuals),
        ctypes.byref(info),
    )
    if info.value:
        raise RuntimeError(f"MKL's FEAST ended with info {info.value} after {loops.value} loops")
    return values[: found.value], X[:, : found.value], f"iterations {loops.value}"


def mkl_library():
    paths = [path for folder in ("lib", "lib64") for path in (Path(sys.prefix) / folder).glob("libmkl_rt.so*")]
    if not paths:
        raise Absent("no libmkl_rt.so in this environment (pip install mkl)")
    return ctypes.CDLL(str(paths[0]))


def upper(matrix):
    """Return (values, rows, columns) of the upper triangle as MKL wants them, counted from 1."""
    matrix = sp.triu(matrix, format="csr")
    matrix.sort_indices()
    return matrix.data, (matrix.indptr + 1).astype(np.int32), (matrix.indices + 1).astype(np.int32)


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def whole(number):
    return ctypes.byref(ctypes.c_int(number))


CONTENDERS = {
    "sparsehess": ours,
    "sparsehess, no count": partial(ours, count="no"),
    "sparsehess from below": partial(ours, method="krylovschur"),
    "sparsehess one shift": partial(ours, method="oneshift"),
    "sparsehess lobpcg": our_lobpcg,
    "sparsehess feast": partial(ours, method="feast"),
    "sparsehess feast, 1 group": partial(ours, method="feast", groups=1),
    "sparsehess feast, 2 groups": partial(ours, method="feast", groups=2),
    "sparsehess feast, 4 points": partial(our_feast, points=4),
    "sparsehess feast, 8 points": partial(our_feast, points=8),
    "slepc4py": of_slepc,
    "scipy eigsh": scipy_eigsh,
    "scipy lobpcg": scipy_lobpcg,
    "primme, multigrid": partial(primme, preconditioner=multigrid),
    "primme, mumps": partial(primme, preconditioner=mumps),
    "mkl feast, 4 points": partial(mkl_feast, points=4),
    "mkl feast, 8 points": partial(mkl_feast, points=8),
}


# --- one call ---


def columns(vectors):
    """Return vectors as an array (n, k) on the first rank."""
    if isinstance(vectors, np.ndarray):
        return vectors
    own = np.stack([vector.getArray(readonly=True) for vector in vectors], axis=1)
    parts = MPI.COMM_WORLD.gather(own)
    return np.vstack(parts) if parts else None


def limit_memory():
    """Let allocations fail where there is no memory, before the system ends processes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    resource.setrlimit(resource.RLIMIT_DATA, (int(0.9 * free / MPI.COMM_WORLD.size),) * 2)


def measured(run, case):
    """Return the results of one call as the line of JSON has them."""
    comm = MPI.COMM_WORLD
    PETSc.Log.begin()
    run(small(case))
    ctypes.CDLL(None).malloc_trim(0)  # no reuse of what was freed before
    forget_peak()
    before, counted = memory("VmRSS"), petsc_work()
    comm.Barrier()
    began = time.perf_counter()
    values, vectors, work = run(case)
    comm.Barrier()
    seconds = time.perf_counter() - began
    size = comm.allreduce(memory() - before)
    done = {what: times - counted[what] for what, times in petsc_work().items()}
    work = work or ", ".join(f"{what} {times}" for what, times in done.items() if times)
    X = columns(vectors)
    if comm.rank:
        return None
    errors = case.errors(values, X)
    return {"seconds": seconds, "bytes": size, "values": list(values), "errors": list(errors), "work": work}


def main():
    folder, name = sys.argv[1:]
    limit_memory()
    try:
        result = measured(CONTENDERS[name], Case.load(Path(folder)))
    except Absent as error:
        result = {"absent": str(error)}
    except Exception as error:  # peers have limits of their own
        result = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"}
    if result:
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
