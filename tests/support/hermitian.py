"""What a PETSc with complex scalars must solve: `python hermitian.py` runs every check and prints what failed.

A program, not a file of tests: one process has one PETSc, and that of the tests has real scalars. Each check is a
function of the communicator; `test_complex_build.py` runs it on several ranks, and reports each check by its name.
"""

import contextlib
import io
import itertools
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

from mpi4py import MPI

import numpy as np
import scipy.io
import scipy.linalg
import scipy.sparse as sp

TOL = 1e-8
N = 120


def hermitian(n, seed, density=0.03):
    """Return a random sparse Hermitian matrix with eigenvalues of both signs, none of them multiple."""
    rng = np.random.default_rng(seed)
    count = int(density * n * n / 2)
    rows, columns = rng.integers(0, n, (2, count))
    upper = sp.coo_matrix((rng.normal(size=count) + 1j * rng.normal(size=count), (rows, columns)), (n, n)).tocsr()
    return (upper + upper.conj().T + sp.diags(rng.normal(size=n))).tocsr()


def definite(n, seed):
    """Return a random sparse Hermitian matrix with eigenvalues from about 1 to 3, not diagonal."""
    part = hermitian(n, seed, density=0.01)
    return (2 * sp.identity(n) + part / abs(part).sum(axis=1).max()).tocsr()


def reference(H, M=None):
    return scipy.linalg.eigvalsh(H.toarray(), None if M is None else M.toarray())


def gap(spectrum, number):
    """Return the middle of the widest of some gaps from the number-th eigenvalue on."""
    at = number + int(np.argmax(np.diff(spectrum[number : number + 6])))
    return (spectrum[at] + spectrum[at + 1]) / 2


def shell(matrix, comm):
    """Return a Mat with products alone, by a SciPy matrix that every rank holds."""
    from sparsehess.pattern import Layout
    from sparsehess.runtime import PETSc

    layout = Layout.from_size(matrix.shape[0], comm)
    own = matrix.tocsr()[layout.start : layout.stop]

    class Products:
        def mult(self, mat, x, y):
            y.setArray(own @ np.concatenate(comm.allgather(x.getArray(readonly=True))))

    mat = PETSc.Mat().createPython(((layout.n_local, layout.n),) * 2, Products(), comm=comm)
    mat.setUp()
    return mat


def agree(H, spectrum, exact, M=None, comm=None):
    """Assert that a spectrum is the exact one, of true and orthonormal eigenvectors, by our own arithmetic too."""
    import sparsehess as sh

    values = spectrum.eigenvalues
    assert values.dtype == np.float64
    assert len(values) == len(exact), f"{len(values)} of {len(exact)}"
    scale = max(1.0, np.abs(exact).max(initial=0.0))
    assert np.abs(values - exact).max(initial=0.0) <= 1e-10 * scale, np.abs(values - exact).max()
    columns = [np.concatenate(comm.allgather(v.getArray(readonly=True))) for v in spectrum.vectors]
    if columns:
        X = np.stack(columns, axis=1)
        MX = X if M is None else M @ X
        assert np.abs(X.conj().T @ MX - np.eye(len(values))).max() < 1e-9
        assert np.abs(H @ X - MX * values).max() <= 100 * TOL * abs(H).sum(axis=1).max()
    assert spectrum.count is None and "complex" in spectrum.uncounted + "complex" * (not spectrum.vectors)
    assert sh.certify(H, spectrum, mass=M, comm=comm, tol=TOL).passed
    spectrum.close()


# --- ends and targets ---


def wanted(spectrum, k, which):
    if isinstance(which, float):
        return np.sort(spectrum[np.argsort(np.abs(spectrum - which))[:k]])
    order = {"smallest": spectrum, "largest": -spectrum, "magnitude": -np.abs(spectrum)}[which]
    return np.sort(spectrum[np.argsort(order)[:k]])


def ends(comm, methods, mass):
    import sparsehess as sh

    H, M = hermitian(N, 1), definite(N, 2) if mass else None
    exact = reference(H, M)
    for method, which in methods:
        asked = {"target": which} if isinstance(which, float) else {"which": which}
        spectrum = sh.eigs(H, 6, mass=M, method=method, comm=comm, **asked)
        agree(H, spectrum, wanted(exact, 6, which), M, comm)


