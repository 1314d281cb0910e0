"""`JaxShare`: a JAX model with this rank's samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.errors import InputError
from sparsehess.hosts.jax.features import double_precision, jaxpr_constants
from sparsehess.hosts.jax.parameters import is_array, is_complex, is_real, named_leaves, parameter_slices
from sparsehess.hosts.jax.split_outputs import SplitOutputs
from sparsehess.hosts.learning.model_share import ModelShare, SampleArrays
from sparsehess.hosts.learning.parameter_groups import Selection

if TYPE_CHECKING:
    from jax import Array

# Inputs, a tree of arrays, and targets of some samples; what part of the whole their loss is.
Samples = tuple[Any, np.ndarray, Any]


class JaxShare(ModelShare):
    """A model and this rank's samples at one precision, with the loss on them.

    Attributes
    ----------
    leaves, leaf_names
        All arrays of the parameters, and their names; None for those that are not of floating point. What is no
        array, such as a function, stays in the tree.
    precision
        Of the arrays.
    """

    def __init__(
        self,
        jax: ModuleType,
        apply: Callable[[Any, Any], Array],
        loss: Callable[[Array, Any], Array],
        params: Any,
        inputs: Any,
        targets: Any,
        parameters: Selection,
        precision: str,
        device: Any,
    ) -> None:
        self.jax, self._apply, self._loss, self.precision, self._device = jax, apply, loss, precision, device
        for what, function in (("apply", apply), ("the loss", loss)):
            if not callable(function):
                raise InputError(f"{what} must be a function, not {type(function).__name__}")
        every, self._tree = named_leaves(params), jax.tree_util.tree_structure(params)
        self._fixed = {number: leaf for number, (_, leaf) in enumerate(every) if not is_array(leaf)}
        leaves = [pair for number, pair in enumerate(every) if number not in self._fixed]
        slices = parameter_slices(params, parameters)
        self.leaf_names = [name if is_real(leaf) else None for name, leaf in leaves]
        self._places = [number for number, name in enumerate(self.leaf_names) if name in slices]
        self._own = [leaf for _, leaf in leaves]
        self.leaves = [self._converted(leaf) for leaf in self._own]
        self._inputs = jax.tree_util.tree_map(self._converted, inputs)
        self._targets = self._converted(targets)
        if not self._targets.ndim or not self._places:
            raise InputError(
                "a model needs targets with samples along the first axis, and arrays of floating point"
            )
        samples = len(self._targets)
        if any(len(one) != samples for one in jax.tree_util.tree_leaves(self._inputs)):
            raise InputError(
                f"inputs have not the {samples} samples of the targets: these are one array, with a mask or "
                "weights in a last axis of it"
            )
        self._ends = np.cumsum([self.leaves[place].size for place in self._places])[:-1]
        x = np.concatenate([np.asarray(self.leaves[place], np.float64).ravel() for place in self._places])
        super().__init__(slices, x, samples)
        # Compiled when they are first called, once for each number of samples.
        self._energy = jax.jit(lambda x, samples: self.weighted_loss(self.outputs(x, samples), samples))
        self._gradient = jax.grad(self._energy)
        self._both = jax.jit(jax.value_and_grad(self._energy))

    def settle_loss(self, of_outputs: bool) -> None:
        """Refuse a loss that has arrays of the parameters in it: they would not move with the variables.

        Not collective. Numbers that were made of them before are not seen.

        Raises
        ------
        InputError
            The loss reads an array that is one of the parameters.
        """
        if not self.samples:
            return
        inputs, targets, _ = self.part(0, min(2, self.samples))
        with self.precise():
            outputs = self.jax.eval_shape(self.apply_to, self.leaves, inputs)
            closed = self.jax.make_jaxpr(self._loss)(outputs, targets)
        for constant in jaxpr_constants(closed):
            for name, leaf in zip(self.leaf_names, self._own, strict=True):
                if name is not None and _is_same(constant, leaf):
                    raise InputError(
                        f"the loss reads {name} by itself, and that does not move with the variables: let `apply` "
                        "return what a penalty needs beside its outputs"
                    )

    def _converted(self, array: Any) -> np.ndarray:
        if is_real(array):
            return np.asarray(array).astype(self.precision)
        if is_complex(array):
            return np.asarray(array).astype("complex128" if self.precision == "float64" else "complex64")
        is_opaque = self.jax.dtypes.issubdtype(getattr(array, "dtype", np.bool_), self.jax.dtypes.extended)
        return array if is_opaque else np.asarray(array)  # a key of random numbers is no array of NumPy's

    def part(self, first: int, last: int) -> Samples:
        """Return (inputs, targets, weight) of a chunk of samples.

        Not collective.
        """
        inputs = self.jax.tree_util.tree_map(lambda one: one[first:last], self._inputs)
        return inputs, self._targets[first:last], np.asarray(self.weight(first, last), self.precision)

    def outputs(self, x: Array | np.ndarray, samples: Samples) -> Array:
        """Return what the model gives for some samples at x (n,).

        Not collective. It can be traced.
        """
        leaves = list(self.leaves)
        for place, piece in zip(self._places, self.jax.numpy.split(x, self._ends), strict=True):
            leaves[place] = piece.reshape(leaves[place].shape)
        return self.apply_to(leaves, samples[0])

    def apply_to(self, leaves: Sequence[Any], inputs: Any) -> Array:
        """Return what the model gives for some inputs with arrays in the place of its own.

        Not collective. It can be traced.
        """
        left = iter(leaves)
        count = len(leaves) + len(self._fixed)
        every = [self._fixed[number] if number in self._fixed else next(left) for number in range(count)]
        return self._apply(self.jax.tree_util.tree_unflatten(self._tree, every), inputs)

    def loss_of_outputs(self, outputs: Array, targets: Any) -> Array:
        """Return the loss of outputs, as the user's function has it.

        Not collective. It can be traced.
        """
        value = self.jax.numpy.asarray(self._loss(outputs, targets))
        if value.size != 1:
            raise InputError(f"the loss must return one number, not {value.shape}: take its mean over samples")
        return value.reshape(())

    def weighted_loss(self, outputs: Array, samples: Samples) -> Array:
        """Return what some samples contribute to the whole.

        Not collective. It can be traced.
        """
        return samples[2] * self.loss_of_outputs(outputs, samples[1])

    def split_outputs(self, x: Array | np.ndarray, samples: Samples) -> SplitOutputs:
        """Return what the model gives for some samples as real arrays.

        Not collective. It can be traced.
        """
        return SplitOutputs(self.jax, self.outputs(x, samples))

    def sample_slopes(self, split: SplitOutputs, parts: Sequence[Array], samples: Samples) -> list[Array]:
        """Return the gradients of the loss of each sample by real arrays of its outputs.

        Not collective. It can be traced.
        """
        count = len(samples[1])
        for part in parts:
            if not part.ndim or len(part) != count:
                raise InputError(f"{count} samples have outputs {part.shape}: their first axis must be samples")
        factor = 1 if self.is_sum else count
        loss = self.jax.grad(lambda at: factor * self.loss_of_outputs(split.rebuilt(at), samples[1]))
        return loss([*parts])

    def precise(self) -> ExitStack:
        """Return a context with double precision and the device, for the length of a call.

        Not collective.
        """
        stack = ExitStack()
        stack.enter_context(double_precision())
        if self._device is not None:
            stack.enter_context(self.jax.default_device(self._device))
        return stack

    def sum_over_chunks(self, function: Callable[..., Any], x: np.ndarray, *more: np.ndarray) -> np.ndarray:
        """Return the sum of function(x, *more, samples) over chunks of samples, of float64.

        Not collective.
        """
        with self.precise():
            at, parts = x.astype(self.precision), (self.part(*ends) for ends in self.chunks())
            return sum((np.asarray(function(at, *more, part), np.float64) for part in parts), np.zeros(()))

    def constants(self) -> dict[str, np.ndarray]:
        """Return arrays of floating point among the parameters that are no variables, by name.

        Not collective.
        """
        return {
            name: np.asarray(leaf, np.float64).ravel()
            for name, leaf in zip(self.leaf_names, self.leaves, strict=True)
            if name is not None and name not in self.slices
        }

    def pick(self, samples: np.ndarray) -> SampleArrays:
        """Return the arrays of some samples (m,), the targets last.

        Not collective.
        """
        return [one[samples] for one in (*self.jax.tree_util.tree_leaves(self._inputs), self._targets)]

    def _samples(self, arrays: SampleArrays) -> Samples:
        tree = self.jax.tree_util.tree_structure(self._inputs)
        return self.jax.tree_util.tree_unflatten(tree, arrays[:-1]), arrays[-1], np.asarray(1, self.precision)

    def value(self, x: np.ndarray, arrays: SampleArrays) -> float:
        """Return the loss at x (n,) of samples, of this rank or others.

        Not collective.
        """
        with self.precise():
            return float(self._energy(x.astype(self.precision), self._samples(arrays)))

    def value_anew(self, x: np.ndarray, arrays: SampleArrays) -> float:
        """Return `value` without what was compiled.

        Not collective.
        """
        samples = self._samples(arrays)
        with self.precise():
            return float(self.weighted_loss(self.outputs(x.astype(self.precision), samples), samples))

    def value_and_slope(self, x: np.ndarray, arrays: SampleArrays) -> tuple[float, np.ndarray]:
        """Return the loss at x (n,) of such samples, and its gradient (n,).

        Not collective.
        """
        with self.precise():
            value, slope = self._both(x.astype(self.precision), self._samples(arrays))
            return float(value), np.asarray(slope, np.float64)

    def weight_of(self, weight: Callable[[Any], Any], arrays: SampleArrays) -> Any:
        """Return weight(targets) of such samples.

        Not collective.
        """
        with self.precise():
            return weight(arrays[-1])

    def energy(self, x: np.ndarray) -> float:
        """Return this rank's part of the loss at x (n,).

        Not collective.
        """
        return float(self.sum_over_chunks(self._energy, x))

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Return (n,) this rank's part of the gradient at x (n,).

        Not collective.
        """
        return self.sum_over_chunks(self._gradient, x) + np.zeros(len(self.x))


def _is_same(constant: Any, leaf: Any) -> bool:
    """Return whether an array in a program is one of the caller's, or has its values, if these are not all one."""
    if constant is leaf:
        return True
    if np.shape(constant) != np.shape(leaf) or np.size(leaf) < 2 or not (is_real(constant) and is_real(leaf)):
        return False
    one, other = np.asarray(constant, np.float64), np.asarray(leaf, np.float64)
    return bool((other != other.flat[0]).any() and np.allclose(one, other, rtol=1e-6, atol=0))
