"""Matrix files: every format there and back on any number of ranks, and what must be refused."""

import gzip
import os
import shutil
import subprocess
import warnings

from mpi4py import MPI

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc
from sparsehess.storage import array_files, atomic_files, matrix_files, writers
from sparsehess.storage.hdf5 import open_hdf5
from support import DATA
from support.cases import frobenius_error, laplacian, random_pattern, random_symmetric

pytestmark = pytest.mark.parallel([1, 2, 3])

MATRIX = random_symmetric(random_pattern(60, 150, 4), 4)


@pytest.mark.parametrize("suffix", [".mtx", ".mtx.gz", ".npz", ".petsc", ".h5"])
def test_there_and_back(suffix, folder, comm):
    path = folder / f"matrix{suffix}"
    with EigenProblem.of(MATRIX, comm=comm) as problem:
        writers.write_matrix(folder / "matrix.mtx" if suffix == ".mtx.gz" else path, problem.A)
    if suffix == ".mtx.gz" and comm.rank == 0:
        with open(folder / "matrix.mtx", "rb") as plain, gzip.open(path, "wb") as packed:
            shutil.copyfileobj(plain, packed)
    comm.Barrier()
    stored = matrix_files.read_matrix(path, comm)
    assert stored.origin.asymmetry == 0.0
    matrix = stored.to_mat()
    assert frobenius_error(matrix, MATRIX, comm) < 1e-15
    matrix.destroy()
    assert matrix_files.read_pattern(path, comm).nnz == MATRIX.nnz


@pytest.mark.parametrize("name", ["m.mtx", "m.npz", "m.petsc", "m.h5"])
def test_an_unwritable_matrix_is_refused_on_all_ranks(name, folder, comm):
    with EigenProblem.of(MATRIX, comm=comm) as problem:
        with pytest.raises(InputError, match=f"{name}: there is no folder .*nowhere"):
            writers.write_matrix(folder / "nowhere" / name, problem.A)
        writers.write_matrix(folder / name, problem.A)
    comm.Barrier()
    assert [path.name for path in folder.iterdir()] == [name]


def contents(folder, comm):
    """Return the names in a folder when all ranks are here, before any goes on."""
    comm.Barrier()
    names = {one.name for one in folder.iterdir()}
    comm.Barrier()
    return names


def test_unfinished_files_are_removed(folder, comm, monkeypatch):
    path, facts = folder / "result.h5", {"k": 2}
    left, mine = atomic_files.make_unfinished_name(path), atomic_files.make_unfinished_name(path)
    if comm.rank == 0:
        with subprocess.Popen(["true"]) as ended:
            pass
        left = left.with_name(left.name.replace(f".{os.getpid()}-", f".{ended.pid}-"))
        for one in (left, mine):
            one.write_text("half")
    comm.Barrier()
    vectors = [PETSc.Vec().createMPI(6, comm=comm) for _ in range(2)]
    write = writers.write_in_pieces

    def breaks(vector, comm, target):
        if vector is vectors[1]:
            raise MemoryError
        write(vector, comm, target)

    monkeypatch.setattr(writers, "write_in_pieces", breaks)
    with pytest.raises(MemoryError):
        writers.write_results(path, facts, {}, vectors, comm)
    assert contents(folder, comm) == comm.bcast({mine.name})
    monkeypatch.undo()
    writers.write_results(path, facts, {}, vectors, comm)
    assert contents(folder, comm) == comm.bcast({mine.name, path.name})
    with pytest.raises(InputError, match="there is no folder"):
        writers.write_results(folder / "no" / "x.h5", facts, {}, vectors, comm)
    for vector in vectors:
        vector.destroy()


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia"])
def test_scipys_formats(form, folder, comm):
    matrix = laplacian(6, 6)[0].asformat(form)
    if comm.rank == 0:
        sp.save_npz(folder / "m.npz", matrix)
    comm.Barrier()
    mat = matrix_files.read_matrix(folder / "m.npz", comm).to_mat()
    assert frobenius_error(mat, matrix, comm) == 0
    mat.destroy()