KRYLOV = [("krylovschur", which) for which in ("smallest", "largest", "magnitude", 0.3)]
KRYLOV += [("dense", "smallest"), ("dense", 0.3), ("lanczos", "largest"), ("auto", "smallest")]
PRECONDITIONED = [(method, which) for method in ("lobpcg", "gd", "jd") for which in ("smallest", "largest")]


def check_krylov(comm):
    ends(comm, KRYLOV, False)


def check_krylov_with_mass(comm):
    ends(comm, KRYLOV, True)


def check_preconditioned(comm):
    ends(comm, PRECONDITIONED, False)


def check_preconditioned_with_mass(comm):
    ends(comm, PRECONDITIONED, True)


def check_shells(comm):
    import sparsehess as sh

    H = definite(40, 3)
    exact = reference(H)
    low, high = exact[0] - 0.1, gap(exact, 3)
    mat = shell(H, comm)
    for which in ("smallest", "largest"):
        spectrum = sh.eigs(mat, 4, which=which)
        assert np.abs(spectrum.eigenvalues - wanted(exact, 4, which)).max() < 1e-10
        assert "complex" in spectrum.uncounted  # few rows are made whole, and nothing counts
        spectrum.close()
    for method in ("filter", "dense"):
        spectrum = sh.eigs(mat, interval=(low, high), method=method)
        inside = exact[(exact > low) & (exact < high)]
        assert len(spectrum.eigenvalues) == len(inside), (method, len(spectrum.eigenvalues), len(inside))
        assert np.abs(spectrum.eigenvalues - inside).max() < 1e-10
        spectrum.close()
    with_feast(comm, mat, None, low, high, exact, points=2)
    mat.destroy()


def check_lowest_near_zero(comm):
    import sparsehess as sh

    # A long chain with a phase on each bond: its lowest eigenvalues are so near to zero, and to each other, beside
    # its norm that products tell neither their sign nor which of them is the lowest.
    n = 300
    phases = np.exp(2j * np.pi * np.random.default_rng(20).random(n - 1))
    bonds = sp.diags([phases], [1], shape=(n, n))
    chain = (2 * sp.identity(n) - bonds - bonds.conj().T).tocsr()
    exact = 4 * np.sin(np.arange(1, n + 1) * np.pi / (2 * n + 2)) ** 2
    masses = np.full(n, 0.5)
    for down in (0.0, (exact[0] + exact[1]) / 2, exact[6]):
        H = (chain - down * sp.identity(n)).tocsr()
        for k in (1, 4):
            agree(H, sh.eigs(H, k, comm=comm), exact[:k] - down, comm=comm)
        M = sp.diags(masses).tocsr()
        agree(H, sh.eigs(H, 2, mass=masses, comm=comm), (exact[:2] - down) / 0.5, M, comm)


# --- intervals ---


def intervals(comm, H, M, methods, parts=3):
    """Solve intervals that split the spectrum, one after another, by each of some methods."""
    import sparsehess as sh

    exact = reference(H, M)
    cuts = [gap(exact, round(part * (len(exact) - 8) / parts)) for part in range(1, parts)]
    cuts = [exact[0] - 0.1, *cuts, exact[-1] + 0.1]
    for method in methods:
        for low, high in itertools.pairwise(cuts):
            spectrum = sh.eigs(H, interval=(low, high), mass=M, method=method, comm=comm)
            assert spectrum.method == ("feast" if method == "auto" else method)
            agree(H, spectrum, exact[(exact >= low) & (exact <= high)], M, comm)


def check_feast(comm):
    intervals(comm, hermitian(N, 4), None, ["auto"])


def check_feast_with_mass(comm):
    intervals(comm, hermitian(N, 4), definite(N, 5), ["auto"])


def check_feast_of_a_real_symmetric_matrix(comm):
    intervals(comm, hermitian(N, 6).real.tocsr(), None, ["auto"], parts=2)


def check_other_methods_for_intervals(comm):
    intervals(comm, hermitian(N, 7), None, ["filter", "dense"])
    intervals(comm, hermitian(40, 7, density=0.1), definite(40, 8), ["ciss"], parts=2)
    intervals(comm, hermitian(N, 7), sp.diags(1 + np.arange(N) / N).tocsr(), ["filter"], parts=2)


