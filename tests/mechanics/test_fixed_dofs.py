"""Fixed dofs and penalties: found by what stands in the rows, and named by node and component."""

import numpy as np
import pytest

from sparsehess.mechanics.fixed_dofs import find_fixed_dofs
from sparsehess.runtime import destroy
from sparsehess.storage import matrix_files
from support import DATA, code_files
from support.command_line import batch, several

# A chain of springs along three nodes' x, whose first dof is held, beside rotations.
LABELS = [(4, 1), (7, 1), (7, 6), (9, 1), (9, 6), (20, 1)]


def chain():
    """Return K and M of springs of 1000, rotations of 50, and masses of 2 on the x of nodes."""
    stiffness = np.diag([1000.0, 2000.0, 50.0, 2000.0, 50.0, 1000.0])
    for i, j in ((0, 1), (1, 3), (3, 5)):
        stiffness[i, j] = stiffness[j, i] = -1000.0
    stiffness[2, 4] = stiffness[4, 2] = 25.0
    return stiffness, np.diag([2.0, 2.0, 0.0, 2.0, 0.0, 2.0])


def found_in(folder, comm, stiffness, mass):
    """Return what is found in files of labels."""
    if comm.rank == 0:
        code_files.abaqus_labels(folder / "K.mtx", stiffness, LABELS)
        code_files.abaqus_labels(folder / "M.mtx", mass, LABELS)
    comm.Barrier()
    first = matrix_files.read_matrix(folder / "K.mtx", comm)
    second = matrix_files.read_matrix(folder / "M.mtx", comm, beside=first)
    matrices = first.to_mat(), second.to_mat()
    found = find_fixed_dofs(*matrices, first.labels)
    destroy(*matrices)
    first.pattern.free()
    second.pattern.free()
    return found


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("penalty", [1e10, 1e30, 1e36])
@pytest.mark.parametrize("coupled", [True, False])
def test_penalties(penalty, coupled, folder, comm):
    stiffness, mass = chain()
    stiffness[0, 0] += penalty
    if not coupled:
        stiffness[0, 1] = stiffness[1, 0] = 0.0
    found = found_in(folder, comm, stiffness, mass)
    assert (found.penalties.rows, found.penalties.names) == ((0,), ("node 4 x",))
    assert found.largest == pytest.approx(penalty / 2000.0, rel=1e-6)
    assert (found.massless.rows, found.massless.names) == ((2, 4), ("node 7 rz", "node 9 rz"))
    assert found.uncoupled.count == 0
    assert found.massless.told() == "rows 2, 4: node 7 rz, node 9 rz"


@pytest.mark.parallel([1, 2, 3])
def test_ones_on_both_diagonals(folder, comm):
    stiffness, mass = chain()
    stiffness[0, :] = stiffness[:, 0] = 0.0
    stiffness[0, 0] = mass[0, 0] = 1.0
    found = found_in(folder, comm, stiffness, mass)
    assert (found.uncoupled.rows, found.uncoupled.names, found.penalties.count) == ((0,), ("node 4 x",), 0)


@pytest.mark.parallel([1, 2, 3])
def test_none_in_real_matrices(comm):
    """Of a clamped beam without its fixed dofs none; of one with ones on the diagonal, as published, 74."""
    for name, wanted in (("ccx_beam8f", 0), ("hb_bcsstk16", 74)):
        path = DATA / f"{name}_K.npz"
        if not path.exists():
            pytest.skip("no data beside the project")
        stored = matrix_files.read_matrix(path, comm)
        matrix = stored.to_mat()
        found = find_fixed_dofs(matrix, None)
        assert (found.penalties.count, found.uncoupled.count) == (0, wanted)
        matrix.destroy()
        stored.pattern.free()


def test_the_command_names_them(tmp_path):
    stiffness, mass = chain()
    stiffness[0, 0] += 1e30
    code_files.dmig(tmp_path / "job.pch", {"KAAX": stiffness, "MAAX": mass}, LABELS)
    line = "eigs job.pch:KAAX --mass job.pch:MAAX -k 2"
    (text,) = batch(tmp_path, [line], 1)
    (told,) = several(tmp_path, [line], 1)
    assert "fixed        1 row by penalties of up to 5e+26 times" in text[1] and "(row 0: node 4 x)" in text[1]
    assert "massless     2 rows of M without an entry (rows 2, 4: node 7 rz, node 9 rz)" in text[1]
    assert told["fixed"]["penalties"] == {"count": 1, "rows": [0], "names": ["node 4 x"]}
    free = np.array([1, 3, 5])
    exact = np.linalg.eigvalsh(stiffness[np.ix_(free, free)] / 2.0)
    assert np.allclose(told["eigenvalues"], exact[:2], rtol=1e-10)
