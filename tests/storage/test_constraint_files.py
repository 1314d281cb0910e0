"""Matrices (m, n) and arrays of numbers: what is damaged is refused before anything compiled trusts it."""

import os

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from sparsehess.errors import InputError
from sparsehess.storage.array_files import load_array
from sparsehess.storage.matrix_formats import load_rows

ROWS = np.array([[1.0, 0.0, -2.0, 0.0], [0.0, 3.5, 0.0, 0.25]])


def test_rows_are_read_from_every_format(tmp_path):
    sp.save_npz(tmp_path / "rows.npz", sp.csr_matrix(ROWS))
    scipy.io.mmwrite(tmp_path / "rows.mtx", sp.coo_matrix(ROWS))
    np.save(tmp_path / "rows.npy", ROWS)
    for name in ("rows.npz", "rows.mtx"):
        assert (load_rows(tmp_path / name, os.path.splitext(name)[1]).toarray() == ROWS).all()
    assert (load_array(tmp_path / "rows.npy") == ROWS).all()


def test_columns_that_are_none_are_refused(tmp_path):
    whole = sp.csr_matrix(ROWS)
    parts = {"format": b"csr", "shape": np.array(whole.shape), "data": whole.data, "indptr": whole.indptr}
    for indices in (np.full(4, -7), np.full(4, 4)):
        np.savez(tmp_path / "rows.npz", indices=indices.astype(np.int32), **parts)
        with pytest.raises(InputError, match=r"damaged: a column is outside 0\.\.3"):
            load_rows(tmp_path / "rows.npz", ".npz")


def test_what_is_not_finite_or_not_there_is_refused(tmp_path):
    sp.save_npz(tmp_path / "nan.npz", sp.csr_matrix(ROWS * np.nan))
    sp.save_npz(tmp_path / "complex.npz", sp.csr_matrix(ROWS * 1j))
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "claims.npy").write_bytes(np.lib.format.magic(1, 0) + b"")
    with pytest.raises(InputError, match="must be finite"):
        load_rows(tmp_path / "nan.npz", ".npz")
    with pytest.raises(InputError, match="real numbers are wanted"):
        load_rows(tmp_path / "complex.npz", ".npz")
    with pytest.raises(InputError, match="no file, but a pipe"):
        load_array(tmp_path / "pipe.npy")
    with pytest.raises(InputError, match=r"claims.npy"):
        load_array(tmp_path / "claims.npy")