def with_feast(comm, matrix, M, low, high, exact, **settings):
    """Assert that FEAST finds what is in an interval, told how many to expect."""
    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz
    from sparsehess.eigen.solvers.feast import Feast
    from sparsehess.runtime import destroy

    inside = exact[(exact > low) & (exact < high)]
    with EigenProblem.of(matrix, mass=M, comm=comm) as problem:
        solver = Feast(problem, settings.pop("options", {}), TOL, **settings)
        values, vectors, errors, *_ = rayleigh_ritz(problem, solver.find(low, high, len(inside)))
        assert len(values) == len(inside) and np.abs(values - inside).max() < 1e-10, settings
        assert errors.max() <= TOL
        destroy(*vectors)
        solver.close()


def check_quadratures(comm):
    from sparsehess.eigen.solvers.contour_quadrature import QUADRATURES

    H, M = hermitian(60, 9, density=0.06), definite(60, 10)
    exact = reference(H, M)
    ends = gap(exact, 25), gap(exact, 32)
    for quadrature in QUADRATURES:
        with_feast(comm, H, M, *ends, exact, quadrature=quadrature, points=4)
    # Systems that are not factorized: those of z̄ by the transpose.
    iterative = {"ksp_type": "gmres", "pc_type": "jacobi", "ksp_rtol": 1e-2, "ksp_gmres_restart": 60}
    with_feast(comm, H, M, *ends, exact, points=2, options=iterative)


def check_multiplicities_and_clusters(comm):
    import sparsehess as sh

    # Twofold eigenvalues in complex vectors that are not those of a real matrix, then pairs 1e-10 apart.
    part = hermitian(40, 11, density=0.1)
    for apart in (0.0, 1e-10):
        H = sp.block_diag([part, part.conj() + apart * sp.identity(40), part + 2 * apart * sp.identity(40)])
        order = np.random.default_rng(0).permutation(120)
        H = sp.csr_matrix(H)[order][:, order].tocsr()
        exact = reference(H)
        agree(H, sh.eigs(H, 6, comm=comm), exact[:6], comm=comm)
        low, high = (exact[29] + exact[30]) / 2, (exact[59] + exact[60]) / 2
        agree(H, sh.eigs(H, interval=(low, high), comm=comm), exact[30:60], comm=comm)
        agree(H, sh.eigs(H, interval=(exact[30], exact[56]), comm=comm), exact[30:57], comm=comm)


def check_singular_mass(comm):
    import sparsehess as sh

    H = (hermitian(N, 12) + 9 * sp.identity(N)).tocsr()
    weights = 1 + np.arange(N) / N
    weights[::10] = 0.0
    heavy, light = np.flatnonzero(weights), np.flatnonzero(weights == 0)
    dense = H.toarray()
    across = dense[np.ix_(light, heavy)]
    schur = dense[np.ix_(heavy, heavy)] - across.conj().T @ np.linalg.solve(dense[np.ix_(light, light)], across)
    exact = scipy.linalg.eigvalsh(schur, np.diag(weights[heavy]))
    M = sp.diags(weights).tocsr()
    low, high = gap(exact, 30), gap(exact, 45)
    agree(H, sh.eigs(H, interval=(low, high), mass=M, comm=comm), exact[(exact > low) & (exact < high)], M, comm)
    agree(H, sh.eigs(H, 5, target=low, mass=M, comm=comm), wanted(exact, 5, float(low)), M, comm)
    agree(H, sh.eigs(H, 5, method="dense", mass=M, comm=comm), exact[:5], M, comm)


# --- a dynamical matrix ---


