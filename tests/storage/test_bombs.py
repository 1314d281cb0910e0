"""Files that unfold to gigabytes end with one line before they are in memory; what fits is read."""

import gzip
import os
import resource
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from sparsehess.runtime import memory
from sparsehess.storage import matrix_formats
from support import bombs
from support.spectra import thorough

h5py = pytest.importorskip("h5py")

# What a process may take here, and more than what Python, MPI and PETSc take by themselves.
LIMIT, BESIDE = 2**30, 400 * 2**20

# Blocks of a megabyte that a bomb unfolds to.
MANY = 2048


# Limits what a process may take, and becomes another program.
LIMITED = """
import os, resource, sys
resource.setrlimit(getattr(resource, sys.argv[1]), (int(sys.argv[2]),) * 2)
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


def limited(limit, *words, kind="RLIMIT_DATA"):
    """Return the words of Python with a limit."""
    return [sys.executable, "-c", LIMITED, kind, str(limit), *map(str, words)]


MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


def run(*words, limit=LIMIT):
    """Return (status, what was said, peak resident bytes) of a command."""
    # Below a small process: what a process had before it became the command counts as the command's.
    done = subprocess.run(
        [sys.executable, "-S", "-c", MEASURED, *limited(limit, "-m", "sparsehess", *words)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr, 1024 * int(done.stdout)


def sparse(**parts):
    n = parts.pop("n", 16384)
    return {
        "format.npy": bombs.member(np.array(b"csr")),
        "shape.npy": bombs.member(np.array([n, n])),
        "indptr.npy": bombs.member(np.arange(n + 1) * (parts.pop("total") // n)),
        **{f"{name}.npy": value for name, value in parts.items()},
    }


def write_h5(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, (shape, more) in datasets.items():
            file.create_dataset(name, shape, **more)
        file["shape"] = np.array([2**20, 2**20])


def nested_list(path):
    """Write an archive that claims a list of a million members."""
    one = bombs.member(np.zeros(1))
    bombs.write_zip(path, {f"{number:06}.npy": one for number in range(50_000)})


def huge_head(path):
    """Write an archive of an array whose head is a gigabyte of spaces."""
    packed = bombs.deflated(b"\x93NUMPY\2\0" + (2**30).to_bytes(4, "little"), b" ", 1024)
    bombs.write_zip(path, {"a.npy": packed})


def shortened(path):
    """Write an archive whose list tells less than what a member unfolds to."""
    packed, check, _ = bombs.zeros(MANY, shape=(16384, 16384))
    bombs.write_zip(path, {"a.npy": (packed, check, 16384**2 * 8 // 2)})


def write_npz(**members):
    return lambda path: bombs.write_zip(path, {f"{name}.npy": member for name, member in members.items()})


def write_text(text):
    return lambda path: path.write_bytes(text)


def squeezed(path):
    """Write an archive that is compressed by another rule, which shrinks more and is read whole."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.npy", bombs.head_of_array((1, 2**20)) + bytes(2**23))


BANNER = b"%%MatrixMarket matrix coordinate real general\n"
EMPTY = {"chunks": (2**16,), "dtype": "f8"}

