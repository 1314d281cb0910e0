"""What users give by mistake works, or gets a sentence that says what to do; no traceback of JAX's."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import CheckError, EvaluationError, InputError, SparseHessError
from sparsehess.hosts.jax.model_curvature import gauss_newton, hessian

jax = pytest.importorskip("jax")

jnp = jax.numpy

DRAWN = np.random.default_rng(8)
INPUTS, CLASSES = DRAWN.normal(size=(12, 3)), DRAWN.integers(0, 3, 12)
KERNEL = DRAWN.normal(size=(3, 3))
RISING = np.arange(1.0, 4.0)


@jax.custom_vjp
def detached(x):
    return x**3


detached.defvjp(lambda x: (x**3, x), lambda x, slope: (3 * jax.lax.stop_gradient(x) ** 2 * slope,))


@jax.custom_vjp
def outside(x):
    return x**3


def called(x, slope):
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return (jax.pure_callback(lambda at, along: 3 * np.asarray(at) ** 2 * np.asarray(along), like, x, slope),)


outside.defvjp(lambda x: (x**3, x), called)


def entropy(outputs, targets):
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[:, None], 1).mean()


def largest(objective, count=2):
    with sh.MatrixFree(objective) as free, sh.eigs(free, count, which="largest", count="no") as found:
        return np.sort(found.eigenvalues)


def looped(x):
    return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (0, x))[1].sum()


FUNCTIONS = {
    "if": (lambda x: (x**4).sum() if x.sum() > 0 else x.sum(), EvaluationError, "jnp.where"),
    "mask": (lambda x: x[x > 2].sum(), EvaluationError, "jnp.where"),
    "while": (looped, EvaluationError, "jax.lax.scan"),
    "a vector": (lambda x: x**2, InputError, "one real number"),
    "a pair": (lambda x: ((x**2).sum(), 2 * x), InputError, "one real number.*not tuple"),
    "nothing": (lambda x: None, InputError, "one real number"),
    "whole numbers": (lambda x: x.astype(int).sum(), InputError, "one real number"),
    "complex": (lambda x: (x**4).sum() + 0j, InputError, "one real number"),
    "NumPy": (lambda x: np.sin(x).sum(), EvaluationError, "not of NumPy"),
    "float": (lambda x: float((x**2).sum()), EvaluationError, r"float\(\)"),
    "in place": (lambda x: x.__setitem__(0, 1.0), EvaluationError, "without changing arrays in place"),
    "detached": (lambda x: detached(x).sum(), CheckError, "contradict its gradient"),
    "outside": (lambda x: outside(x).sum(), EvaluationError, "products='differences'"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    function, kind, says = FUNCTIONS[name]
    with pytest.raises(kind, match=says):
        largest(sh.from_jax(function, RISING))


@pytest.mark.parametrize("cube", [detached, outside])
def test_what_can_be_differentiated_once_by_differences(cube):
    found = largest(sh.from_jax(lambda x: cube(x).sum(), RISING, products="differences"))
    np.testing.assert_allclose(found, [12, 18], rtol=1e-7)


def exact(apply, kernel=KERNEL):
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        flat = jnp.asarray(np.asarray(kernel, np.float64).ravel())
        return np.asarray(jax.hessian(lambda at: entropy(apply(at.reshape(3, 3), INPUTS), CLASSES))(flat))


@pytest.mark.parametrize("cube", [detached, outside])
def test_models_that_can_be_differentiated_once(cube):
    wanted = np.linalg.eigvalsh(exact(lambda w, x: (x @ w) ** 3))[-2:]
    with pytest.raises(SparseHessError, match=r"contradict its gradient|products='differences'"):
        largest(hessian(lambda w, x: cube(x @ w), entropy, KERNEL, INPUTS, CLASSES))
    made = hessian(lambda w, x: cube(x @ w), entropy, KERNEL, INPUTS, CLASSES, products="differences")
    np.testing.assert_allclose(largest(made), wanted, rtol=1e-6)
    if cube is outside:
        with pytest.raises(EvaluationError, match="no second derivative of it"):
            gauss_newton(lambda w, x: cube(x @ w), entropy, KERNEL, INPUTS, CLASSES)
    else:  # its slopes are linear in what is handed back, and that is all that is needed
        found, plain = (
            gauss_newton(lambda w, x, of=of: of(x @ w), entropy, KERNEL, INPUTS, CLASSES)
            for of in (cube, lambda z: z**3)
        )
        V = np.eye(9)
        np.testing.assert_allclose(found.hvps(found.x, V), plain.hvps(plain.x, V), atol=1e-12)


def test_parameters_of_any_kind():
    half = jnp.asarray(KERNEL, jnp.bfloat16)
    params = {"kernel": half, "count": 3, "key": jax.random.key(0)}
    made = hessian(lambda p, x: jnp.tanh(x @ p["kernel"]), entropy, params, INPUTS, CLASSES)
    assert made.n == 9
    wanted = np.linalg.eigvalsh(exact(lambda w, x: jnp.tanh(x @ w), half))[-2:]
    np.testing.assert_allclose(largest(made), wanted, rtol=1e-8)


def test_keys_that_are_kept_from_call_to_call():
    """Dropout whose key is a variable outside: JAX tells of a tracer, and nothing is sparse in it."""
    kept = [jax.random.PRNGKey(0)]

    def apply(params, x):
        kept[0], key = jax.random.split(kept[0])
        return x @ params * jax.random.bernoulli(key, 0.5, (len(x), 3))

    with pytest.raises(EvaluationError, match=r"keeps what it computed from call to call.*dropout"):
        hessian(apply, entropy, KERNEL, INPUTS, CLASSES)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("how", ["values", "shapes", "frozen"])
def test_ranks_with_other_models_are_refused(how, comm):
    if comm.size == 1:
        return
    wide = 4 + comm.rank * (how == "shapes")
    params = {"w": np.ones((3, wide)) + comm.rank * (how == "values"), "b": np.zeros(3) + comm.rank}
    params["v"] = np.ones((wide, 3))
    variables = ["w", "v"] if how == "frozen" else None
    if how != "frozen":
        params["b"] = np.zeros(3)

    def apply(params, x):
        return jnp.tanh(x @ params["w"]) @ params["v"] + params["b"]

    named = {"values": "a value of w", "shapes": "27 numbers on rank 0", "frozen": "a value of b"}
    for kind in (hessian, gauss_newton):
        with pytest.raises(InputError, match=f"the models differ between ranks: {named[how]}"):
            kind(apply, entropy, params, INPUTS, CLASSES, parameters=variables, comm=comm)


@pytest.mark.parametrize("tree", [{"a": np.ones(3), "b": np.ones(2)}, [np.ones(3), np.ones(2)], (1.0, np.ones(2))])
def test_a_tree_is_told_how_it_becomes_a_vector(tree):
    with pytest.raises(InputError, match=r"tree of 2 arrays.*ravel_pytree"):
        sh.from_jax(lambda x: jnp.sum(x["a"] ** 2), tree)


def test_lists_of_numbers_are_vectors():
    assert sh.from_jax(lambda x: jnp.sum(x**2), [1.0, 2.0]).x.shape == (2,)