def test_a_nearly_symmetric_dense_array_is_symmetrised(comm):
    path = DATA / "ase_cu147_fdhessian_raw.npz"
    if not path.exists():
        pytest.skip("no data beside the project")
    raw = np.load(path)["H"]
    stored = matrix_files.read_matrix(path, comm)
    share = np.abs(raw - raw.T).max() / np.median(np.abs(raw).max(axis=1))
    assert 0.5 * share <= stored.origin.asymmetry <= 2 * share and 1e-10 < share < 2e-8
    mat = stored.to_mat()
    assert frobenius_error(mat, sp.csr_matrix((raw + raw.T) / 2), comm) < 1e-15
    mat.destroy()


def test_symmetric_and_pattern_headers(folder, comm):
    if comm.rank == 0:
        (folder / "s.mtx").write_text(
            "%%MatrixMarket matrix coordinate real symmetric\n% note\n\n2 2 2\n1 1 4\n2 1 3\n"
        )
        (folder / "p.mtx").write_text("%%MatrixMarket matrix coordinate pattern general\n3 3 2\n1 2\n3 3\n")
    comm.Barrier()
    assert matrix_files.read_matrix(folder / "s.mtx", comm).pattern.nnz == 4  # the missing diagonal is stored
    assert matrix_files.read_pattern(folder / "p.mtx", comm).nnz == 5


def read_whole(path, comm, **how):
    """Return (the whole matrix of a file, an array, and its origin), the same on every rank."""
    stored = matrix_files.read_matrix(path, comm, **how)
    rows = stored.pattern.to_scipy().astype(stored.values.dtype)
    rows.data = stored.values
    whole = np.concatenate(comm.allgather(rows.toarray()))
    stored.pattern.free()
    return whole, stored.origin


def write_petsc(path, matrix, index=">i4", number=">f8"):
    """Write a matrix in PETSc's format, as a build with these indices and numbers does."""
    matrix = sp.csr_matrix(matrix)
    head = np.array([1211216, *matrix.shape, matrix.nnz], index)
    parts = (head, np.diff(matrix.indptr).astype(index), matrix.indices.astype(index), matrix.data.astype(number))
    path.write_bytes(b"".join(part.tobytes() for part in parts))


HALF = sp.csr_matrix(sp.triu(MATRIX) + sp.diags(np.arange(60) % 2.0))


@pytest.mark.parametrize("suffix", [".mtx", "array.mtx", ".npz", ".npy", ".petsc", ".h5"])
@pytest.mark.parametrize("triangle", ["upper", "lower"])
def test_one_triangle_is_named_and_completed_where_that_is_asked_for(suffix, triangle, folder, comm):
    path = folder / f"half{suffix}"
    half = HALF if triangle == "upper" else HALF.T.tocsr()
    if comm.rank == 0:
        if suffix.endswith(".mtx"):
            scipy.io.mmwrite(path, half.toarray() if "array" in suffix else half, symmetry="general", precision=17)
        elif suffix == ".npz":
            sp.save_npz(path, half)
        elif suffix == ".npy":
            np.save(path, half.toarray())
        elif suffix == ".petsc":
            write_petsc(path, half)
        else:
            with pytest.importorskip("h5py").File(path, "w") as file:
                for name in ("indptr", "indices", "data", "shape"):
                    file[name] = getattr(half, name)
    comm.Barrier()
    with pytest.raises(InputError, match=f"only the {triangle} triangle is stored, which --one-triangle"):
        matrix_files.read_matrix(path, comm)
    whole, origin = read_whole(path, comm, one_triangle=True)
    assert np.array_equal(whole, (HALF + sp.triu(HALF, 1).T).toarray())
    assert len(origin.said) == 1 and f"its {triangle} triangle alone" in origin.said[0] and not origin.asymmetry


