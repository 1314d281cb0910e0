"""Curvature of a JAX model on data: Hessian, Gauss–Newton matrix, empirical Fisher matrix.

Each rank has its samples, and every product is summed over ranks once. Functions are compiled once for each number
of samples and of vectors; vectors of a batch share what depends on the point alone.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from functools import partial
from itertools import pairwise

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError
from sparsehess.hosts.jax.features import double, inside
from sparsehess.hosts.jax.objective import PRODUCTS
from sparsehess.hosts.learning.sample_shares import REDUCTIONS, check_parts, check_products, selected
from sparsehess.runtime import agreement, communicator, optional
from sparsehess.runtime.validation import evaluating, whole_number

# Samples by which the memory of a product is estimated, and how many products a batch has at most.
_FEW, _MOST = 8, 64


def hessian(apply, loss, params, inputs, targets, **options) -> Objective:
    """Return the objective of a model's loss on data: the Hessian by its parameters.

    Collective on `comm`. Its products are exact, forward over reverse mode.

    Parameters
    ----------
    apply
        `apply(params, inputs) -> outputs`, traceable, samples along the first axis.
    loss
        `loss(outputs, targets) -> scalar`, the mean or the sum over samples.
    params
        Where the curvature is taken: a tree of arrays. Those of floating point are the variables, one after
        another in the order of JAX.
    inputs, targets
        This rank's samples, arrays with the same first axis. Ranks may have different numbers of them, or none.
    parameters
        Which arrays are the variables: None for all, a predicate of a name such as `dense/kernel`, or a regular
        expression or a list of them. All others are frozen.
    reduction
        What the loss is over samples: `mean` or `sum`. It is checked.
    products
        Precision of products: float64, or float32 with everything around them in float64; say so to
        `MatrixFree(objective, precision="single")` too.
    memory
        Bytes that a batch of products may take on a device. Samples are worked on in chunks that fit.
    device
        A JAX device; default JAX's own choice.
    name
        For reports.
    comm
        Communicator.

    Raises
    ------
    StackError
        JAX is not installed.
    InputError
        No samples, parameters that cannot be used.
    CheckError
        Products that are not deterministic, not symmetric, or not finite; a loss that is not the mean or the sum
        over samples.
    """
    return _objective(_along_slope, apply, loss, params, inputs, targets, **options)


def gauss_newton(apply, loss, params, inputs, targets, **options) -> Objective:
    """Return an objective of products alone: those of the Gauss–Newton matrix, mean of JᵀLJ.

    Collective on `comm`. See `torch_model.gauss_newton`; arguments and errors are those of `hessian`.
    """
    return _objective(_between_jacobians(_by_loss), apply, loss, params, inputs, targets, **options)


def empirical_fisher(apply, loss, params, inputs, targets, **options) -> Objective:
    """Return an objective of products alone: those of the mean of g gᵀ over gradients g of samples.

    Collective on `comm`. See `torch_model.empirical_fisher`; arguments and errors are those of `hessian`.
    """
    return _objective(_between_jacobians(_by_slopes), apply, loss, params, inputs, targets, **options)


def names(params) -> list[str]:
    """Return the names of the arrays of a tree that may be variables, in the order of JAX.

    Not collective.
    """
    import jax

    return [_name(path) for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0] if _is_real(leaf)]


def blocks(params, parameters=None) -> dict[str, slice]:
    """Return which variables the arrays of a tree are: a slice for each name, those that are chosen.

    Not collective.
    """
    import jax

    leaves = {_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}
    found, begin = {}, 0
    for name in selected(names(params), parameters):
        found[name] = slice(begin, begin + int(np.size(leaves[name])))
        begin = found[name].stop
    return found


def _name(path) -> str:
    keys = (getattr(part, "key", getattr(part, "name", getattr(part, "idx", part))) for part in path)
    return "/".join(str(key) for key in keys)


def _is_real(leaf) -> bool:
    return np.issubdtype(np.asarray(leaf).dtype, np.floating)


# --- products of some samples: functions of (jax, model, x, v) ---


def _along_slope(jax, model, x, v, chunk):
    slope = jax.grad(lambda at: model.weighted_loss(model.outputs(at, chunk), chunk))
    return jax.jvp(slope, (x,), (v,))[1]


def _between_jacobians(inner):
    """Return the product Jᵀ L J v, L given by inner(jax, model, outputs, change, chunk)."""

    def product(jax, model, x, v, chunk):
        outputs = partial(model.outputs, chunk=chunk)
        z, change = jax.jvp(outputs, (x,), (v,))
        return jax.vjp(outputs, x)[1](inner(jax, model, z, change, chunk))[0]

    return product


def _by_loss(jax, model, z, change, chunk):
    return jax.jvp(jax.grad(lambda at: model.weighted_loss(at, chunk)), (z,), (change,))[1]


def _by_slopes(jax, model, z, change, chunk):
    if not z.ndim or len(z) != len(chunk[1]):
        raise InputError(f"{len(chunk[1])} samples have outputs {z.shape}: their first axis must be samples")
    slope = model.slopes(z, chunk)
    along = (slope * change).sum(tuple(range(1, z.ndim)), keepdims=True)
    return model.weight(1) * along * slope


class Share:
    """A model and this rank's samples at one precision.

    Attributes
    ----------
    leaves, names
        All arrays of the parameters, and their names; None for those that are not of floating point.
    slices
        Which variables the entries of those that are chosen are.
    x
        (n,) where the model is at first.
    samples
        How many.
    chunk
        How many are worked on at a time, at most.
    """

    def __init__(self, jax, apply, loss, params, inputs, targets, parameters, precision: str, device):
        self.jax, self._apply, self._loss, self.precision = jax, apply, loss, precision
        self._device = device
        leaves, self._tree = jax.tree_util.tree_flatten_with_path(params)
        self.slices = blocks(params, parameters)
        self.names = [_name(path) if _is_real(leaf) else None for path, leaf in leaves]
        self._places = [number for number, name in enumerate(self.names) if name in self.slices]
        self.leaves = [self._brought(leaf) for _, leaf in leaves]
        self._inputs = jax.tree_util.tree_map(self._brought, inputs)
        self._targets = self._brought(targets)
        if not self._targets.ndim or not self._places:
            raise InputError(
                "a model needs targets with samples along the first axis, and arrays of floating point"
            )
        self.samples = self.chunk = len(self._targets)
        if any(len(one) != self.samples for one in jax.tree_util.tree_leaves(self._inputs)):
            raise InputError(f"inputs have not the {self.samples} samples of the targets")
        self._sizes = [self.leaves[place].size for place in self._places]
        self.x = np.concatenate([np.asarray(self.leaves[place], np.float64).ravel() for place in self._places])
        self._part: float | None = None

    def _brought(self, array):
        array = np.asarray(array)
        return array.astype(self.precision) if np.issubdtype(array.dtype, np.floating) else array

    def weigh(self, part: float | None) -> None:
        """Say what part of all a sample is, for means; None for sums."""
        self._part = part

    def weight(self, count: int) -> float:
        """Return by what the loss of some samples is multiplied in the whole."""
        return 1.0 if self._part is None else count * self._part

    def part(self, first: int, last: int) -> tuple:
        """Return (inputs, targets) of some samples."""
        return self.jax.tree_util.tree_map(lambda one: one[first:last], self._inputs), self._targets[first:last]

    def parts(self) -> list[tuple]:
        """Return all samples in chunks, about as large as each other."""
        if not self.samples:
            return []
        edges = np.linspace(0, self.samples, -(-self.samples // self.chunk) + 1).astype(int)
        return [self.part(*ends) for ends in pairwise(edges)]

    def outputs(self, x, chunk):
        """Return what the model gives for some samples at x (n,)."""
        leaves, pieces = list(self.leaves), self.jax.numpy.split(x, np.cumsum(self._sizes)[:-1])
        for place, piece in zip(self._places, pieces, strict=True):
            leaves[place] = piece.reshape(leaves[place].shape)
        return self.applied(leaves, chunk[0])

    def applied(self, leaves, inputs):
        """Return what the model gives for some inputs with arrays in the place of its own."""
        return self._apply(self.jax.tree_util.tree_unflatten(self._tree, leaves), inputs)

    def of_outputs(self, outputs, targets):
        """Return the loss of outputs, as the user's function has it."""
        value = self.jax.numpy.asarray(self._loss(outputs, targets))
        if value.size != 1:
            raise InputError(f"the loss must return one number, not {value.shape}: take its mean over samples")
        return value.reshape(())

    def weighted_loss(self, outputs, chunk):
        """Return what some samples contribute to the whole."""
        return self.weight(len(chunk[1])) * self.of_outputs(outputs, chunk[1])

    def slopes(self, outputs, chunk):
        """Return the gradients of the loss of each sample by its outputs."""
        count = 1 if self._part is None else len(chunk[1])
        return self.jax.grad(lambda at: count * self._loss(at, chunk[1]))(outputs)

    def precise(self):
        """Return a context with double precision and the device, for the length of a call."""
        stack = ExitStack()
        stack.enter_context(double())
        stack.enter_context(self.jax.default_device(self._device) if self._device is not None else nullcontext())
        return stack

    def value_of(self, first: int, last: int) -> float:
        """Return the loss of some samples where the model was at first."""
        chunk = self.part(first, last)
        with self.precise():
            outputs = self.outputs(self.x.astype(self.precision), chunk)
            return float(self.weighted_loss(outputs, chunk)) / self.weight(last - first)


