"""Files of finite-element codes and of MATLAB: each as its manual describes it, on any number of ranks."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from sparsehess.errors import InputError
from sparsehess.storage import matrix_files
from support import DATA, code_files
from support.cases import frobenius_error

pytestmark = pytest.mark.parallel([1, 2, 3])

# Three nodes in space and one scalar point, numbered as users do.
LABELS = [(3, 1), (3, 2), (3, 6), (12, 1), (12, 2), (12, 6), (105, 1), (105, 3), (700, 0)]


def made(seed=1):
    """Return a symmetric matrix with zeros, of numbers of any size."""
    n, rng = len(LABELS), np.random.default_rng(seed)
    whole = rng.normal(size=(n, n)) * 10.0 ** rng.integers(-3, 6, (n, n)) * (rng.random((n, n)) < 0.5)
    whole = np.tril(whole)
    return whole + np.tril(whole, -1).T + np.diag(1e6 * (1 + rng.random(n)))


K = made()
M = np.diag(np.arange(1.0, len(LABELS) + 1))
M[2, 2] = M[5, 5] = 0.0  # lumped: rotations have no mass


def written(folder, comm, name, write):
    """Return the path of a file that rank 0 has written."""
    path = folder / name
    if comm.rank == 0:
        write(path)
    comm.Barrier()
    return path


def check(address, wanted, comm, tolerance=0.0, **options):
    """Read a matrix, compare it, and return it, freed."""
    stored = matrix_files.read_matrix(address, comm, **options)
    mat = stored.to_mat()
    assert frobenius_error(mat, sp.csr_matrix(wanted), comm) <= tolerance
    mat.destroy()
    stored.pattern.free()
    return stored


def labels_of(stored, comm):
    """Return (node, component) of all rows."""
    own = list(zip(stored.labels.nodes.tolist(), stored.labels.components.tolist(), strict=True))
    return [one for part in comm.allgather(own) for one in part]


# --- MATLAB ----------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_matlab_by_name(packed, folder, comm):
    held = {"K": sp.csc_matrix(K), "M": M, "scale": 3.0, "name": "frame"}
    path = written(folder, comm, "m.mat", lambda p: scipy.io.savemat(p, held, do_compression=packed))
    stored = check(f"{path}:K", K, comm)
    assert stored.origin.path.endswith("m.mat:K") and "MATLAB, K, sparse: 9 x 9" in stored.origin.said[0]
    assert "MATLAB, M, dense" in check(f"{path}:M", M, comm).origin.said[0]
    with pytest.raises(InputError, match=r"m.mat holds K, M: name one, as .*m.mat:K"):
        matrix_files.read_matrix(path, comm)
    with pytest.raises(InputError, match="no matrix Q in it; it holds K, M"):
        matrix_files.read_matrix(f"{path}:Q", comm)


def test_matlab_of_version_7_3(folder, comm):
    h5py = pytest.importorskip("h5py")

    def write(path):
        with h5py.File(path, "w", userblock_size=512) as file:
            for name, matrix in (("K", K), ("M", M)):
                columns = sp.csc_matrix(matrix)
                group = file.create_group(name)
                group.attrs["MATLAB_sparse"], group.attrs["MATLAB_class"] = np.uint64(len(matrix)), b"double"
                parts = {"data": columns.data, "ir": columns.indices, "jc": columns.indptr}
                for part, values in parts.items():
                    group.create_dataset(part, data=values.astype("u8") if part != "data" else values)
            file.create_dataset("dense", data=K).attrs["MATLAB_class"] = np.bytes_("double")
            file.create_dataset("text", data=np.arange(4)).attrs["MATLAB_class"] = np.bytes_("char")
        with open(path, "r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")

    path = written(folder, comm, "m.mat", write)
    assert "MATLAB 7.3, K, sparse" in check(f"{path}:K", K, comm).origin.said[0]
    check(f"{path}:M", M, comm)
    assert "MATLAB 7.3, dense, dense" in check(f"{path}:dense", K, comm).origin.said[0]


# --- CalculiX --------------------------------------------------------------------------


def test_calculix_with_and_without_dofs(folder, comm):
    labels = [(node, part) for node, part in LABELS[:8]]
    stiffness = K[:8, :8]
    path = written(folder, comm, "job.sti", lambda p: code_files.calculix(p, stiffness, labels))
    alone = written(folder, comm, "alone.sti", lambda p: code_files.calculix(p, stiffness))
    stored = check(path, stiffness, comm, 1e-13)
    assert labels_of(stored, comm) == labels
    told = "CalculiX, its upper triangle stored, and completed: 8 x 8, {} entries; 8 dofs of 3 nodes (x, y, z, rz)"
    assert stored.origin.said == (told.format(np.count_nonzero(stiffness)),)
    assert check(alone, stiffness, comm, 1e-13).labels is None
    written(folder, comm, "alone.dof", lambda p: p.write_text("1.1\n1.2\n"))
    with pytest.raises(InputError, match=r"8 rows, and alone.dof has 2 dofs: not of one run"):
        matrix_files.read_matrix(alone, comm)


def test_calculix_of_the_manual(folder, comm):
    source = DATA / "ccx_beam8f_K.npz"
    if not source.exists():
        pytest.skip("no data beside the project")
    whole = sp.load_npz(source)

    def write(path):
        upper = sp.triu(whole).tocsc().tocoo()
        lines = zip(upper.row + 1, upper.col + 1, upper.data, strict=True)
        path.write_text("".join(f"{i} {j} {value:20.13e}\n" for i, j, value in lines))

    stored = check(written(folder, comm, "beam8f.sti", write), whole, comm, 1e-13)
    assert stored.pattern.n == 1200


# --- Abaqus ----------------------------------------------------------------------------


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("separator", [",", ", ", "  "])
def test_abaqus_labels(half, separator, folder, comm):
    path = written(
        folder, comm, "job_STIF2.mtx", lambda p: code_files.abaqus_labels(p, K, LABELS, half, separator)
    )
    stored = check(path, K, comm, 1e-15)
    assert labels_of(stored, comm) == LABELS
    word = "its lower triangle stored, and completed" if half else "both triangles stored"
    assert f"Abaqus, labels of nodes, {word}: 9 x 9" in stored.origin.said[0]
    assert "9 dofs of 4 nodes (scalar, x, y, z, rz)" in stored.origin.said[0]


def test_internal_nodes_come_last_in_one_triangle(folder, comm):
    """Abaqus writes one triangle in its own order of rows, in which nodes with negative numbers are the last."""
    text = "1,1, 1,1, 4.\n3,1, 1,1, -1.\n3,1, 3,1, 5.\n-1,1, 1,1, -2.\n-1,1, -1,1, 9.\n"
    path = written(folder, comm, "job_STIF1.mtx", lambda p: p.write_text(text))
    stored = check(path, [[9.0, -2.0, 0.0], [-2.0, 4.0, -1.0], [0.0, -1.0, 5.0]], comm)
    assert labels_of(stored, comm) == [(-1, 1), (1, 1), (3, 1)]


def test_three_entries_of_abaqus_are_no_rows(folder, comm):
    path = written(folder, comm, "job_STIF1.mtx", lambda p: p.write_text("1 1 2.\n1 2 2.\n2 2 7.\n"))
    check(path, [[2.0, 2.0], [2.0, 7.0]], comm)


def test_a_mass_has_the_rows_of_the_stiffness(folder, comm):
    """Rows that a lumped mass has not are zero; in another order of nodes they are put in their places."""
    stiffness = matrix_files.read_matrix(
        written(folder, comm, "K.mtx", lambda p: code_files.abaqus_labels(p, K, LABELS)), comm
    )
    path = written(folder, comm, "M.mtx", lambda p: code_files.abaqus_labels(p, M, LABELS))
    assert check(path, M[np.ix_(*[np.delete(np.arange(9), [2, 5])] * 2)], comm).pattern.n == 7
    stored = check(path, M, comm, beside=stiffness)
    assert labels_of(stored, comm) == LABELS
    assert "2 dofs of that one not in this file, so zero: node 3 rz, node 12 rz" in stored.origin.said[-1]
    more = written(folder, comm, "N.mtx", lambda p: code_files.abaqus_labels(p, M, [*LABELS[:-1], (800, 2)]))
    with pytest.raises(InputError, match="1 dof that the first matrix has no row for: node 800 y"):
        matrix_files.read_matrix(more, comm, beside=stiffness)
    stiffness.pattern.free()


@pytest.mark.parametrize("half", [True, False])
def test_abaqus_coordinates(half, folder, comm):
    def write(path):
        code_files.triples(path, K, lambda i, j: not half or j <= i, form="{:d}   {:d}   {:.15e}\n")

    stored = check(written(folder, comm, "job_STIF1.mtx", write), K, comm, 1e-15)
    assert "Abaqus, row and column" in stored.origin.said[0] and stored.labels is None


def test_triples_of_a_mass_are_as_many_rows_as_the_stiffness_has(folder, comm):
    stiffness = matrix_files.read_matrix(written(folder, comm, "K.txt", lambda p: code_files.triples(p, K)), comm)
    short = np.diag([*np.arange(1.0, 8.0), 0.0, 0.0])
    path = written(folder, comm, "M.txt", lambda p: code_files.triples(p, short))
    stored = check(path, short, comm, beside=stiffness)
    assert "its last 2 rows have no entry" in stored.origin.said[-1]
    stiffness.pattern.free()


# --- OpenSees and plain numbers --------------------------------------------------------


def test_opensees(folder, comm):
    dense = written(folder, comm, "K.out", lambda p: np.savetxt(p, K, "%.16e"))
    assert "rows as lines: 9 x 9" in check(dense, K, comm).origin.said[0]
    for base in (0, 1):
        path = written(folder, comm, f"K{base}.txt", lambda p, base=base: code_files.triples(p, K, base=base))
        assert f"numbered from {base}" in check(path, K, comm, 1e-13).origin.said[0]


def test_a_line_of_sizes_is_no_entry(folder, comm):
    def write(path):
        code_files.triples(path, K)
        path.write_text(f"10 10 {np.count_nonzero(K)}\n" + path.read_text())

    whole = np.zeros((10, 10))
    whole[:9, :9] = K
    stored = check(written(folder, comm, "K.mtx", write), whole, comm, 1e-13)
    assert "its first line is taken for rows, columns and entries" in stored.origin.said


# --- Nastran ---------------------------------------------------------------------------


@pytest.mark.parametrize("long", [True, False])
@pytest.mark.parametrize("form", [6, 1])
def test_dmig_cards(long, form, folder, comm):
    path = written(
        folder, comm, "job.pch", lambda p: code_files.dmig(p, {"KAAX": K, "MAAX": M}, LABELS, long, form)
    )
    stored = check(f"{path}:KAAX", K, comm, 1e-8 if long else 1e-3)
    assert labels_of(stored, comm) == LABELS
    assert f"DMIG, KAAX, double precision, form {form}" in stored.origin.said[0]
    mass = check(f"{path}:maax", M, comm, beside=stored)
    assert labels_of(mass, comm) == LABELS and "node 3 rz, node 12 rz" in mass.origin.said[-1]
    with pytest.raises(InputError, match="holds KAAX, MAAX: name one"):
        matrix_files.read_matrix(path, comm)


def test_dmig_cards_as_they_are_written_by_hand(folder, comm):
    text = """\
