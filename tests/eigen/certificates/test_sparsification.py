"""Sparsified Hessians against dense ones: bounds that hold, and counts that are met."""

from petsc4py import PETSc

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.cli import command_line
from sparsehess.errors import InputError
from sparsehess.pattern.dropping_rules import Entries
from sparsehess.storage.matrix_files import read_matrix
from support import answers
from support.cases import laplacian, local_rows, random_pattern, random_symmetric

pytestmark = pytest.mark.parallel([1, 2])

N = 90


def example(seed=3):
    matrix = random_symmetric(random_pattern(N, 700, seed), seed).tocoo()
    return sp.csr_matrix(matrix) + 5 * sp.identity(N)


def gathered(thinned, comm):
    """Return the whole matrix, dense, on every rank."""
    return np.vstack(comm.allgather(local_rows(thinned.mat).toarray()))


def moved(before, after, M=None):
    return np.abs(scipy.linalg.eigvalsh(before, M) - scipy.linalg.eigvalsh(after, M)).max()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0, 100.0])
def test_a_threshold_and_its_bound(threshold, comm):
    matrix = example().toarray()
    wanted = np.where((np.abs(matrix) >= threshold) | np.eye(N, dtype=bool), matrix, 0)
    with sh.sparsify(sp.csr_matrix(matrix), sh.Above(threshold), comm=comm) as left:
        assert np.array_equal(gathered(left, comm), wanted)
        lost = matrix - wanted
        assert left.row_sum == pytest.approx(np.abs(lost).sum(axis=1).max(), rel=1e-12, abs=1e-300)
        assert left.frobenius == pytest.approx(np.linalg.norm(lost), rel=1e-12, abs=1e-300)
        assert left.bound == min(left.row_sum, left.frobenius)
        assert moved(matrix, wanted) <= left.bound + 1e-12
        assert left.kept + left.dropped == example().nnz and left.kept == left.pattern.nnz
        if threshold == 0.3:
            assert moved(matrix, wanted) > 0
        left.pattern.free()


@pytest.mark.parametrize("kind", ["lumped", "consistent", "far"])
def test_the_bound_of_a_pencil(kind, comm):
    matrix = example().toarray()
    weights = np.linspace(0.1, 3.0, N)
    mass = sp.diags([weights, *[0.4 * np.sqrt(weights[1:] * weights[:-1])] * 2], [0, 1, -1]).tocsr()
    if kind == "far":  # definite, and far from diagonally dominant
        apart = np.abs(np.subtract.outer(np.arange(N), np.arange(N)))
        mass = sp.csr_matrix(np.sqrt(np.outer(weights, weights)) * 0.9**apart)
    given = weights if kind == "lumped" else mass
    with sh.sparsify(sp.csr_matrix(matrix), sh.Above(0.3), mass=given, comm=comm) as left:
        after = gathered(left, comm)
        left.pattern.free()
        if kind == "far":
            assert left.bound is None
            return
        M = np.diag(weights) if kind == "lumped" else mass.toarray()
        assert 0 < moved(matrix, after, M) <= left.bound
        if kind == "lumped":  # each entry by its own two masses, not by the least of all
            assert left.bound < min(left.row_sum, left.frobenius) / weights.min()


@pytest.mark.parametrize("count", [N, N + 1, 301, 302, 10**6])
def test_a_fixed_number_of_entries(count, comm):
    matrix = example()
    whole = matrix.toarray()
    with sh.sparsify(matrix, sh.Largest(count), comm=comm) as left:
        after = gathered(left, comm)
        assert left.kept == min(count - (count - N) % 2, matrix.nnz)
        left.pattern.free()
    off = ~np.eye(N, dtype=bool)
    kept, lost = np.abs(whole[(after != 0) & off]), np.abs(whole[(after == 0) & off])
    assert np.array_equal(np.diag(after), np.diag(whole)) and np.array_equal(after, after.T)
    assert kept.min(initial=np.inf) >= lost.max()


