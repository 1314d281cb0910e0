"""Inside JAX: exact products in batches, patterns by tracing and by probing; one or more number of ranks."""

from dataclasses import replace

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.hosts.jax.features import double_precision
from support.cases import frobenius_error
from support.smooth_functions import FUNCTIONS

jax = pytest.importorskip("jax")

pytestmark = pytest.mark.parallel([1, 2])
jnp = jax.numpy


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def exact(x):
    """Return the Hessian by dense JAX in double precision, as a sparse matrix."""
    import scipy.sparse as sp

    with double_precision():
        return sp.csr_matrix(np.asarray(jax.hessian(rosenbrock)(jnp.asarray(x))))


POINT = np.random.default_rng(0).normal(size=120)


@pytest.mark.parametrize(("products", "most"), [("float64", 1e-15), ("float32", 1e-6)])
def test_exact_hessians(products, most, comm):
    before = jax.config.jax_enable_x64  # the user or another host may have set it
    objective = sh.from_jax(rosenbrock, POINT, products=products, comm=comm)
    with sh.assemble(objective) as hessian:  # its own pattern is the traced one
        assert hessian.coloring.count == 3 and hessian.evaluations["pattern"] == 0
        assert hessian.evaluations["hvp"] == 3 and hessian.evaluations["gradient"] == 0
        assert frobenius_error(hessian.mat, exact(POINT), comm) < most
        hessian.update(POINT + 0.1)
        assert frobenius_error(hessian.mat, exact(POINT + 0.1), comm) < most
    assert jax.config.jax_enable_x64 == before


def test_tracing_and_probing_agree(comm):
    objective = sh.from_jax(rosenbrock, POINT, comm=comm)
    probed = sh.detect_pattern(replace(objective, trace=None))
    assert probed.source == "probing at one point"
    assert np.array_equal(probed.to_scipy().toarray() > 0, FUNCTIONS["chained_rosenbrock"](120).pattern.toarray()[
        probed.layout.start : probed.layout.stop
    ] > 0)  # fmt: skip
    traced = sh.detect_pattern(objective)
    assert traced.source == "tracing, at every x"
    assert np.array_equal(traced.indices, probed.indices)


def test_batches_fit_the_memory(comm):
    small = sh.from_jax(rosenbrock, POINT, memory=8 * 8 * 120 * 3, comm=comm)
    assert small.batch == 2
    with sh.assemble(small, pattern="detect") as hessian:
        assert frobenius_error(hessian.mat, exact(POINT), comm) < 1e-15
    with pytest.raises(InputError, match="float16"):
        sh.from_jax(rosenbrock, POINT, products="float16")