def test_what_is_whole_stays_as_it_is_where_one_triangle_is_allowed(folder, comm):
    unlike = sp.csr_matrix([[1.0, 2.0], [3.0, 4.0]])
    if comm.rank == 0:
        sp.save_npz(folder / "whole.npz", MATRIX)
        sp.save_npz(folder / "diagonal.npz", sp.identity(7, format="csr"))
        sp.save_npz(folder / "unlike.npz", unlike)
        scipy.io.mmwrite(folder / "head.mtx", MATRIX, symmetry="symmetric")
    comm.Barrier()
    for name, exact in (("whole.npz", MATRIX), ("diagonal.npz", sp.identity(7)), ("head.mtx", MATRIX)):
        whole, origin = read_whole(folder / name, comm, one_triangle=True)
        assert np.allclose(whole, exact.toarray(), rtol=1e-15, atol=0) and not origin.said
    with pytest.raises(InputError, match="not symmetric: entry"):
        matrix_files.read_matrix(folder / "unlike.npz", comm, one_triangle=True)


@pytest.mark.parametrize(
    "suffix", ["symmetric.mtx", "hermitian.mtx", "general.mtx", "array.mtx", ".npz", ".npy", ".petsc"]
)
@pytest.mark.parametrize("imaginary", [0.0, 1e-30])
def test_complex_numbers_without_imaginary_part_are_read_as_real(suffix, imaginary, folder, comm):
    path, given = folder / f"complex{suffix}", sp.csr_matrix(MATRIX, dtype=complex)
    given[3, 3] += 1j * imaginary
    if comm.rank == 0:
        if suffix == "array.mtx":
            scipy.io.mmwrite(path, given.toarray(), symmetry="general")
        elif suffix.endswith(".mtx"):
            scipy.io.mmwrite(path, given if suffix[0] == "g" else sp.tril(given), symmetry="general")
            path.write_bytes(path.read_bytes().replace(b"general", suffix.removesuffix(".mtx").encode()))
        elif suffix == ".npz":
            sp.save_npz(path, given)
        elif suffix == ".npy":
            np.save(path, given.toarray())
        else:
            write_petsc(path, given, number=">c16")
    comm.Barrier()
    if imaginary:
        with pytest.raises(InputError, match="complex"):
            matrix_files.read_matrix(path, comm)
        return
    whole, origin = read_whole(path, comm)
    assert np.allclose(whole, MATRIX.toarray(), rtol=1e-15, atol=0) and "read as real" in origin.said[0]


@pytest.mark.parametrize("index", [">i4", ">i8"])
@pytest.mark.parametrize("number", [">f8", ">f4", ">c16"])
def test_binary_files_of_other_builds_of_petsc_are_read(index, number, folder, comm):
    if comm.rank == 0:
        write_petsc(folder / "m.petsc", MATRIX, index, number)
    comm.Barrier()
    whole, origin = read_whole(folder / "m.petsc", comm)
    exact = MATRIX.toarray()
    assert np.array_equal(whole, exact.astype(np.float32) if number == ">f4" else exact)
    assert origin.rounding.digits == (7 if number == ">f4" else None)


def test_a_digest_stands_for_all_entries_on_any_number_of_ranks(folder, comm):
    if comm.rank == 0:
        write_petsc(folder / "m.petsc", MATRIX)
        sp.save_npz(folder / "m.npz", MATRIX)
        scipy.io.mmwrite(folder / "m.mtx", MATRIX, symmetry="symmetric", precision=17)
        other = MATRIX.copy()
        other.data[0] *= 1 + 2.3e-16
        sp.save_npz(folder / "other.npz", other)
        moved = MATRIX.tocoo()
        sp.save_npz(folder / "moved.npz", sp.coo_matrix((moved.data, (59 - moved.row, 59 - moved.col))).tocsr())
    comm.Barrier()
    known = [read_whole(folder / name, comm)[1].digest for name in ("m.petsc", "m.npz", "m.mtx")]
    assert known[0] == known[1] == known[2] == read_whole(folder / "m.npz", MPI.COMM_SELF)[1].digest
    assert (
        len({known[0], *(read_whole(folder / f"{name}.npz", comm)[1].digest for name in ("other", "moved"))}) == 3
    )