def diatomic(cells, q, light=1.0, heavy=2.5, spring=1.7):
    """Return force constants and masses of a ring of diatomic cells at a wave vector, and all λ = ω² exactly.

    The phase exp(iq) lies on every bond from cell to cell, so that wave vectors are q + 2π m / cells.
    """
    n = 2 * cells
    i = np.arange(0, n, 2)
    inner = sp.coo_matrix((np.full(cells, -spring), (i, i + 1)), (n, n))
    outer = sp.coo_matrix((np.full(cells, -spring * np.exp(1j * q)), (i + 1, (i + 2) % n)), (n, n))
    bonds = (inner + outer).tocsr()
    force = (bonds + bonds.conj().T + 2 * spring * sp.identity(n)).tocsr()
    masses = np.tile([light, heavy], cells)
    k = q + 2 * np.pi * np.arange(cells) / cells
    total = spring * (1 / light + 1 / heavy)
    root = np.sqrt(np.maximum(total**2 - 4 * spring**2 * np.sin(k / 2) ** 2 / (light * heavy), 0.0))
    return force, masses, np.sort(np.concatenate([total - root, total + root]))


def check_phonons(comm):
    import sparsehess as sh

    for q in (0.0, 0.013, np.pi / 3):  # at 0 every branch is twofold, and the lowest frequency zero
        force, masses, exact = diatomic(50, q)
        M = sp.diags(masses).tocsr()
        dynamical = sp.diags(masses**-0.5) @ force @ sp.diags(masses**-0.5)
        dynamical = sp.csr_matrix(dynamical)
        agree(force, sh.eigs(force, 7, mass=masses, comm=comm), exact[:7], M, comm)
        agree(dynamical, sh.eigs(dynamical, 7, comm=comm), exact[:7], comm=comm)
        low, high = 0.5 * exact[49], 1.0001 * exact[49]  # the upper half of the acoustic branch
        inside = exact[(exact >= low) & (exact <= high)]
        agree(force, sh.eigs(force, interval=(low, high), mass=masses, comm=comm), inside, M, comm)
        agree(dynamical, sh.eigs(dynamical, interval=(low, high), comm=comm), inside, comm=comm)
    # A translation of the crystal in a gauge of another wave vector is a complex null vector.
    force, masses, exact = diatomic(50, 2 * np.pi / 50)
    mode = np.repeat(np.exp(-2j * np.pi * np.arange(50) / 50), 2)[None]
    for method in ("krylovschur", "lobpcg", "feast"):
        more = {"interval": (-0.1, exact[4] * 1.001)} if method == "feast" else {"k": 4}
        spectrum = sh.eigs(force, mass=masses, nullspace=mode, method=method, comm=comm, **more)
        agree(force, spectrum, exact[1:5], sp.diags(masses).tocsr(), comm)


# --- what is made of eigenpairs ---


def check_following(comm):
    import sparsehess as sh

    H, near = hermitian(N, 13), hermitian(N, 14)
    exact = reference(H)
    with sh.eigs(H, 6, comm=comm) as before:
        rng = np.random.default_rng(1)
        turned = [v.copy() for v in before.vectors]
        for vector, angle in zip(turned, rng.uniform(0, 6, 6), strict=True):
            vector.scale(np.exp(1j * angle))
        found = sh.match_modes(turned[::-1], before)
        assert (found.before == np.arange(6)[::-1]).all() and np.abs(found.overlaps - 1).max() < 1e-10
        moved = (H + 1e-3 * near).tocsr()
        for method in ("lobpcg", "krylovschur"):
            after = sh.eigs(moved, 6, guess=turned, method=method, comm=comm)
            agree(moved, after, reference(moved)[:6], comm=comm)
        agree(moved, sh.eigs(moved, 6, preconditioner=H, comm=comm), reference(moved)[:6], comm=comm)
        certificate = sh.certify(near, before, comm=comm)
        assert not certificate.passed and certificate.residual > 1e-3
        for vector in turned:
            vector.destroy()
    lowest = sh.curvature(H, comm=comm)
    assert lowest.sign == -1 and lowest.certified and abs(lowest.value - exact[0]) <= lowest.error + 1e-10
    lowest.direction.destroy()


def check_explanation(comm):
    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.eigen.problem.solve_spec import SolveSpec
    from sparsehess.eigen.solvers.method_choice import choose_method

    with EigenProblem.of(hermitian(N, 15), comm=comm) as problem:
        choice = choose_method(problem, SolveSpec(interval=(0.0, 1.0)))
        assert choice.method == "feast" and "complex" in choice.reason
        assert choose_method(problem, SolveSpec(k=4)).method == "krylovschur"
        most, everywhere = problem.factor_cost[:2]
        assert 0 < most <= everywhere


