"""Spectra as arrays, and in files."""

import json

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from support.cases import lapack, laplacian

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


def uneven(n, comm):
    """Return a layout in which the last rank has most rows, and the first perhaps none."""
    mine = n - (comm.size - 1) * 2 if comm.rank == comm.size - 1 else 2
    return Layout.from_local(mine if comm.rank or comm.size == 1 else 2, comm)


def test_arrays_are_those_of_numpy(comm):
    K, _ = laplacian(7, 8)
    masses = 1.0 + np.arange(56) % 3
    with sh.eigs(K, 5, mass=masses, comm=comm) as found:
        values, whole = found.to_numpy()
        assert values == pytest.approx(lapack(K, sp.diags(masses))[:5], rel=1e-10)
        assert whole.shape == (56, 5) and values is not found.eigenvalues
        assert np.abs(K @ whole - masses[:, None] * whole * values).max() < 1e-8
        assert whole.T @ (masses[:, None] * whole) == pytest.approx(np.eye(5), abs=1e-8)
        _, mine = found.to_numpy("local")
        first, last = found.vectors[0].getOwnershipRange()
        assert np.array_equal(mine, whole[first:last])
        _, root = found.to_numpy(where="root")
        assert np.array_equal(root, whole) if comm.rank == 0 else root.shape == (0, 5)
        mine[:] = np.nan  # they are copies
        assert np.isfinite(found.to_numpy("local")[1]).all()


def test_a_rank_without_rows_has_arrays_too(comm):
    with sh.eigs(np.diag([1.0, 2.0]), 1, comm=comm) as found:
        assert np.abs(found.to_numpy()[1]).ravel() == pytest.approx([1.0, 0.0], abs=1e-9)
        assert found.to_numpy("local")[1].shape == (Layout.from_size(2, comm).n_local, 1)


def test_what_cannot_be_had_is_said(comm, folder):
    found = sh.eigs(np.eye(4), 2, comm=comm)
    with pytest.raises(InputError, match="where='here' is none of all, root, local"):
        found.to_numpy("here")
    with pytest.raises(InputError, match=r"must end with one of \.h5, \.npz"):
        found.save(folder / "modes.txt")
    found.close()
    with pytest.raises(InputError, match="closed"):
        found.to_numpy()
    with pytest.raises(InputError, match="closed"):
        found.save(folder / "modes.npz")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("suffix", ["h5", "npz"])
@pytest.mark.parametrize(
    "question", [{"k": 4}, {"interval": (0.0, 1.0)}, {"k": 2, "target": 3.0}, {"which": "negative"}]
)
def test_saved_ones_are_loaded_as_they_were(suffix, question, comm, folder):
    pytest.importorskip("h5py" if suffix == "h5" else "numpy")
    K, _ = laplacian(7, 8)
    K = K - sp.identity(56) if question.get("which") else K
    path = folder / f"modes.{suffix}"
    with sh.eigs(K, **question, comm=comm) as found:
        found.save(path)
        _, vectors = found.to_numpy()
        for more in ({"comm": comm}, {"layout": uneven(56, comm)}):
            with sh.Spectrum.load(path, **more) as again:
                assert np.array_equal(again.to_numpy()[1], vectors)
                for name in ("eigenvalues", "residuals", "zero", "lost", "roundings"):
                    assert np.array_equal(getattr(again, name), getattr(found, name)), name
                for name in ("count", "method", "reason", "asked", "advice", "zeros", "held_to", "options"):
                    assert getattr(again, name) == getattr(found, name), name
                assert again.spec.k == (None if found.spec.takes_all else found.spec.k)
                if "layout" in more:
                    assert again.vectors[0].getLocalSize() == more["layout"].n_local
                elif comm.size == 1 or suffix == "npz":
                    assert sh.certify(K, again, comm=comm).passed


def test_one_is_read_by_another_number_of_ranks(comm, folder):
    """Each rank alone reads what all have written, and finds all of it."""
    K, exact = laplacian(6, 9)
    with sh.eigs(K, 3, comm=comm) as found:
        found.save(folder / "modes.npz")
        vectors = found.to_numpy()[1]
    with sh.Spectrum.load(folder / "modes.npz") as again:
        assert again.eigenvalues == pytest.approx(exact[:3])
        assert np.array_equal(again.to_numpy("local")[1], vectors)


def test_what_one_rank_has_written_all_read(comm, folder):
    K, exact = laplacian(6, 9)
    if comm.rank == 0:
        with sh.eigs(K, 3) as found:
            found.save(folder / "modes.npz")
    comm.Barrier()
    with sh.Spectrum.load(folder / "modes.npz", comm=comm) as again:
        assert again.vectors[0].getLocalSize() == Layout.from_size(54, comm).n_local
        assert sh.certify(K, again, comm=comm).passed and again.eigenvalues == pytest.approx(exact[:3])


def test_loaded_ones_are_guesses_and_layouts_fit(comm, folder):
    K, exact = laplacian(6, 9)
    with sh.eigs(K, 3, comm=comm) as found:
        found.save(folder / "modes.npz")
    with (
        sh.Spectrum.load(folder / "modes.npz", comm=comm) as before,
        sh.eigs(K, 3, guess=before, comm=comm) as now,
    ):
        assert now.eigenvalues == pytest.approx(exact[:3])
    with pytest.raises(InputError, match="its matrix has 54 rows"):
        sh.Spectrum.load(folder / "modes.npz", layout=Layout.from_size(55, comm))


def test_damaged_ones_are_refused(comm, folder):
    with sh.eigs(np.diag([1.0, 2.0, 3.0]), 2, comm=comm) as found:
        facts = found.facts()
    arrays = {"eigenvalues": np.ones(2), "residuals": np.ones(2), "vectors": np.ones((2, 3))}
    damages = [
        ({}, {"residuals": np.ones(3)}, "residuals of 3 pairs"),
        ({"count": {"interval": [0, 1]}}, {}, "it has no 'inertia'|no 'unresolved'"),
        ({"orthogonality": "small"}, {}, "no result of sparsehess eigs"),
        ({"which": "best"}, {}, "which='best'"),
        ({}, {"eigenvalues": np.array([1.0, np.nan])}, "not finite"),
        ({}, {"vectors": np.ones((3, 3))}, "do not fit"),
        ({}, {"vectors": np.array([["a", "b", "c"]] * 2)}, "not of numbers"),
        ({"errors": [1.0]}, {}, "errors of 1 pairs"),
    ]
    for number, (told, wrong, says) in enumerate(damages):
        path = folder / f"{number}.npz"
        if comm.rank == 0:
            np.savez(path, json=np.array(json.dumps(facts | told)), **(arrays | wrong))
        comm.Barrier()
        with pytest.raises(InputError, match=says):
            sh.Spectrum.load(path, comm=comm)
    for name, says in (("none.npz", "no such file|No such file"), ("modes.txt", "an .h5 or .npz")):
        with pytest.raises(InputError, match=says):
            sh.Spectrum.load(folder / name, comm=comm)