# Name: how it is written, and what is said.
REFUSED = {
    "dense.npz": (write_npz(a=bombs.zeros(MANY, shape=(16384, 16384))), "GiB of memory"),
    "objects.npz": (write_npz(a=bombs.deflated(bombs.head_of_array((9, 9), "|O"), b"\0", 1)), "Python objects"),
    "negative.npz": (write_npz(a=bombs.zeros(1, shape=(-1, 8))), "damaged"),
    "overflow.npz": (write_npz(a=bombs.zeros(1, shape=(2**33, 2**33))), "damaged"),
    "beyond.npz": (write_npz(a=bombs.zeros(1, shape=(2**63, 2**63))), "damaged"),
    "wide.npz": (write_npz(a=bombs.zeros(1, "|V1073741824", (1, 1))), "damaged"),
    "members.npz": (nested_list, "members"),
    "head.npz": (huge_head, "head claims"),
    "shortened.npz": (shortened, "damaged"),
    "squeezed.npz": (squeezed, "compressed as NumPy does not"),
    "csr.npz": (
        lambda path: bombs.write_zip(
            path, sparse(data=bombs.zeros(MANY), indices=bombs.zeros(MANY // 2, "<i4"), total=2**28)
        ),
        "GiB of memory",
    ),
    "rows.npz": (
        lambda path: bombs.write_zip(
            path, sparse(n=8, data=bombs.zeros(512), indices=bombs.zeros(256, "<i4"), total=2**26)
        ),
        "damaged",
    ),
    "short.npy": (write_text(bombs.head_of_array((2**20, 2**20)) + bytes(64)), "damaged"),
    "beyond.npy": (write_text(bombs.head_of_array((2**62, 2**62)) + bytes(64)), "damaged"),
    "negative.npy": (write_text(bombs.head_of_array((-4, 8)) + bytes(64)), "damaged"),
    "line.mtx.gz": (
        lambda path: bombs.write_gz(path, BANNER + b"9 9 9\n1 1 1\n1 1 1", b"1", MANY),
        "line of more than",
    ),
    "first.mtx.gz": (lambda path: bombs.write_gz(path, b"", b"%", MANY), "banner"),
    "comment.mtx.gz": (
        lambda path: bombs.write_gz(path, BANNER + b"9 9 9\n1 1 1\n", b"%", MANY),
        "line of more than|truncated|damaged",
    ),
    "lines.mtx.gz": (
        lambda path: bombs.write_gz(path, BANNER + b"9 9 9\n", b"1 1 1.25\n", MANY, size=100),
        "far more lines|damaged",
    ),
    "blank.mtx.gz": (
        lambda path: bombs.write_gz(path, BANNER + b"9 9 9\n1 1 1\n", b"\n", MANY),
        "far more lines|damaged",
    ),
    "entries.mtx.gz": (
        lambda path: bombs.write_gz(
            path, BANNER + b"99999 99999 134217728\n", b"1 1 1.25\n"[:8] + b"\n\n\n\n\n\n\n\n", MANY
        ),
        "GiB of memory",
    ),
    "places.mtx.gz": (
        lambda path: bombs.write_gz(path, BANNER + b"2000 2000 9000000\n", b"1 1 1.25\n", 100),
        "more than there are places",
    ),
    "dense.mtx.gz": (
        lambda path: bombs.write_gz(path, BANNER.replace(b"coordinate", b"array") + b"30000 30000\n", b"0\n", 1),
        "damaged|GiB of memory",
    ),
    "empty.h5": (
        lambda path: write_h5(
            path, data=((2**40,), EMPTY), indices=((2**40,), EMPTY), indptr=((2**20 + 1,), EMPTY)
        ),
        "holds at most",
    ),
    "overflow.h5": (
        lambda path: write_h5(
            path,
            data=((2**40, 2**40), {"chunks": (2**8, 2**8), "dtype": "f8"}),
            indices=((4,), EMPTY | {"chunks": (4,)}),
            indptr=((2**20 + 1,), EMPTY),
        ),
        "at most|belong together",
    ),
}


# Of each kind one.
FIRST = ("dense.npz", "csr.npz", "members.npz", "line.mtx.gz", "entries.mtx.gz", "empty.h5")


@pytest.mark.parametrize("name", [*FIRST, *thorough(*(name for name in REFUSED if name not in FIRST))])
def test_bombs_end_with_one_line_before_they_are_in_memory(tmp_path, name):
    write, says = REFUSED[name]
    write(tmp_path / name)
    assert os.path.getsize(tmp_path / name) < 16 * 2**20
    status, said, peak = run("inertia", tmp_path / name)
    assert status == 2, said
    assert len(said.strip().splitlines()) == 1, said
    assert any(part in said for part in says.split("|")), said
    assert peak < BESIDE


def test_chunks_that_unfold_to_more_than_they_claim(tmp_path):
    path = tmp_path / "deep.h5"
    n, count = 2**14, 2**17
    with h5py.File(path, "w") as file:
        file["shape"] = np.array([n, n])
        file["indptr"] = np.arange(n + 1) * (count // n)
        file["indices"] = np.tile(np.arange(count // n), n)
        data = file.create_dataset("data", (count,), "f8", chunks=(count,), compression="gzip")
        packed = bombs.deflated(b"", b"\0", MANY)[0]
        data.id.write_direct_chunk((0,), b"\x78\x9c" + packed + bytes(4))
    status, said, peak = run("inertia", path)
    assert status == 2 and len(said.strip().splitlines()) == 1, said
    assert peak < BESIDE + 4 * 8 * count


@pytest.mark.parametrize("flag", ["--nullspace", "--guess", "--coordinates"])
def test_bombs_beside_the_matrix(tmp_path, flag):
    n = 300
    sp.save_npz(tmp_path / "K.npz", sp.diags(np.arange(1.0, n + 1)).tocsr())
    name = "bomb.npy" if flag == "--coordinates" else "bomb.npz"
    if flag == "--coordinates":
        (tmp_path / name).write_bytes(bombs.head_of_array((100, 3, 2**40)) + bytes(64))
    else:
        write_npz(vectors=bombs.zeros(MANY, shape=(MANY * 2**17 // n, n)))(tmp_path / name)
    status, said, peak = run("eigs", tmp_path / "K.npz", "-k", 2, flag, tmp_path / name)
    assert status == 2 and len(said.strip().splitlines()) == 1, said
    assert "memory" in said or "damaged" in said
    assert peak < BESIDE


@pytest.mark.thorough
def test_zeros_that_unfold_take_no_memory_where_they_would_fit(tmp_path):
    """A dense identity of two gigabytes is a diagonal matrix."""
    n = 2**14 - 1
    period = np.zeros(n + 1)
    period[-1] = 1.0  # after the first entry each one comes n + 1 later
    head = bombs.head_of_array((n, n)) + np.ones(1).tobytes() + 6 * period.tobytes()
    write_npz(a=bombs.deflated(head, period.tobytes(), (n - 1) // 8))(tmp_path / "eye.npz")
    status, said, peak = run("inertia", tmp_path / "eye.npz", limit=2**34)
    assert status == 0, said
    assert peak < BESIDE
    assert matrix_formats.load_matrix(tmp_path / "eye.npz", ".npz").matrix.nnz == n


def stored(folder):
    """Return a sparse matrix, and the names under which it is stored, well compressed."""
    n = 40_000
    K = sp.diags([-np.ones(n - 1), np.full(n, 2.0), -np.ones(n - 1)], [-1, 0, 1]).tocsr()
    for form in ("csr", "csc", "coo", "dia"):
        sp.save_npz(folder / f"{form}.npz", K.asformat(form))
    sp.save_npz(folder / "bsr.npz", K.tobsr((2, 2)))
    with h5py.File(folder / "gzip.h5", "w") as file:
        file["shape"] = np.array(K.shape)
        for name in ("indptr", "indices", "data"):
            file.create_dataset(name, data=getattr(K, name), compression="gzip", shuffle=True)
    scipy.io.mmwrite(folder / "K.mtx", K)
    with gzip.open(folder / "K.mtx.gz", "wb") as file:
        file.write((folder / "K.mtx").read_bytes())
    return K, [path.name for path in folder.iterdir()]


def test_well_compressed_matrices_are_read(tmp_path):
    K, names = stored(tmp_path)
    assert len(names) == 8
    for name in names:
        suffix = ".mtx.gz" if name.endswith(".gz") else os.path.splitext(name)[1]
        assert abs(matrix_formats.load_matrix(tmp_path / name, suffix).matrix - K).max() == 0, name


@pytest.mark.parametrize("symmetry", ["general", "symmetric"])
def test_arrays_of_matrix_market(tmp_path, symmetry):
    A = np.random.default_rng(0).normal(size=(40, 40)) * (np.random.default_rng(1).random((40, 40)) < 0.3)
    A = A + A.T
    scipy.io.mmwrite(tmp_path / "A.mtx", A, symmetry=symmetry, precision=17)
    assert np.array_equal(matrix_formats.load_matrix(tmp_path / "A.mtx", ".mtx").matrix.toarray(), A)


def test_entries_that_stand_for_one_place_are_summed(tmp_path):
    parts = {"format": np.array(b"csr"), "shape": np.array([2, 2]), "indptr": np.array([0, 2, 3])}
    np.savez(tmp_path / "A.npz", **parts, indices=np.array([0, 0, 1]), data=np.array([1.0, 2.0, 5.0]))
    assert np.array_equal(
        matrix_formats.load_matrix(tmp_path / "A.npz", ".npz").matrix.toarray(), [[3, 0], [0, 5]]
    )


@pytest.mark.parallel([2])
def test_all_ranks_end(folder, comm):
    from sparsehess.errors import InputError
    from sparsehess.storage.matrix_files import read_matrix

    path = folder / "dense.npz"
    if comm.rank == 0:
        claimed = memory.room_of_one() // 12 + 2**20
        side = int(claimed**0.5) + 1
        write_npz(a=bombs.zeros(1, shape=(side, side)))(path)
    comm.barrier()
    with pytest.raises(InputError):
        read_matrix(path, comm)


# --- what is free -----------------------------------------------------------------------


def tree(root, available, cgroup, **files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {available} kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def group(place, limit, taken, back):
    return {f"{place}memory.max": limit, f"{place}memory.current": taken, f"{place}memory.stat": back}


@pytest.mark.parametrize(
    "cgroup, files, free",
    [
        ("0::/\n", {}, 8000 * 1024),
        ("0::/a/b\n", group("a/b/", "5000", "1200", "anon 7\ninactive_file 200\n"), 4000),
        ("0::/a/b\n", group("a/b/", "max", "1200", "") | group("a/", "3000", "1000", "inactive_file 0\n"), 2000),
        ("0::/outside/of/it\n", group("", "700", "900", "inactive_file 100\n"), 0),
        (
            "9:cpu:/x\n4:memory:/job/step\n0::/\n",
            {
                "memory/job/memory.limit_in_bytes": "6000",
                "memory/job/memory.usage_in_bytes": "5000",
                "memory/job/memory.stat": "inactive_file 7\ntotal_inactive_file 500\n",
            },
            1500,
        ),
    ],
)
def test_what_is_free_is_what_control_groups_leave(tmp_path, cgroup, files, free):
    tree(tmp_path, 8000, cgroup, **files)
    assert memory.node_room(tmp_path) == free


def test_limits_of_a_process():
    code = "from sparsehess.runtime import memory; print(memory.room_of_one())"
    for kind in ("RLIMIT_DATA", "RLIMIT_AS"):
        words = limited(2**30, "-c", code, kind=kind)
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert 2**28 < int(done.stdout) < 2**30


def test_no_more_than_is_allowed_is_taken():
    # In a process of its own: what this one has given back may be had again.
    code = """if True:
        import numpy as np
        from sparsehess.runtime import memory
        try:
            with memory.at_most(2**27):
                np.ones(2**26)
        except MemoryError:
            print(np.ones(2**20).sum())
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == 2**20
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory.at_most(memory.MANY):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
