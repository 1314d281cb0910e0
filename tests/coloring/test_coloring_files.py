"""Stored colourings: read on any number of ranks, and what is refused."""

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.coloring import load, save
from sparsehess.errors import InputError
from support.cases import band, random_pattern
from support.colorings import both

pytestmark = pytest.mark.parallel([1, 2, 3])


def test_a_colouring_that_cannot_be_written_keeps_nobody_waiting(comm, folder):
    n = 100_000  # more colours than a message takes along before it is received
    pattern = sh.Pattern.from_scipy(sp.identity(n, format="csr"), comm=comm)
    made = sh.color(pattern, order="natural")
    with pytest.raises(InputError, match="there is no folder"):
        save(folder / "nowhere" / "c.npz", pattern, made)
    pattern.free()


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_a_stored_colouring_is_read_on_any_number_of_ranks(suffix, comm, folder):
    matrix = random_pattern(400, 900, 6)
    pattern, made, alone = both(matrix, "acyclic", None, "smallest-last", comm)
    save(folder / f"together{suffix}", pattern, made)
    if comm.rank == 0:
        save(folder / f"alone{suffix}", sh.Pattern.from_scipy(matrix, comm=MPI.COMM_SELF), alone)
    comm.Barrier()
    for name in ("together", "alone"):
        read = load(folder / f"{name}{suffix}", pattern)
        assert np.array_equal(read.colors, made.colors)
        assert np.array_equal(read.ghost_colors, made.ghost_colors)
        assert (read.count, read.kind, read.rule) == (made.count, made.kind, made.rule)
        assert sh.verify_coloring(pattern, read) is None
    other = sh.Pattern.from_scipy(random_pattern(400, 900, 7), comm=comm)
    with pytest.raises(InputError, match="of another pattern"):
        load(folder / f"alone{suffix}", other)


def test_files_that_are_no_colourings_are_refused(comm, folder):
    pattern = sh.Pattern.from_scipy(band(30, 1), comm=comm)
    made = sh.color(pattern)
    save(folder / "whole.npz", pattern, made)
    if comm.rank == 0:
        (folder / "cut.npz").write_bytes((folder / "whole.npz").read_bytes()[:300])
        np.savez(folder / "foreign.npz", data=np.arange(3))
    comm.Barrier()
    for name in ("cut.npz", "foreign.npz"):
        with pytest.raises(InputError, match="is no stored colouring"):
            load(folder / name, pattern)
    with pytest.raises(InputError, match="no such file"):
        load(folder / "absent.npz", pattern)
    with pytest.raises(InputError, match=r"ends with .npz or .h5"):
        save(folder / "colors.txt", pattern, made)