def test_ties_are_decided_by_position(comm):
    matrix = laplacian(6, 7)[0].tocsr()  # all off-diagonal entries are -1
    n = matrix.shape[0]
    for pairs in (1, 20, 50):
        with sh.sparsify(matrix, sh.Largest(n + 2 * pairs), comm=comm) as left:
            after = gathered(left, comm)
            left.pattern.free()
        upper = sp.triu(matrix, 1).tocoo()
        first = sorted(zip(upper.row, upper.col, strict=True))[:pairs]
        assert sorted(zip(*np.nonzero(np.triu(after, 1)), strict=True)) == first


def test_hysteresis(comm):
    pattern = random_pattern(N, 300, 1)
    matrix, before = random_symmetric(pattern, 1), None
    drawn, there = np.random.default_rng(5), None
    for _ in range(4):
        change = sp.triu(matrix, 1).tocsr()
        change.data *= drawn.uniform(0.3, 1.7, len(change.data))
        now = sp.csr_matrix(change + change.T + sp.diags(matrix.diagonal()))
        dense = np.abs(now.toarray())
        wanted = dense >= 0.9 if there is None else (dense >= 0.9) | ((dense >= 0.5) & there)
        wanted |= np.eye(N, dtype=bool)
        with sh.sparsify(now, sh.Hysteresis(0.5, 0.9, before), comm=comm) as left:
            assert np.array_equal(gathered(left, comm), np.where(wanted, now.toarray(), 0))
            if before is not None:
                before.free()
                plain = (dense >= 0.9) | np.eye(N, dtype=bool)
                assert wanted.sum() > plain.sum()  # something stays only because it was there
            before = left.pattern
        there = wanted & (now.toarray() != 0)
    before.free()


def test_what_was_kept_is_inherited_until_the_bound_breaks(comm):
    matrix = example()
    with sh.sparsify(matrix, sh.Above(0.5), comm=comm) as left:
        before, bound = left.pattern, left.bound
    nudged = matrix.copy()
    nudged.data *= np.where(np.abs(matrix.data) < 0.5, 1.01, 1.0)
    for within, same in ((1.1 * bound, True), (0.9 * bound, False)):
        with sh.sparsify(nudged, sh.Inherited(before, within, sh.Above(0.0)), comm=comm) as left:
            assert (left.pattern.nnz == before.nnz) is same
            assert left.bound <= within
            left.pattern.free()
    before.free()


def test_what_is_inherited_obeys_the_bound_of_the_pencil(comm):
    matrix, light = example(), np.full(N, 0.01)
    with sh.sparsify(matrix, sh.Above(0.5), comm=comm) as left:
        before, within = left.pattern, 1.1 * left.bound
    with sh.sparsify(matrix, sh.Inherited(before, within, sh.Above(0.0)), mass=light, comm=comm) as left:
        assert left.bound <= within and left.dropped == 0  # a hundred times as much would move
    with sh.sparsify(matrix, sh.Inherited(before, 100 * within, sh.Above(0.0)), mass=light, comm=comm) as left:
        assert left.dropped > 0 and moved(matrix.toarray(), gathered(left, comm), np.diag(light)) <= left.bound
    before.free()


def test_what_is_left_outlives_what_it_was_made_of(comm):
    matrix = example()
    for where in (None, comm):
        with sh.sparsify(matrix, sh.Above(0.5), comm=where) as left, sh.eigs(left.mat, 2) as found:
            kept = np.where((np.abs(matrix.toarray()) >= 0.5) | np.eye(N, dtype=bool), matrix.toarray(), 0)
            assert found.eigenvalues == pytest.approx(scipy.linalg.eigvalsh(kept)[:2], rel=1e-8)
    theirs = comm.Dup()
    given = rows_of(matrix, theirs)
    with sh.sparsify(given, sh.Above(0.5)) as left:
        given.destroy()
        with sh.eigs(left.mat, 2) as found:
            assert found.eigenvalues == pytest.approx(scipy.linalg.eigvalsh(kept)[:2], rel=1e-8)
    theirs.Free()