GRID,5,,0.,0.,0.
DMIG,STIF,0,6,1,0
DMIG,STIF,5,1,,5,1,2.5+3
+,7,2,-1.5E-2,,9,0,4.
$ a comment ends a column
DMIG    STIF           7       2               7       2   3.0D0
DMIG    STIF           9       0               9       0   5.
TLOAD1  3
+       4
"""
    path = written(folder, comm, "hand.bdf", lambda p: p.write_text(text))
    wanted = [[2.5e3, -1.5e-2, 4.0], [-1.5e-2, 3.0, 0.0], [4.0, 0.0, 5.0]]
    assert labels_of(check(path, wanted, comm), comm) == [(5, 1), (7, 2), (9, 0)]


def test_comments_do_not_end_a_card(folder, comm):
    head = "DMIG    V              0       6       2       0\n"
    column = "DMIG*   V                              1               1\n"
    entry = "*                      1               1 4.0\n"
    path = written(folder, comm, "a.pch", lambda p: p.write_text(f"{head}{column}$ between\n{entry}"))
    check(path, [[4.0]], comm)
    for text, reason in (
        (head + column + entry + head + column + entry, "V has several headers"),
        (head + column + entry + column + entry[:25], "grid 1 has a row without a component"),
        (head + column + entry + column + "*  \n", "of grid 0: a blank field"),
    ):
        path = written(folder, comm, "b.pch", lambda p, text=text: p.write_text(text))
        with pytest.raises(InputError, match=reason):
            matrix_files.read_matrix(path, comm)


def test_a_matrix_that_stands_twice_in_a_file_is_refused(folder, comm):
    def write(path):
        code_files.op4_text(path, {"KGG": (K, 6)}, False, False)
        path.write_text(2 * path.read_text())

    with pytest.raises(InputError, match="KGG stands there several times"):
        matrix_files.read_matrix(written(folder, comm, "t.op4", write), comm)


def test_integers_of_sixteen_characters_are_refused_by_what_they_are(folder, comm):
    def write(path):
        head = f"{3:16d}{3:16d}{6:16d}{2:16d}{'KGG':<8}1P,3E23.16|I16\n"
        path.write_text(head + f"{1:16d}{1:16d}{1:16d}\n{1.0:23.16E}\n")

    with pytest.raises(InputError, match="line 1: integers of 16 characters, which are not read: have OUTPUT4"):
        matrix_files.read_matrix(written(folder, comm, "wide.op4", write), comm)


def test_dmig_cards_that_are_none(folder, comm):
    def read(text):
        return matrix_files.read_matrix(written(folder, comm, "a.pch", lambda p: p.write_text(text)), comm)

    column = (
        "DMIG*   V                              1               1\n*                      1               1 1.0\n"
    )
    with pytest.raises(InputError, match="V is rectangular"):
        read(f"DMIG    V              0       9       2       0\n{column}")
    with pytest.raises(InputError, match="V is complex"):
        read(f"DMIG    V              0       6       4       0\n{column}")
    with pytest.raises(InputError, match="a field that is no number"):
        read(f"DMIG    V              0       6       2       0\n{column.replace(' 1.0', ' 1.q')}")
    with pytest.raises(InputError, match="no matrix in it on DMIG cards"):
        read("GRID,1\n")


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("big", [False, True])
def test_op4(sparse, big, folder, comm):
    held = {"KGG": (K, 6), "MGG": (M, 6), "PG": (K[:, :2], 2)}
    text = written(folder, comm, "t.op4", lambda p: code_files.op4_text(p, held, sparse, big))
    assert f"OP4, text {'sparse' if sparse else 'dense'}" in check(f"{text}:KGG", K, comm, 1e-15).origin.said[0]
    check(f"{text}:MGG", M, comm)
    for order in "<>":
        path = written(
            folder, comm, f"b{ord(order)}.op4",
            lambda p, order=order: code_files.op4_binary(p, held, sparse, big, order),
        )  # fmt: skip
        stored = check(f"{path}:KGG", K, comm)
        assert "real double, KGG, form 6, both triangles stored: 9 x 9" in stored.origin.said[0]
        check(f"{path}:MGG", M, comm)
        with pytest.raises(InputError, match="a Hessian is square; this matrix is 9 x 2"):
            matrix_files.read_matrix(f"{path}:PG", comm)
    single = written(
        folder, comm, "s.op4", lambda p: code_files.op4_binary(p, {"K": (K, 6)}, sparse, big, double=False)
    )
    assert check(single, K.astype(np.float32).astype(float), comm).origin.rounding.digits == 7


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("head", [False, True])
def test_op2(wide, order, head, folder, comm):
    held = {"KGG": (K, 6), "MGG": (np.tril(M), 6)}
    path = written(folder, comm, "m.op2", lambda p: code_files.op2(p, held, wide, order, head))
    assert "Nastran OP2" in check(f"{path}:KGG", K, comm).origin.said[0]
    check(f"{path}:MGG", M, comm)
    with pytest.raises(InputError, match="holds KGG, MGG: name one"):
        matrix_files.read_matrix(path, comm)


# --- what is damaged -------------------------------------------------------------------

WRITTEN = {
    "a.mtx": lambda p: code_files.abaqus_labels(p, K, LABELS),
    "a.sti": lambda p: code_files.calculix(p, K),
    "a.txt": lambda p: np.savetxt(p, K),
    "a.pch": lambda p: code_files.dmig(p, {"K": K}, LABELS),
    "t.op4": lambda p: code_files.op4_text(p, {"K": (K, 6)}, sparse=True),
    "b.op4": lambda p: code_files.op4_binary(p, {"K": (K, 6)}, sparse=True),
    "d.op4": lambda p: code_files.op4_binary(p, {"K": (K, 6)}),
    "a.op2": lambda p: code_files.op2(p, {"K": (K, 6)}),
    "a.mat": lambda p: scipy.io.savemat(p, {"K": sp.csc_matrix(K)}),
    "p.mat": lambda p: scipy.io.savemat(p, {"K": sp.csc_matrix(K)}, do_compression=True),
    "d.mat": lambda p: scipy.io.savemat(p, {"K": K}),
}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parallel([1])
def test_damaged_files_are_refused_or_read(name, folder, comm):
    """Whatever is cut off or overwritten: a matrix, or one line that says what is wrong."""
    path = written(folder, comm, name, WRITTEN[name])
    whole = path.read_bytes()
    rng = np.random.default_rng(7)
    refused = 0
    for trial in range(30):
        data = bytearray(whole)
        if trial < 10:
            data = data[: int(rng.integers(0, len(data)))]
        else:
            for at in rng.integers(0, len(data), 1 + trial % 4):
                data[at] = rng.integers(0, 256)
        path.write_bytes(bytes(data))
        try:
            matrix_files.read_matrix(path, comm, one_triangle=True).pattern.free()
        except InputError as error:
            refused += 1
            assert str(path) in str(error) or "no such file" in str(error)
    assert refused > 5


@pytest.mark.parallel([1])
def test_a_file_that_claims_too_much_takes_no_memory(folder, comm):
    path = written(folder, comm, "far.txt", lambda p: p.write_text("1 1 2.0\n2000000000 2000000000 1.0\n"))
    with pytest.raises(InputError, match="a row or column 2000000000 is outside 1 to"):
        matrix_files.read_matrix(path, comm)
    head = np.array([24, 2**30, 2**30, 6, 2], "<i4").tobytes() + b"K       " + np.array([24], "<i4").tobytes()
    last = np.array([20, 2**30 + 1, 1, 1, 0, 0, 20], "<i4").tobytes()
    path = written(folder, comm, "far.op4", lambda p: p.write_bytes(head + last))
    with pytest.raises(InputError, match=r"far.op4"):
        matrix_files.read_matrix(path, comm)
