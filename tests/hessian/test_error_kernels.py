import numpy as np
import pytest
import scipy.sparse as sp
from sparsehess.hessian.error_kernels import largest_of_rows, mean_squares, scaled_square


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_sums_over_entries(index):
    rng = np.random.default_rng(0)
    matrix = sp.random(50, 70, 0.1, random_state=2, format="csr")
    matrix.data = rng.normal(size=matrix.nnz)
    indptr, columns = matrix.indptr.astype(index), matrix.indices.astype(np.int32)
    x = rng.normal(size=70) * (rng.random(70) < 0.5)
    assert scaled_square(indptr, columns, matrix.data, x) == pytest.approx(((matrix.data * x[columns]) ** 2).sum())
    means, largest = np.empty(50), np.empty(50)
    mean_squares(indptr, columns, x, means)
    largest_of_rows(indptr, matrix.data, largest)
    for row in range(50):
        own = slice(indptr[row], indptr[row + 1])
        along = x[columns[own]]
        assert means[row] == pytest.approx((along[along != 0] ** 2).mean() if along.any() else 0.0)
        assert largest[row] == np.abs(matrix.data[own]).max(initial=0.0)


def test_what_is_no_number_is_the_largest():
    largest = np.empty(2)
    largest_of_rows(np.array([0, 2, 4], np.int32), np.array([np.nan, 1.0, 3.0, np.nan]), largest)
    assert np.isnan(largest).all()