# --- files and commands ---


def command(*words):
    """Run a command; return (exit status, what it printed)."""
    from sparsehess import cli

    printed, status = io.StringIO(), None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            cli.main([str(word) for word in words])
        except SystemExit as end:
            status = end.code
    return status, printed.getvalue()


def check_files(comm):
    from sparsehess.runtime import PETSc

    folder = Path(comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None))
    H, M = hermitian(60, 16, density=0.06), definite(60, 17)
    csr = (H.indptr, H.indices, H.data)
    if comm.rank == 0:
        scipy.io.mmwrite(folder / "hermitian.mtx", H, symmetry="hermitian")
        scipy.io.mmwrite(folder / "general.mtx", H, symmetry="general")
        scipy.io.mmwrite(folder / "array.mtx", H.toarray(), symmetry="hermitian")
        scipy.io.mmwrite(folder / "mass.mtx", M, symmetry="hermitian")
        sp.save_npz(folder / "sparse.npz", H)
        np.savez(folder / "dense.npz", H=H.toarray())
        alone = PETSc.Mat().createAIJ(H.shape, csr=csr, comm=PETSc.COMM_SELF)
        viewer = PETSc.Viewer().createBinary(str(folder / "binary.petsc"), "w", comm=PETSc.COMM_SELF)
        alone.view(viewer)
        viewer.destroy()
        alone.destroy()
        other = H.tolil()
        other[3, 41] += 1j
        sp.save_npz(folder / "other.npz", other.tocsr())
        sp.save_npz(folder / "symmetric.npz", (H.real + 1j * (H.imag + H.imag.T + sp.identity(60))).tocsr())
    comm.Barrier()
    exact = reference(H)
    for name in ("hermitian.mtx", "general.mtx", "array.mtx", "sparse.npz", "dense.npz", "binary.petsc"):
        result, told = folder / f"{name}.npz", folder / "told.json"
        status, text = command("eigs", folder / name, "-k", 4, "-o", result, "--json", told)
        assert status == 0, (name, text)
        facts = json.loads(comm.bcast(told.read_text() if comm.rank == 0 else None))
        assert np.abs(np.array(facts["eigenvalues"]) - exact[:4]).max() < 1e-10 and facts["count"] is None
        status, text = command("check", result, folder / name)
        assert status == 0 and (comm.rank or ("verdict      holds" in text and "complex" in text)), text
    result = folder / "interval.h5"
    words = ("--mass", folder / "mass.mtx")
    status, text = command("eigs", folder / "sparse.npz", *words, "--interval", -1, 1, "-o", result)
    many = int(np.count_nonzero(np.abs(reference(H, M)) <= 1))
    assert status == 0 and (comm.rank or "not counted: scalars of this PETSc are complex" in text), text
    status, text = command("check", result, folder / "sparse.npz", *words)
    assert status == 0 and (comm.rank or f"{many} pairs of {many}" in text), text
    status, text = command("check", result, folder / "sparse.npz")  # without its mass it does not hold
    assert status == 4, text
    status, text = command("eigs", folder / "sparse.npz", "-k", 4, "--guess", folder / "sparse.npz.npz")
    assert status == 0, text
    for name in ("other.npz", "symmetric.npz"):
        status, text = command("eigs", folder / name)
        assert status == 2 and (comm.rank or "not Hermitian" in text), text
    status, text = command("info")
    assert status == 0 and (comm.rank or "complex128" in text), text


def check_checkpoint(comm):
    import sparsehess as sh
    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.eigen.problem.solve_spec import SolveSpec
    from sparsehess.eigen.solvers.search_checkpoint import SearchCheckpoint
    from sparsehess.runtime import destroy
    from sparsehess.storage.checkpoint import Checkpoint

    folder = comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None)
    H = hermitian(N, 18)
    with sh.eigs(H, 3, comm=comm) as found, EigenProblem.of(H, comm=comm) as problem:
        for resume in (False, True):
            checkpoint = Checkpoint(folder, comm, interval=0.0, resume=resume)
            search = SearchCheckpoint(checkpoint, problem, SolveSpec(k=3), "krylovschur")
            if not resume:
                search.pause(lambda: ({"shift": -1.0}, found.vectors, []))
                continue
            facts, vectors = search.load()
            assert facts == {"shift": -1.0} and len(vectors) == 3
            for old, new in zip(found.vectors, vectors, strict=True):
                assert (old.getArray(readonly=True) == new.getArray(readonly=True)).all()
            destroy(*vectors)
        spectrum = sh.eigs(H, 3, comm=comm, checkpoint=Checkpoint(folder, comm, resume=True))
        agree(H, spectrum, reference(H)[:3], comm=comm)


