"""Curvature of a JAX model on data: Hessian, Gauss–Newton matrix, empirical Fisher matrix.

Each rank has its samples, and every product is summed over ranks once. Functions are compiled once for each number
of samples and of vectors; vectors of a batch share what depends on the point alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.hosts.jax.equations import value_bytes
from sparsehess.hosts.jax.model_share import JaxShare, Samples
from sparsehess.hosts.jax.split_outputs import SplitOutputs
from sparsehess.hosts.learning.model_objective import CurvatureOptions, ModelOptions, model_objective
from sparsehess.hosts.learning.model_share import linear_cost
from sparsehess.hosts.learning.parameter_groups import Selection
from sparsehess.hosts.learning.product_modes import DIFFERENCES, MOST_PRODUCTS
from sparsehess.runtime import optional

if TYPE_CHECKING:
    from jax import Array

# Samples by which the memory of a product is estimated.
_FEW = 8


def hessian(
    apply: Callable[[Any, Any], Array],
    loss: Callable[[Array, Any], Array],
    params: Any,
    inputs: Any,
    targets: Any,
    **options: Unpack[ModelOptions],
) -> Objective:
    """Return the objective of a model's loss on data: the Hessian by its parameters.

    Collective on `comm`. Its products are exact, forward over reverse mode.

    Parameters
    ----------
    apply
        `apply(params, inputs) -> outputs`, traceable, samples along the first axis: an array or a tree of them.
    loss
        `loss(outputs, targets) -> scalar`, the mean or the sum over samples.
        It must not read the parameters by itself, as a penalty does: that would not move with the variables,
        and is refused where their arrays are seen in the loss. What was computed of them before, in NumPy or
        outside of the loss, cannot be seen. Let `apply` return what a penalty needs beside its outputs.
    params
        Where the curvature is taken: a tree of arrays. Those of floating point are the variables, one after
        another in the order of JAX. What else is in it, such as functions and words, stays as it is.
    inputs, targets
        This rank's samples, arrays with the same first axis; inputs may be a tree of them. Ranks may have
        different numbers of samples, or none.
    parameters
        Which arrays are the variables: None for all, a predicate of a name such as `dense/kernel`, or a regular
        expression or a list of them. All others are frozen.
    reduction
        What the loss is over samples: `mean` (default) or `sum`. It is checked on samples drawn from all ranks,
        and on each chunk of them. A mean may be one by other weights than the number of samples, such as that over
        tokens that are not padding (`ignore_index`, a mask), or over classes of different weights: these are
        measured at the loss, so that the matrix is that of the loss of all samples together.
    weight
        By what the mean of some samples is divided: `weight(targets) -> number`, such as
        `lambda targets: (targets != -100).sum()`. Default: it is measured, where the mean is not plain.
    products
        Precision of products: float64 (default), or float32 with everything around them in float64; say so to
        `MatrixFree(objective, precision="single")` too. Or `differences`: there are none, but differences of the
        gradient, for models that cannot be differentiated twice.
    memory
        Bytes that a batch of products may take on a device, default 2**29. Samples are worked on in chunks that
        fit.
    device
        A JAX device; default JAX's own choice.
    name
        For reports.
    comm
        Communicator; default this process alone.

    Returns
    -------
    objective
        Loss, gradient and batches of products, each rank's part of a sum.

    Raises
    ------
    StackError
        JAX is not installed.
    InputError
        No samples, parameters that cannot be used.
    CheckError
        Products that are not deterministic, not symmetric, or not finite; a loss that is not the mean or the sum
        over samples.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.hosts.jax.model_curvature import hessian
    >>> inputs = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> loss = lambda outputs, targets: ((outputs - targets) ** 2).mean()
    >>> objective = hessian(lambda w, x: x @ w, loss, np.ones(2), inputs, np.zeros(2))
    >>> objective.hvps(objective.x, np.eye(2))
    array([[1., 0.],
           [0., 4.]])
    """
    return _objective(_hessian_product, apply, loss, params, inputs, targets, **options)


def gauss_newton(
    apply: Callable[[Any, Any], Array],
    loss: Callable[[Array, Any], Array],
    params: Any,
    inputs: Any,
    targets: Any,
    **options: Unpack[ModelOptions],
) -> Objective:
    """Return an objective of products alone: those of the Gauss–Newton matrix, mean of JᵀLJ.

    Collective on `comm`. J are derivatives of a sample's outputs, L is the Hessian of the loss by them. It is
    the Fisher matrix for exponential families with natural parameters, such as squared errors and cross-entropy.

    Parameters
    ----------
    apply, loss, params, inputs, targets, options
        As for `hessian`.

    Returns
    -------
    objective
        Batches of products, each rank's part of a sum.

    Raises
    ------
    StackError, InputError, CheckError
        As for `hessian`.

    References
    ----------
    Martens, New insights and perspectives on the natural gradient method, JMLR 21 (2020), section 9.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.hosts.jax.model_curvature import gauss_newton
    >>> inputs = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> loss = lambda outputs, targets: ((outputs - targets) ** 2).mean()
    >>> objective = gauss_newton(lambda w, x: x @ w, loss, np.ones(2), inputs, np.zeros(2))
    >>> objective.hvps(objective.x, np.eye(2))
    array([[1., 0.],
           [0., 4.]])
    """
    return _objective(_between_jacobians(_along_loss), apply, loss, params, inputs, targets, **options)


def empirical_fisher(
    apply: Callable[[Any, Any], Array],
    loss: Callable[[Array, Any], Array],
    params: Any,
    inputs: Any,
    targets: Any,
    **options: Unpack[ModelOptions],
) -> Objective:
    """Return an objective of products alone: those of the mean of g gᵀ over gradients g of samples.

    Collective on `comm`. The targets are those given, so that it is not the Fisher matrix. No gradient of a single
    sample is ever made: g is Jᵀr.

    Parameters
    ----------
    apply, loss, params, inputs, targets, options
        As for `hessian`.

    Returns
    -------
    objective
        Batches of products, each rank's part of a sum.

    Raises
    ------
    StackError, InputError, CheckError
        As for `hessian`.

    References
    ----------
    Kunstner, Balles, Hennig, Limitations of the empirical Fisher approximation, NeurIPS (2019).

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.hosts.jax.model_curvature import empirical_fisher
    >>> inputs = np.array([[1.0], [2.0]])
    >>> loss = lambda outputs, targets: ((outputs - targets) ** 2).mean()
    >>> objective = empirical_fisher(lambda w, x: x @ w, loss, np.ones(1), inputs, np.zeros(2))
    >>> objective.hvps(objective.x, np.eye(1))  # of the gradients 2 and 8
    array([[34.]])
    """
    return _objective(_fisher_product, apply, loss, params, inputs, targets, **options)


def _objective(
    product: _Product,
    apply: Callable[[Any, Any], Array],
    loss: Callable[[Array, Any], Array],
    params: Any,
    inputs: Any,
    targets: Any,
    *,
    parameters: Selection = None,
    device: Any = None,
    name: str | None = None,
    **options: Unpack[CurvatureOptions],
) -> Objective:
    jax = optional("jax", "curvature of a JAX model", "jax")

    def make_share(precision: str) -> JaxShare:
        return JaxShare(jax, apply, loss, params, inputs, targets, parameters, precision, device)

    name = name or str(getattr(apply, "__name__", "JAX model"))
    of_loss, plain = product is _hessian_product, product is _fisher_product
    if options.get("products") == DIFFERENCES and of_loss:
        product = _gradient_alone
    make = partial(_Curvature, product)
    return model_objective(make_share, make, name=name, of_loss=of_loss, plain=plain, **options)


# --- products of some samples ---

# product(share, x, v, samples) with one vector.
_Product = Callable[[JaxShare, Any, Any, Samples], Any]


def _hessian_product(share: JaxShare, x: Array, v: Array, samples: Samples) -> Array:
    slope = share.jax.grad(lambda at: share.weighted_loss(share.outputs(at, samples), samples))
    return share.jax.jvp(slope, (x,), (v,))[1]


# inner(share, split, parts, change, samples): what stands between Jᵀ and J, of the real arrays of outputs.
_Inner = Callable[[JaxShare, SplitOutputs, list, list, Samples], list]


def _between_jacobians(inner: _Inner) -> _Product:
    """Return the product Jᵀ L J v, L given by inner(share, split, parts, change, samples)."""

    def product(share: JaxShare, x: Array, v: Array, samples: Samples) -> Array:
        split = share.split_outputs(x, samples)

        def outputs(at: Array) -> list[Array]:
            return split.parts_of(share.outputs(at, samples))

        parts, back = share.jax.vjp(outputs, x)
        change = _change(share, outputs, x, v, parts, back)
        return back(inner(share, split, parts, change, samples))[0]

    return product


def _change(
    share: JaxShare, outputs: Callable[[Array], list], x: Array, v: Array, parts: list, back: Callable
) -> list:
    """Return J v; of functions with a `custom_vjp`, which have no forward mode, by the derivative of Jᵀu by u."""
    try:
        return share.jax.jvp(outputs, (x,), (v,))[1]
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
    zeros = [share.jax.numpy.zeros_like(part) for part in parts]
    return share.jax.vjp(lambda u: back(u)[0], zeros)[1](v)[0]


def _along_loss(share: JaxShare, split: SplitOutputs, parts: list, change: list, samples: Samples) -> list:
    slope = share.jax.grad(lambda at: share.weighted_loss(split.rebuilt(at), samples))
    return share.jax.jvp(slope, (parts,), (change,))[1]


def _along_slopes(share: JaxShare, split: SplitOutputs, parts: list, change: list, samples: Samples) -> list:
    slopes, count = share.sample_slopes(split, parts, samples), len(samples[1])
    along = sum((slope * own).reshape(count, -1).sum(1) for slope, own in zip(slopes, change, strict=True))
    return [share.sample_weight * along.reshape(count, *(1,) * (slope.ndim - 1)) * slope for slope in slopes]


def _gradient_alone(share: JaxShare, x: Array, v: Array, samples: Samples) -> Array:
    """Return the gradient: what is evaluated where there are no products."""
    return share.jax.grad(lambda at: share.weighted_loss(share.outputs(at, samples), samples))(x)


_fisher_product = _between_jacobians(_along_slopes)


class _Curvature:
    """Products at a point, chunk of samples after chunk.

    Attributes
    ----------
    batch
        Most vectors that are multiplied at once.
    """

    def __init__(self, product: _Product, share: JaxShare, memory: int) -> None:
        self._share, jax = share, share.jax

        def many(x: Array, V: Array, samples: Samples) -> Array:
            return jax.vmap(lambda v: product(share, x, v, samples))(V)

        self._many = many
        self._compiled = jax.jit(many)
        self.batch = self._fit(memory) if share.samples else MOST_PRODUCTS

    def _fit(self, memory: int) -> int:
        """Choose the chunks of samples so that a product fits half of the memory; return the batch."""
        share = self._share
        few, many = (min(count, share.samples) for count in (_FEW, 2 * _FEW))
        fixed, each = linear_cost(self._bytes, few, many)
        share.chunk = int(max(1, min(share.samples, (memory // 2 - fixed) // each)))
        batch = int(max(1, min(MOST_PRODUCTS, memory // (fixed + each * share.chunk))))
        return 1 << (batch.bit_length() - 1)

    def _bytes(self, samples: int) -> int:
        """Return what one product of so many samples needs."""
        share = self._share
        x = share.x.astype(share.precision)
        with share.precise():
            return value_bytes(share.jax.make_jaxpr(self._many)(x, x[None], share.part(0, samples)).jaxpr)

    def forget(self) -> None:
        """Keep what is compiled: it does not change, and that the model does is seen by its loss."""

    def products(self, x: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return (m, n) products of this rank's part of the curvature at x (n,) with directions (m, n)."""
        if not self._share.samples:
            return np.zeros(directions.shape)
        # Filled up to a power of two, so that there is not much to compile.
        count = len(directions)
        filled = np.zeros((1 << (count - 1).bit_length(), directions.shape[1]), self._share.precision)
        filled[:count] = directions
        return self._share.sum_over_chunks(self._compiled, x, filled)[:count]
