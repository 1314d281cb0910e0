"""Vectors between ranks and rank 0, piece by piece: none is larger than it may be, an error is one of all."""

import numpy as np
import pytest

from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc
from sparsehess.storage import row_pieces
from sparsehess.storage.result_files import read_pairs
from sparsehess.storage.writers import write_results

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]

N, PIECE = 23, 4


@pytest.fixture
def vectors(comm, monkeypatch):
    monkeypatch.setattr(row_pieces, "PIECE", PIECE)
    rows = [0, N - 2, 2][: comm.size] if comm.size > 1 else [N]
    rows[-1] += N - sum(rows)
    made = [PETSc.Vec().createMPI((rows[comm.rank], N), comm=comm) for _ in range(2)]
    for number, vector in enumerate(made):
        first, last = vector.getOwnershipRange()
        vector.setArray(np.arange(first, last) + 100.0 * number)
    yield made
    for vector in made:
        vector.destroy()


def test_rank_0_holds_a_piece_at_a_time(vectors, comm):
    pieces, begins = [], []

    def write(first, values):
        begins.append(first)
        pieces.append(values.copy())

    row_pieces.write_in_pieces(vectors[1], comm, write)
    assert all(len(piece) <= PIECE for piece in pieces)
    whole = np.concatenate([*pieces, np.empty(0)])
    assert begins == np.cumsum([0, *map(len, pieces)])[:-1].tolist()
    assert np.array_equal(whole, np.arange(N) + 100.0) if comm.rank == 0 else not len(whole)


def test_results_there_and_back(vectors, folder, comm):
    write_results(folder / "pairs.h5", {}, {"eigenvalues": np.arange(2.0)}, vectors, comm)
    for layout in (Layout.from_size(N, comm), Layout.from_local(vectors[0].getLocalSize(), comm)):
        stored = read_pairs(folder / "pairs.h5", layout=layout)
        for number, vector in enumerate(stored.vectors):
            assert np.array_equal(vector.getArray(), np.arange(layout.start, layout.stop) + 100.0 * number)
            vector.destroy()


def test_a_disk_that_is_full_is_one_for_all_ranks(vectors, comm):
    def write(first, values):
        if first > 8:
            raise InputError("no room")

    def read(first, last):
        if first > 8:
            raise InputError("cannot be read")
        return np.zeros(last - first)

    with pytest.raises(InputError, match="no room"):
        row_pieces.write_in_pieces(vectors[0], comm, write)
    with pytest.raises(InputError, match="cannot be read"):
        row_pieces.read_in_pieces(Layout.from_size(N, comm), read)
    assert comm.allreduce(1) == comm.size  # nobody waits