# --- what needs real scalars ---


def refused(call, kind, *words):
    import sparsehess as sh

    try:
        call()
    except getattr(sh, kind) as error:
        text = str(error)
        assert all(word in text for word in words) and "\n" not in text, text
        return
    raise AssertionError(f"nothing was refused with {words}")


def check_refusals(comm):
    import sparsehess as sh

    H, real = hermitian(40, 19), ("complex", "real scalars", "python3-slepc4py-real")
    eigs = lambda **more: lambda: sh.eigs(H, comm=comm, **more)  # noqa: E731
    refused(eigs(which="negative"), "InputError", "inertia", "complex")
    refused(eigs(which="negative", k=2), "InputError", "inertia", "complex")
    refused(eigs(interval=(0, 1), method="slicing"), "InputError", "inertia", "complex")
    refused(eigs(count="yes"), "InputError", "inertia", "complex")
    refused(eigs(mass=np.r_[0.0, np.ones(39)]), "InputError", "singular", "complex")
    refused(eigs(mass=np.r_[0.0, np.ones(39)], which="largest"), "InputError", "singular", "complex")
    refused(lambda: sh.inertia(H, comm=comm), "StackError", "inertia", *real)
    for estimate in (sh.density, sh.trace, sh.rank, sh.diagonal):
        refused(lambda estimate=estimate: estimate(H, comm=comm), "StackError", *real)
    refused(lambda: sh.sparsify(H, sh.Above(0.1), comm=comm), "StackError", *real)
    refused(lambda: sh.Objective(x=np.ones(3), gradient=lambda x: x, comm=comm), "StackError", "objective", *real)
    refused(lambda: sh.LowRankDiagonal(np.ones(4), np.ones((4, 1)), comm=comm), "StackError", "structured", *real)
    refused(lambda: sh.eigs(H + 1j * sp.identity(40), comm=comm), "InputError", "not Hermitian")
    for words in (["inertia"], ["density"], ["trace"], ["rank"], ["eigs", "--drop", "0.1"]):
        status, text = command(words[0], __file__.replace(".py", ".npz"), *words[1:])
        assert status and (comm.rank or words[0] == "eigs" or "real scalars" in text), (words, text)


def check_coloring(comm):
    import sparsehess as sh

    pattern = sh.Pattern.from_edges([[i, (i + 1) % 30] for i in range(30)], 30, comm=comm)
    coloring = sh.color(pattern)
    sh.verify_coloring(pattern, coloring)
    assert 3 <= coloring.count <= 5


# Checks for one rank: they show no more on several.
ALONE = {
    "check_krylov",
    "check_preconditioned",
    "check_shells",
    "check_lowest_near_zero",
    "check_feast",
    "check_feast_of_a_real_symmetric_matrix",
    "check_other_methods_for_intervals",
    "check_quadratures",
    "check_explanation",
    "check_coloring",
}


def run(comm) -> dict[str, str]:
    """Run all checks that are for so many ranks; return {name: what went wrong, or nothing}, on every rank."""
    told = {}
    checks = {name: item for name, item in globals().items() if name.startswith("check_")}
    for name, check in checks.items():
        if comm.size > 1 and name in ALONE:
            continue
        error = ""
        try:
            check(comm)
        except Exception:
            error = traceback.format_exc()
        told[name] = "".join(f"rank {rank}: {text}" for rank, text in enumerate(comm.allgather(error)) if text)
        if told[name]:
            break  # other ranks may be anywhere
    return told


if __name__ == "__main__":
    sys.path.insert(0, os.fspath(Path(__file__).parent))
    found = run(MPI.COMM_WORLD)
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(found))