def test_the_least_and_the_largest_numbers_are_read_as_they_are(folder, comm):
    exact = np.diag([1e300, 1.7e308, 5e-324, 1e-310]) + 2e300 * np.eye(4)[::-1]
    if comm.rank == 0:
        np.savez(folder / "m.npz", exact)
        scipy.io.mmwrite(folder / "m.mtx", sp.coo_matrix(exact), symmetry="symmetric", precision=17)
    comm.Barrier()
    for name in ("m.npz", "m.mtx"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(read_whole(folder / name, comm)[0], exact)


def test_a_penalty_hides_no_asymmetry(folder, comm):
    """Nor does it one triangle; errors of one size everywhere are taken, also where nothing else is."""
    held, noisy, half = MATRIX.tolil(), MATRIX.tolil(), sp.triu(MATRIX).tolil()
    i, j = next((i, j) for i, j in zip(*MATRIX.nonzero(), strict=True) if i > j)
    held[9, 9] = half[9, 9] = 1e30
    held[i, j] *= 1.001
    noisy[7, :], noisy[:, 7] = 0.0, 0.0
    noisy[7, 7], noisy[7, 8], noisy[8, 7] = 3e-10, 2e-10, -1e-10
    if comm.rank == 0:
        for name, matrix in (("held", held), ("noisy", noisy), ("half", half)):
            sp.save_npz(folder / f"{name}.npz", matrix.tocsr())
    comm.Barrier()
    with pytest.raises(InputError, match=rf"not symmetric: entry \(({i}, {j}|{j}, {i})\)"):
        matrix_files.read_matrix(folder / "held.npz", comm)
    with pytest.raises(InputError, match="only the upper triangle is stored"):
        matrix_files.read_matrix(folder / "half.npz", comm)
    whole, origin = read_whole(folder / "noisy.npz", comm)
    assert whole[7, 8] == whole[8, 7] == 5e-11 and 0 < origin.asymmetry < 1e-9


@pytest.mark.parametrize("suffix", [".mtx", ".npz", ".npy", ".petsc"])
def test_a_matrix_of_zeros(suffix, folder, comm):
    path, zeros = folder / f"zeros{suffix}", sp.csr_matrix((5, 5))
    if comm.rank == 0:
        if suffix == ".mtx":
            path.write_text("%%MatrixMarket matrix coordinate real symmetric\n5 5 0\n")
        elif suffix == ".petsc":
            write_petsc(path, zeros)
        else:
            np.save(path, zeros.toarray()) if suffix == ".npy" else sp.save_npz(path, zeros)
    comm.Barrier()
    whole, origin = read_whole(path, comm, one_triangle=True)
    assert whole.shape == (5, 5) and not whole.any() and not origin.said and origin.asymmetry == 0.0


def damaged(folder):
    """Return {name: (write, what the message says)} of files that must be refused."""
    good = folder / "good.npz"
    sp.save_npz(good, MATRIX)
    scipy.io.mmwrite(folder / "good.mtx", MATRIX, symmetry="symmetric")
    text = (folder / "good.mtx").read_bytes()
    head = np.array([1211216, 5, 5, 5], ">i4").tobytes()
    body = np.ones(5, ">i4").tobytes() + np.arange(5, dtype=">i4").tobytes() + np.ones(5, ">f8").tobytes()
    coordinate = "%%MatrixMarket matrix coordinate real"
    one = sp.csr_matrix(np.diag([1.0, np.inf]))
    lying = {**{key: np.load(good)[key] for key in np.load(good)}, "shape": np.array([10**12, 10**12])}
    below = {key: np.load(good)[key].copy() for key in np.load(good)}
    below["indptr"][-1] = np.iinfo(below["indptr"].dtype).min
    h5 = folder / "good.h5"

    def below_in_h5(path):
        import h5py

        with h5py.File(path, "w") as file:
            for name in ("shape", "indptr", "indices", "data"):
                file[name] = below[name]

    def lie_in_h5(path):
        import h5py

        with h5py.File(path, "w") as file:
            file["shape"], file["indptr"] = np.array([5, 5]), np.arange(6)
            file.create_dataset("data", (10**11,), "f8", chunks=True)
            file.create_dataset("indices", (10**11,), "i4", chunks=True)

    return {
        "no.npz": (None, "no such file"),
        "no.petsc": (None, "no such file"),
        "odd.doc": (lambda p: p.write_text("x"), "not a matrix file"),
        "atoms.xyz": (lambda p: p.write_text("1"), "atoms need forces"),
        "problem.py": (lambda p: p.write_text(""), "problem.py:NAME"),
        "modes.npz": (lambda p: np.savez(p, eigenvalues=np.ones(2), vectors=np.eye(2)), "eigenpairs, .* check"),
        "half.npz": (lambda p: p.write_bytes(good.read_bytes()[:700]), "damaged"),
        "lie.npz": (lambda p: np.savez(p, **lying), "claims"),
        "below.npz": (lambda p: np.savez(p, **below), "fewer than no entries"),
        "object.npz": (lambda p: np.savez(p, a=np.array([[{}]], object)), "never loaded"),
        "many.npz": (lambda p: np.savez(p, a=np.eye(2), b=np.eye(2)), "neither"),
        "wide.npz": (lambda p: sp.save_npz(p, sp.csr_matrix(np.ones((2, 3)))), "2 x 3"),
        "complex.npz": (lambda p: sp.save_npz(p, sp.csr_matrix([[1, 1e-300j], [-1e-300j, 1]])), "real"),
        "inf.npz": (lambda p: sp.save_npz(p, one), r"entry \(1, 1\) is inf"),
        "skew.npz": (
            lambda p: sp.save_npz(p, sp.csr_matrix([[1.0, 2.0], [3.0, 4.0]])),
            r"\(0, 1\) is 2, entry \(1, 0\)",
        ),
        "empty.npz": (lambda p: sp.save_npz(p, sp.csr_matrix((0, 0))), "no rows"),
        "no.mtx": (lambda p: p.write_text("hello"), "banner"),
        "lie.mtx": (lambda p: p.write_text(f"{coordinate} general\n9 9 99999999999\n1 1 1\n"), "claims"),
        "tall.mtx": (lambda p: p.write_text(f"{coordinate} general\n999999999 999999999 1\n1 1 1\n"), "claims"),
        "half.mtx": (lambda p: p.write_bytes(text[: len(text) // 2]), "damaged"),
        "sizes.mtx": (lambda p: p.write_text(f"{coordinate} general\n"), "sizes"),
        "skew.mtx": (lambda p: p.write_text(f"{coordinate} skew-symmetric\n2 2 1\n2 1 3\n"), "skew"),
        "half.mtx.gz": (lambda p: p.write_bytes(gzip.compress(text)[:60]), "damaged"),
        "lie.h5": (lie_in_h5, "claims"),
        "below.h5": (below_in_h5, "fewer than no entries"),
        "half.h5": (lambda p: p.write_bytes(h5.read_bytes()[:300]), "damaged"),
        "other.petsc": (lambda p: p.write_bytes(b"\0" * 64), "not a PETSc binary"),
        "vector.petsc": (
            lambda p: p.write_bytes(np.array([1211214, 5], ">i4").tobytes() + body[-40:]),
            "not a PETSc binary matrix: it holds a vector",
        ),
        "little.petsc": (lambda p: p.write_bytes(np.array([1211216, 5, 5, 5], "<i4").tobytes()), "little-endian"),
        "half.npy": (lambda p: (np.save(p, np.eye(9)), os.truncate(p, 500)), "damaged"),
        "box.npy": (lambda p: np.save(p, np.ones((2, 2, 2))), "two dimensions, a diagonal one"),
        "object.npy": (lambda p: np.save(p, np.array([[{}]], object)), "Python objects"),
        "half.petsc": (lambda p: p.write_bytes(head + body[:-9]), "truncated"),
        "rows.petsc": (
            lambda p: p.write_bytes(head + np.array([9, 1, 1, 1, 1], ">i4").tobytes() + body[20:]),
            "rows have",
        ),
        "column.petsc": (
            lambda p: p.write_bytes(head + body[:20] + np.full(5, 7, ">i4").tobytes() + body[40:]),
            "column",
        ),
    }


def test_damaged_files_are_refused(folder, comm):
    table = None
    with EigenProblem.of(MATRIX, comm=comm) as problem:
        writers.write_matrix(folder / "good.h5", problem.A)
    if comm.rank == 0:
        table = {}
        for name, (write, says) in damaged(folder).items():
            if write is not None:
                write(folder / name)
            table[name] = says
    for name, says in comm.bcast(table).items():
        with pytest.raises(InputError, match=says):
            matrix_files.read_matrix(folder / name, comm)


@pytest.mark.parametrize("shape", [(2, 60), (60, 2)])
def test_vectors(shape, folder, comm):
    array = np.random.default_rng(0).normal(size=shape)
    if comm.rank == 0:
        np.save(folder / "v.npy", array)
        np.savez(folder / "v.npz", vectors=array, other=np.zeros((3, 3)))
    comm.Barrier()
    layout = Layout.from_size(60, comm)
    wanted = (array if shape[1] == 60 else array.T)[:, layout.start : layout.stop]
    assert np.array_equal(array_files.read_vectors(folder / "v.npy", layout), wanted)
    assert np.array_equal(array_files.read_vectors(folder / "v.npz", layout), wanted)
    with pytest.raises(InputError, match="do not fit 61"):
        array_files.read_vectors(folder / "v.npy", Layout.from_size(61, comm))


@pytest.mark.parametrize("how", ["storage", "virtual", "detour"])
def test_a_file_that_leads_to_another_is_not_followed(how, folder, comm):
    h5py = pytest.importorskip("h5py")
    if comm.rank == 0:
        with h5py.File(folder / "secret.h5", "w") as file:
            file["vectors"] = np.ones((2, 8))
        with h5py.File(folder / "v.h5", "w") as file:
            if how == "storage":
                place = [(str(folder / "secret.h5"), 0, 128)]
                file.create_dataset("vectors", (2, 8), np.float64, external=place)
            if how == "virtual":
                layout = h5py.VirtualLayout((2, 8), np.float64)
                layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "vectors", (2, 8))
                file.create_virtual_dataset("vectors", layout)
            if how == "detour":
                file["there"] = h5py.ExternalLink("secret.h5", "/")
                file["vectors"] = h5py.SoftLink("/there/vectors")
    comm.Barrier()
    with pytest.raises(InputError, match="leads to another file"):
        array_files.read_vectors(folder / "v.h5", Layout.from_size(8, comm))


@pytest.mark.parallel([1])
def test_hdf5_without_a_lock_is_not_called_damaged(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "held.h5", "w") as file:
        file["a"] = 1.0
        with pytest.raises(InputError, match=r"gives HDF5 no lock.* HDF5_USE_FILE_LOCKING=FALSE"):
            open_hdf5(tmp_path / "held.h5")
    open_hdf5(tmp_path / "held.h5").close()


def test_numbers_in_a_row_are_a_diagonal(folder, comm):
    if comm.rank == 0:
        np.save(folder / "lumped.npy", np.arange(1.0, 10.0))
    comm.Barrier()
    stored = matrix_files.read_matrix(folder / "lumped.npy", comm)
    layout = stored.pattern.layout
    assert layout.n == 9 and np.array_equal(stored.values, np.arange(layout.start + 1.0, layout.stop + 1.0))
    assert np.array_equal(stored.pattern.indices, np.arange(layout.start, layout.stop))