def _objective(
    product,
    apply,
    loss,
    params,
    inputs,
    targets,
    *,
    parameters=None,
    reduction: str = "mean",
    products: str = "float64",
    memory: int = 2**29,
    device=None,
    name: str | None = None,
    comm=None,
) -> Objective:
    jax = optional("jax", "curvature of a JAX model", "jax")
    comm = communicator(comm)
    for value, known in ((products, PRODUCTS), (reduction, REDUCTIONS)):
        if value not in known:
            raise InputError(f"{value!r} is none of {', '.join(known)}")
    name = name or getattr(apply, "__name__", "JAX model")
    with agreement(comm):
        given = (jax, apply, loss, params, inputs, targets, parameters)
        exact = Share(*given, "float64", device)
        fast = exact if products == "float64" else Share(*given, products, device)
    total = comm.allreduce(exact.samples)
    if not total:
        raise InputError("no rank has a sample")
    whole = product is _along_slope

    def compiled(model, function):
        return jax.jit(lambda x, *v_and_chunk: function(model, x, *v_and_chunk))

    with agreement(comm), evaluating(name):
        whole_number(memory, "memory", 1)
        for model in {exact, fast}:
            model.weigh(1 / total if reduction == "mean" else None)
        check_parts(exact.value_of, exact.samples, mean=reduction == "mean", name=name)

        def many(model, x, V, chunk):
            return jax.vmap(lambda v: product(jax, model, x, v, chunk))(V)

        batch = _fitted(jax, fast, many, memory)
        exact.chunk = fast.chunk if exact is fast else max(1, fast.chunk // 2)
        functions = {
            "products": compiled(fast, many),
            "energy": compiled(exact, lambda model, x, chunk: model.weighted_loss(model.outputs(x, chunk), chunk)),
        }
        functions["gradient"] = jax.grad(functions["energy"])

        def total_of(model, function, x, *more):
            with model.precise():
                found = [
                    np.asarray(function(x.astype(model.precision), *more, chunk), np.float64)
                    for chunk in model.parts()
                ]
            return sum(found)

        def hvps(x, V):
            if not fast.samples:
                return np.zeros(V.shape)
            # Filled up to a power of two, so that there is not much to compile.
            filled = np.zeros((1 << (len(V) - 1).bit_length(), V.shape[1]), fast.precision)
            filled[: len(V)] = V
            return total_of(fast, functions["products"], x, filled)[: len(V)]

        if exact.samples:
            # What is compiled does not change: that the model does was seen by its loss.
            check_products(lambda: partial(hvps, fast.x), len(fast.x), precision=products, name=name)
    more = {}
    if whole:
        more["energy"] = lambda x: float(total_of(exact, functions["energy"], x))
        more["gradient"] = lambda x: total_of(exact, functions["gradient"], x) + np.zeros(len(exact.x))
    return Objective(
        x=exact.x,
        hvps=hvps,
        batch=comm.allreduce(batch, op=MPI.MIN),
        summed=True,
        name=name,
        comm=comm,
        **more,
    )


def _fitted(jax, model: Share, many, memory: int) -> int:
    """Choose the chunks of samples of a model so that a product fits half of the memory; return the batch."""
    few = min(_FEW, model.samples)
    if not few:
        return _MOST

    def taken(samples: int) -> int:
        x = model.x.astype(model.precision)
        with model.precise():
            return held(jax.make_jaxpr(partial(many, model))(x, x[None], model.part(0, samples)).jaxpr)

    twice = min(2 * few, model.samples)
    small, large = taken(few), taken(twice)
    each = max(1, (large - small) // max(1, twice - few))
    fixed = max(0, small - each * few)
    model.chunk = int(max(1, min(model.samples, (memory // 2 - fixed) // each)))
    batch = int(max(1, min(_MOST, memory // (fixed + each * model.chunk))))
    return 1 << (batch.bit_length() - 1)


def held(jaxpr) -> int:
    """Return the bytes of all values in between: more than a compiler keeps at a time."""
    total = 0
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            total += variable.aval.size * variable.aval.dtype.itemsize
        total += sum(map(held, inside(equation)))
    return total
