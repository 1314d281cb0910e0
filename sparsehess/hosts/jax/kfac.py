"""K-FAC and EKFAC of JAX models: Kronecker factors of linear and convolution layers.

Layers are found in the equations of the model for one sample. Their inputs, and the slopes of their results, are
those of these equations with something added to each result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.hosts.jax.equations import Program, value_bytes
from sparsehess.hosts.jax.layers import Layer, find_layers
from sparsehess.hosts.jax.model_share import JaxShare
from sparsehess.hosts.jax.split_outputs import SplitOutputs
from sparsehess.hosts.learning.host_errors import explain_host_errors
from sparsehess.hosts.learning.kronecker_factors import (
    FactorOptions,
    KroneckerFactors,
    ModelFactorOptions,
    root_vectors,
)
from sparsehess.hosts.learning.layer_blocks import LayerBlocks
from sparsehess.hosts.learning.model_share import linear_cost
from sparsehess.hosts.learning.parameter_groups import Selection
from sparsehess.runtime import agreement, optional

if TYPE_CHECKING:
    from jax import Array


def kfac(
    apply: Callable[[Any, Any], Array],
    loss: Callable[[Array, Any], Array],
    params: Any,
    inputs: Any,
    targets: Any,
    **options: Unpack[ModelFactorOptions],
) -> LayerBlocks:
    """Return K-FAC: for each linear and convolution layer G ⊗ A, G of slopes by outputs and A of inputs.

    Collective on `comm`. The caller closes it.

    Parameters
    ----------
    apply, loss, params, inputs, targets, parameters, reduction, device, comm
        As for `hosts.jax.model_curvature.hessian`; `apply` and `loss` must work for one sample too, with a first
        axis of length 1. A layer is a parameter that is multiplied by (`dot_general`, all axes of its other factor
        that are not summed over are positions) or convolved with (`conv_general_dilated`), and the bias that is
        added to the result, also after a residual, if there is one. It may be applied several times. Its name is
        where its parameters are in the tree, `dense` for `dense/kernel` and `dense/bias`, or its weight's if
        others are there too. Parameters in loops (`scan`), in functions with derivatives of their own
        (`custom_vjp`), with a matrix for each position, and those that are no factors are in no layer:
        `LayerBlocks.uncovered` names them.
    curvature
        What it approximates: `gauss-newton` (default), with a backward pass for each output, or
        `empirical fisher`, with one.
    sharing
        `expand` (default): A = mean of a aᵀ over samples and positions, G = mean over samples of the sum of g gᵀ
        over positions. `reduce`: the same of the mean of a and the sum of g over positions.
    memory
        Bytes that inputs and slopes of layers may take on a device at a time, default 2**29.

    Returns
    -------
    blocks
        A `Kronecker` product for each layer, at the layer's variables.

    Raises
    ------
    StackError
        JAX is not installed.
    InputError
        No layer that has factors, parameters in two layers or in a layer and elsewhere, convolutions in groups, a
        loss that is not convex.
    CheckError
        As for `hosts.jax.model_curvature.hessian`.

    References
    ----------
    Martens, Grosse, Optimizing neural networks with Kronecker-factored approximate curvature, ICML (2015).
    Grosse, Martens, A Kronecker-factored approximate Fisher matrix for convolution layers, ICML (2016).
    Eschenhagen et al., Kronecker-factored approximate curvature for modern neural network architectures,
    NeurIPS (2023), section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.hosts.jax.kfac import kfac
    >>> inputs = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> loss = lambda outputs, targets: ((outputs - targets) ** 2).mean()
    >>> with kfac(lambda w, x: x @ w, loss, np.ones((2, 1)), inputs, np.zeros((2, 1))) as blocks:
    ...     blocks.diagonal().round(6)
    array([1., 4.])
    """
    return _JaxFactors(apply, loss, params, inputs, targets, **options).kfac()


def ekfac(
    apply: Callable[[Any, Any], Array],
    loss: Callable[[Array, Any], Array],
    params: Any,
    inputs: Any,
    targets: Any,
    **options: Unpack[ModelFactorOptions],
) -> LayerBlocks:
    """Return EKFAC: K-FAC with the eigenvalues that are best for its eigenvectors.

    Collective on `comm`. The caller closes it. They are the diagonal of QᵀHQ, H the curvature of a layer: its
    trace is that of H. Two passes over the samples.

    Parameters
    ----------
    apply, loss, params, inputs, targets, options
        As for `kfac`.

    Returns
    -------
    blocks
        An `EigenCorrected` for each layer, at the layer's variables.

    Raises
    ------
    StackError, InputError, CheckError
        As for `kfac`.

    References
    ----------
    George et al., Fast approximate natural gradient descent in a Kronecker-factored eigenbasis, NeurIPS (2018).

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.hosts.jax.kfac import ekfac
    >>> inputs = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> loss = lambda outputs, targets: ((outputs - targets) ** 2).mean()
    >>> with ekfac(lambda w, x: x @ w, loss, np.ones((2, 1)), inputs, np.zeros((2, 1))) as blocks:
    ...     round(blocks.trace(), 6)
    5.0
    """
    return _JaxFactors(apply, loss, params, inputs, targets, **options).ekfac()


class _JaxFactors(KroneckerFactors[JaxShare]):
    layers: list[Layer]

    def __init__(
        self,
        apply: Callable[[Any, Any], Array],
        loss: Callable[[Array, Any], Array],
        params: Any,
        inputs: Any,
        targets: Any,
        *,
        parameters: Selection = None,
        device: Any = None,
        **options: Unpack[FactorOptions],
    ) -> None:
        self.jax = jax = optional("jax", "K-FAC of a JAX model", "jax")

        def make_share() -> JaxShare:
            return JaxShare(jax, apply, loss, params, inputs, targets, parameters, "float64", device)

        super().__init__(make_share, str(getattr(apply, "__name__", "JAX model")), **options)
        layers: list[Layer] = []
        with agreement(self.comm), explain_host_errors(self.name):
            if self.share.samples:
                layers = self._find_layers()
        # A rank without samples may have inputs of any shape, and finds nothing by itself.
        first = self.comm.allreduce(self.comm.rank if self.share.samples else self.comm.size, op=MPI.MIN)
        self.layers = self.comm.bcast(layers, root=first)
        self._calls = [call for layer in self.layers for call in layer.calls]
        with agreement(self.comm), explain_host_errors(self.name):
            if self.share.samples:
                self._prepare()
        self._check_loss()

    def _find_layers(self) -> list[Layer]:
        """Return the layers of the model, whose equations for one sample are kept."""
        jax, share, name = self.jax, self.share, self.name
        inputs = share.part(0, 1)[0]
        with share.precise():
            all_of_them = jax.eval_shape(self._joined, share.leaves, share.part(0, share.samples)[0])
            closed, shape = jax.make_jaxpr(self._joined, return_shape=True)(share.leaves, inputs)
        if (share.samples, *shape.shape[1:]) != all_of_them.shape or shape.shape[:1] != (1,):
            raise InputError(
                f"{share.samples} samples have outputs {all_of_them.shape}, one alone has {shape.shape}: their "
                "first axis must be samples"
            )
        self._program, self._outputs = Program(closed), shape.shape
        layers = find_layers(self._program, share.leaf_names, share.slices)
        if not layers:
            raise InputError(f"{name} has no linear or convolution layer whose parameters are wanted")
        return layers

    def _prepare(self) -> None:
        """Compile what samples need, and choose chunks of them that fit the memory."""
        jax, share = self.jax, self.share
        ask = self._loss_hessian if self._curvature == "gauss-newton" else self._slope
        self._curvatures = jax.jit(jax.vmap(ask, in_axes=(None, 0, 0)))
        self._values = jax.jit(jax.vmap(self._layer_values, in_axes=(None, 0, 1), out_axes=(0, 1)))
        fixed, each = linear_cost(self._bytes, 1, 2)
        share.chunk = int(max(1, min(share.samples, (self._memory // 2 - fixed) // each)))

    def _bytes(self, samples: int) -> int:
        """Return the bytes of all values that so many samples need."""
        jax, share = self.jax, self.share

        def like(array: np.ndarray) -> Any:
            return jax.ShapeDtypeStruct((samples, *array.shape[1:]), array.dtype)

        many = int(np.prod(self._outputs)) if self._curvature == "gauss-newton" else 1
        inputs, targets = jax.tree_util.tree_map(like, share.part(0, 1)[:2])
        vectors = jax.ShapeDtypeStruct((many, samples, *self._outputs), np.float64)
        with share.precise():
            return sum(
                value_bytes(jax.make_jaxpr(function)(share.leaves, inputs, last).jaxpr)
                for function, last in ((self._curvatures, targets), (self._values, vectors))
            )

    # --- functions of one sample, without an axis for it ---

    def _joined(self, leaves: Sequence[Any], inputs: Any) -> Array:
        """Return all outputs for some inputs as one array."""
        split = SplitOutputs(self.jax, self.share.apply_to(leaves, inputs))
        return split.joined(split.parts)

    def _loss(self, leaves: Sequence[Any], sample: Any, target: Array) -> Callable[[Array], Array]:
        """Return the loss of a sample as a function of its outputs as one array."""
        inputs = self.jax.tree_util.tree_map(lambda one: one[None], sample)
        split = SplitOutputs(self.jax, self.share.apply_to(leaves, inputs))
        return lambda z: self.share.loss_of_outputs(split.rebuilt(split.separated(z)), target[None])

    def _run(self, leaves: Sequence[Array], sample: Any, added: Sequence[Array] = ()) -> tuple[Array, list]:
        """Return the outputs, and what layers are given."""
        inputs = [one[None] for one in self.jax.tree_util.tree_leaves(sample)]
        watched = [(call.equation, call.operand) for call in self._calls] if added else []
        (outputs,), given = self._program.run([*leaves, *inputs], watched, added)
        return outputs, given

    def _slope(self, leaves: Sequence[Array], sample: Any, target: Array) -> Array:
        """Return the gradient of the loss by the outputs."""
        outputs, _ = self._run(leaves, sample)
        return self.jax.grad(self._loss(leaves, sample, target))(outputs)

    def _loss_hessian(self, leaves: Sequence[Array], sample: Any, target: Array) -> Array:
        """Return the Hessian of the loss by the outputs."""
        outputs, _ = self._run(leaves, sample)
        return self.jax.hessian(self._loss(leaves, sample, target))(outputs)

    def _layer_values(self, leaves: Sequence[Array], sample: Any, vectors: Array) -> tuple[list, list]:
        """Return for each layer inputs (positions, inner), and slopes (k, positions, outer) of k vectors."""
        jax, calls = self.jax, self._calls
        results = (self._program.equations[call.equation].source.outvars[0].aval for call in calls)
        zeros = [jax.numpy.zeros(result.shape, result.dtype) for result in results]
        outputs, back, given = jax.vjp(lambda added: self._run(leaves, sample, added), zeros, has_aux=True)
        (slopes,) = jax.vmap(back)(vectors.astype(outputs.dtype))
        a = [layer.inputs(jax, own) for layer, own in self._by_layer(given)]
        g = [jax.vmap(partial(layer.slopes, jax))(own) for layer, own in self._by_layer(slopes)]
        return a, g

    def _by_layer(self, of_calls: Sequence[Array]) -> list[tuple[Layer, list]]:
        every = iter(of_calls)
        return [(layer, [next(every) for _ in layer.calls]) for layer in self.layers]

    # --- all samples ---

    def _vectors(self, inputs: Any, targets: np.ndarray) -> np.ndarray:
        """Return vectors (k, samples, *outputs) whose squares are what stands between Jᵀ and J."""
        found = np.asarray(self._curvatures(self.share.leaves, inputs, targets), np.float64)
        if self._curvature == "gauss-newton":
            size = int(np.prod(self._outputs))
            found = root_vectors(found.reshape(len(targets), size, size))
        return found.reshape(-1, len(targets), *self._outputs)

    def _visit_chunks(self, visit: Callable[[int, Array, list[Array]], None]) -> None:
        with self.share.precise():
            for inputs, targets, _ in (self.share.part(*ends) for ends in self.share.chunks()):
                every_a, every_g = self._values(self.share.leaves, inputs, self._vectors(inputs, targets))
                for number, (a, g) in enumerate(zip(every_a, every_g, strict=True)):
                    visit(number, a, list(g))

    def _to_host(self, array: np.ndarray) -> Array:
        with self.share.precise():
            return self.jax.numpy.asarray(array)

    def _to_numpy(self, array: Array) -> np.ndarray:
        return np.asarray(array)
