"""What a service keeps from one job for the next: it saves work, and changes no answer."""

import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

from sparsehess import eigs, runtime
from sparsehess.cli import command_line
from sparsehess.eigen.solvers.factor_packages import has_cholmod
from sparsehess.service.resident import warm_resources
from sparsehess.service.resident.warm_resources import WarmResources
from sparsehess.storage import matrix_files
from support import answers
from support.cases import laplacian, second_difference
from support.petsc_events import counted_events

pytestmark = pytest.mark.parallel([1, 2, 3])

N = 400
LOWEST = 2 - 2 * np.cos(np.pi * np.arange(1, 6) / (N + 1))  # of the chain, in closed form


def test_a_file_that_changes_is_read_again(comm, folder, monkeypatch):
    comm = runtime.communicator(comm)
    path = folder / "matrix.npz"

    def write(scale):
        """Write a file of the same size and the same date."""
        comm.Barrier()
        if comm.rank == 0:
            data = scale * np.arange(1.0, 21.0)
            np.savez(path, format=b"csr", shape=(20, 20), data=data, indices=np.arange(20), indptr=np.arange(21))
            os.utime(path, ns=(now, now))
        comm.Barrier()

    def kept():
        warm.begin_job()
        return comm.allreduce(float(warm.read_matrix(path, comm).values.sum()))

    now, warm = comm.bcast(time.time_ns()), WarmResources(comm, 2**20)
    for scale in (1.0, 2.0):
        write(scale)
        assert kept() == 210 * scale
    read = matrix_files.read_matrix

    def late(*arguments, **keywords):
        write(5.0)
        return read(*arguments, **keywords)

    monkeypatch.setattr(warm_resources, "read_matrix", late)
    write(4.0)
    kept()
    monkeypatch.undo()
    write(4.0)
    assert kept() == 210 * 4.0
    warm.close()


@pytest.fixture
def ask(comm, folder):
    """Return what answers a job of one command, with what is kept."""
    comm = runtime.communicator(comm)

    def asked(warm, command, *words):
        line = command_line()
        arguments = line.parse([command, *words, "-q", "--json", str(folder / "facts.json")])
        warm.begin_job()
        assert line.run(arguments, {}, comm, resources=warm) == 0
        return answers.parse((folder / "facts.json").read_text())

    return asked


def test_what_is_kept_never_changes_answers(comm, folder, ask):
    comm = runtime.communicator(comm)
    for number, shift in enumerate((0.0, 0.0, 0.5)):
        if comm.rank == 0:
            sp.save_npz(folder / f"{number}.npz", second_difference(N) + shift * sp.identity(N))
    comm.Barrier()
    for most in (2**24, 40_000, 0):
        warm, found = WarmResources(comm, most), []
        for number in (0, 1, 2, 0, 2):
            facts = ask(warm, "eigs", str(folder / f"{number}.npz"), "-k", "5")
            assert facts["count"]["certified"]
            assert facts["eigenvalues"] == pytest.approx(LOWEST + 0.5 * (number == 2), rel=1e-9)
            found.append(facts["iterations"])
        if most == 2**24:
            packages = 1 + has_cholmod(comm)  # one solves and one counts, or one does both
            assert warm.kept.hits == Counter(matrix=3, solver=4 * packages, vectors=4)
            assert found[1] <= found[0]
        if most == 0:
            assert not any(warm.kept.hits.values())
        warm.close()


def test_nonzeros_are_analyzed_once(comm, folder, ask):
    """Of matrices, and masses, with the same nonzeros, whatever their values and signs; of others again."""
    comm = runtime.communicator(comm)
    rng, path = np.random.default_rng(5), str(folder / "h.npz")
    ones = sp.diags([np.ones(N - 1), np.ones(N), np.ones(N - 1)], [-1, 0, 1])

    def analyzed(command, matrix, *words, mass=None):
        """Return how often nonzeros were analyzed for a job, and its answer."""
        comm.Barrier()
        if comm.rank == 0:
            sp.save_npz(path, matrix.tocsr())
            if mass is not None:
                sp.save_npz(folder / "m.npz", mass.tocsr())
        comm.Barrier()
        with counted_events("MatCholFctrSym") as analyses:
            facts = ask(warm, command, path, *words, *([] if mass is None else ["--mass", str(folder / "m.npz")]))
        return *analyses(), facts

    warm = WarmResources(comm, 2**25)
    packages = 1 + has_cholmod(comm)
    for number in range(5):
        springs = sp.diags(rng.uniform(-2.0, 2.0, N)) if number % 2 else 0 * sp.identity(N)
        matrix = second_difference(N) + springs
        exact = np.linalg.eigvalsh(matrix.toarray())
        often, facts = analyzed("eigs", matrix, "-k", "5")
        assert facts["eigenvalues"] == pytest.approx(exact[:5], rel=1e-8, abs=1e-10)
        assert facts["count"]["certified"]
        # What has failed, as CHOLMOD where the lowest eigenvalue is below the shift, is not kept.
        if exact[0] > 0 or not has_cholmod(comm):
            assert often == (0 if number else packages)
        often, facts = analyzed("inertia", matrix)
        assert (often, facts["negative"]) == (0, np.count_nonzero(exact < 0))
    mass = sp.identity(N) + 0.1 * ones
    for number in range(2):
        often, facts = analyzed("eigs", second_difference(N), "-k", "5", mass=(1 + number) * mass)
        exact = scipy.linalg.eigh(second_difference(N).toarray(), (1 + number) * mass.toarray(), eigvals_only=True)
        assert facts["eigenvalues"] == pytest.approx(exact[:5], rel=1e-8)
        assert often == (0 if number else packages)
    wider = second_difference(N) + sp.diags([np.ones(N - 2), 4 * np.ones(N), np.ones(N - 2)], [-2, 0, 2])
    assert analyzed("inertia", wider)[0] == 1
    # Without room nothing is kept, and nothing is left over.
    warm.close()
    warm = WarmResources(comm, 30_000)
    assert [analyzed("inertia", wider)[0] for _ in range(2)] == [1, 1]
    warm.close()


@pytest.mark.thorough
def test_matrices_that_are_not_definite_leave_no_memory_behind(comm):
    """Where CHOLMOD ends at a pivot, PETSc forgets to free what it had copied of the matrix."""
    matrix, exact = laplacian(95, 105)
    matrix = matrix - (exact[0] + 0.01) * sp.identity(
        len(exact)
    )  # so little below zero that some products do not tell

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    for number in range(24):
        if number == 4:
            before = resident()
        with eigs(matrix, 2, count="no", comm=comm) as spectrum:
            assert spectrum.eigenvalues == pytest.approx(exact[:2] - exact[0] - 0.01, rel=1e-9)
    assert resident() - before < 8 * 2**20