def rows_of(matrix, comm):
    """Return a PETSc matrix of a caller's."""
    mat = PETSc.Mat().createAIJ(matrix.shape, nnz=N, comm=comm)
    for i in range(*mat.getOwnershipRange()):
        row = matrix[[i]]
        mat.setValues(i, row.indices.astype(PETSc.IntType), row.data)
    mat.assemble()
    return mat


def test_what_cannot_be_thinned(comm):
    matrix = example()
    for rule, says in (
        (sh.Above(-1.0), "not negative"),
        (sh.Above(np.nan), "finite"),
        (sh.Largest(N - 1), f"the diagonal alone has {N}"),
        (sh.Hysteresis(2.0, 1.0), "above the upper"),
    ):
        with pytest.raises(InputError, match=says):
            sh.sparsify(matrix, rule, comm=comm)


# A ring of masses 2, every other spring of which is soft.
SPRINGS = """
import numpy as np
import sparsehess as sh

def springs(comm, n=60):
    stiff = np.where(np.arange(n) % 2, 1.0, 0.5)
    def gradient(x):
        pull = stiff * (x - np.roll(x, -1))
        return 4 * x + pull - np.roll(pull, 1)
    pattern = sh.Pattern.from_edges([[i, (i + 1) % n] for i in range(n)], n, comm=comm)
    return sh.Objective(x=np.zeros(n), gradient=gradient, pattern=pattern, mass=np.full(n, 2.0), comm=comm)
"""


def springs(soft, n=60):
    """Return its Hessian, with what couples the ends of soft springs as given."""
    off = np.where(np.arange(n) % 2, -1.0, -soft)
    matrix = np.diag(np.full(n, 5.5))
    for i in range(n):
        matrix[i, (i + 1) % n] = matrix[(i + 1) % n, i] = off[i]
    return matrix


def command(words, folder, comm):
    """Return the facts of a command on all ranks."""
    line = command_line()
    arguments = line.parse([*words.split(), "-q", "--json", str(folder / "facts.json")])
    assert line.run(arguments, {}, comm) == 0
    comm.Barrier()
    return answers.parse((folder / "facts.json").read_text())


def test_commands_thin_and_say_the_bound(folder, comm):
    matrix = example()
    if comm.rank == 0:
        sp.save_npz(folder / "h.npz", matrix)
        (folder / "springs.py").write_text(SPRINGS)
    comm.Barrier()
    dense = matrix.toarray()
    kept = np.where((np.abs(dense) >= 0.3) | np.eye(N, dtype=bool), dense, 0)
    found = command(f"eigs {folder / 'h.npz'} -k 4 --drop 0.3", folder, comm)
    assert found["eigenvalues"] == pytest.approx(scipy.linalg.eigvalsh(kept)[:4], abs=1e-7)
    off = np.abs(np.array(found["eigenvalues"]) - scipy.linalg.eigvalsh(dense)[:4]).max()
    assert off <= found["thinned"]["bound"] <= found["thinned"]["frobenius"]
    out = folder / "left.npz"
    problem = f"{folder / 'springs.py'}:springs"
    told = command(f"assemble {problem} -o {out} --keep 101", folder, comm)["thinned"]
    assert told["kept"] == 100 and read_matrix(out, comm).pattern.nnz == 100 and told["bound"] > 0
    found = command(f"eigs {problem} -k 3 --drop 0.7", folder, comm)
    assert found["thinned"]["dropped"] == 2 * 30 and found["thinned"]["bound"] == pytest.approx(0.5 / 2)
    assert found["eigenvalues"] == pytest.approx(scipy.linalg.eigvalsh(springs(0.0), 2 * np.eye(60))[:3], abs=1e-6)
    assert command(f"eigs {folder / 'h.npz'} -k 2", folder, comm)["thinned"] is None
    with pytest.raises(InputError, match="not allowed with"):
        command_line().parse(["eigs", "h.npz", "--drop", "1", "--keep", "3"])


def test_entries_know_their_diagonal(comm):
    pattern = sh.Pattern.from_scipy(laplacian(4, 5)[0], comm=comm)
    entries = Entries(pattern, np.ones(pattern.nnz_local))
    assert comm.allreduce(int(entries.diagonal.sum())) == 20
