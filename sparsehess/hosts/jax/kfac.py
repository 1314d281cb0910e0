"""K-FAC and EKFAC of JAX models: Kronecker factors of linear and convolution layers.

Layers are found in the equations of the model for one sample (`jax_layers`). Their inputs, and the slopes of their
results, are those of these equations with something added to each result; see `factors` for the rest.
"""

from __future__ import annotations

from functools import partial

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.hosts.jax.equations import Program
from sparsehess.hosts.jax.layers import Layer, found
from sparsehess.hosts.jax.model_curvature import Share, held
from sparsehess.hosts.learning.kronecker_factors import Factors, Layers, roots
from sparsehess.hosts.learning.sample_shares import check_parts
from sparsehess.runtime import agreement, communicator, optional
from sparsehess.runtime.validation import evaluating


def kfac(apply, loss, params, inputs, targets, **options) -> Layers:
    """Return K-FAC: for each linear and convolution layer G ⊗ A, G of slopes by outputs and A of inputs.

    Collective on `comm`. The caller closes it.

    Parameters
    ----------
    apply, loss, params, inputs, targets, parameters, reduction, device, comm
        As for `jax_model.hessian`; `apply` and `loss` must work for one sample too, with a first axis of length 1.
        A layer is a parameter that is multiplied by (`dot_general`, all axes of its other factor that are not
        summed over are positions) or convolved with (`conv_general_dilated`), and the bias that is added to the
        result, also after a residual, if there is one. It may be applied several times. It is called by where its
        parameters are in the tree, `dense` for `dense/kernel` and `dense/bias`, or by its weight if others are
        there too. Parameters in loops (`scan`), in functions with derivatives of their own (`custom_vjp`), with a
        matrix for each position, and those that are no factors are in no layer: `Layers.uncovered` names them.
    curvature, sharing, memory
        As for `torch_factors.kfac`.

    Raises
    ------
    StackError
        JAX is not installed.
    InputError
        No layer that has factors, parameters in two layers or in a layer and elsewhere, convolutions in groups, a
        loss that is not convex.
    CheckError
        As for `jax_model.hessian`.
    """
    return _Factors(apply, loss, params, inputs, targets, **options).kfac()


def ekfac(apply, loss, params, inputs, targets, **options) -> Layers:
    """Return EKFAC: K-FAC with the eigenvalues that are best for its eigenvectors.

    Collective on `comm`. The caller closes it. They are the diagonal of QᵀHQ, H the curvature of a layer: its
    trace is that of H. Two passes over the samples. Arguments and errors are those of `kfac`.
    """
    return _Factors(apply, loss, params, inputs, targets, **options).ekfac()


class _Factors(Factors):
    def __init__(
        self,
        apply,
        loss,
        params,
        inputs,
        targets,
        *,
        parameters=None,
        curvature: str = "gauss-newton",
        sharing: str = "expand",
        reduction: str = "mean",
        memory: int = 2**29,
        device=None,
        comm=None,
    ):
        self.jax = jax = optional("jax", "K-FAC of a JAX model", "jax")
        comm, name = communicator(comm), getattr(apply, "__name__", "JAX model")
        super().__init__(comm, curvature=curvature, sharing=sharing, reduction=reduction, memory=memory)
        with agreement(comm):
            self.share = share = Share(jax, apply, loss, params, inputs, targets, parameters, "float64", device)
        self.names, self.n = [*share.slices], len(share.x)
        self.total = comm.allreduce(share.samples)
        if not self.total:
            raise InputError("no rank has a sample")
        mean, layers = reduction == "mean", None
        with agreement(comm), evaluating(name):
            share.weigh(1 / self.total if mean else None)
            self.weight = share.weight(1)
            if share.samples:
                layers = self._found(name)
            check_parts(share.value_of, share.samples, mean=mean, name=name)
        # A rank without samples may have inputs of any shape, and finds nothing by itself.
        first = comm.allreduce(comm.rank if share.samples else comm.size, op=MPI.MIN)
        self.layers: list[Layer] = comm.bcast(layers, root=first)
        self._calls = [call for layer in self.layers for call in layer.calls]
        with agreement(comm), evaluating(name):
            if share.samples:
                self._prepare()

    def _found(self, name: str) -> list[Layer]:
        """Return the layers of the model, whose equations for one sample are kept."""
        jax, share = self.jax, self.share
        inputs = share.part(0, 1)[0]
        with share.precise():
            all_of_them = jax.eval_shape(share.applied, share.leaves, share.part(0, share.samples)[0])
            closed, shape = jax.make_jaxpr(share.applied, return_shape=True)(share.leaves, inputs)
        if not hasattr(shape, "shape"):
            raise InputError(f"{name} must return an array, not {type(shape).__name__}")
        if (share.samples, *shape.shape[1:]) != all_of_them.shape or shape.shape[:1] != (1,):
            raise InputError(
                f"{share.samples} samples have outputs {all_of_them.shape}, one alone has {shape.shape}: their "
                "first axis must be samples"
            )
        self._program, self._outputs = Program(closed), shape.shape
        layers = found(self._program, share.names, share.slices)
        if not layers:
            raise InputError(f"{name} has no linear or convolution layer whose parameters are wanted")
        return layers

    def _prepare(self) -> None:
        """Compile what samples need, and choose chunks of them that fit the memory."""
        jax, share = self.jax, self.share
        ask = self._curved if self._curvature == "gauss-newton" else self._sloped
        self._asked = jax.jit(jax.vmap(ask, in_axes=(None, 0, 0)))
        self._shown = jax.jit(jax.vmap(self._seen, in_axes=(None, 0, 1), out_axes=(0, 1)))
        one, two = (self._taken(count) for count in (1, 2))
        fixed, each = max(0, 2 * one - two), max(1, two - one)
        share.chunk = int(max(1, min(share.samples, (self._memory // 2 - fixed) // each)))

    def _taken(self, samples: int) -> int:
        """Return the bytes of all values that so many samples need."""
        jax, share = self.jax, self.share

        def like(array):
            return jax.ShapeDtypeStruct((samples, *array.shape[1:]), array.dtype)

        many = int(np.prod(self._outputs)) if self._curvature == "gauss-newton" else 1
        inputs, targets = jax.tree_util.tree_map(like, share.part(0, 1))
        vectors = jax.ShapeDtypeStruct((many, samples, *self._outputs), np.float64)
        with share.precise():
            return sum(
                held(jax.make_jaxpr(function)(share.leaves, inputs, last).jaxpr)
                for function, last in ((self._asked, targets), (self._shown, vectors))
            )

    # --- functions of one sample, without an axis for it ---

    def _run(self, leaves, sample, added=()):
        """Return the outputs, and what layers are given."""
        inputs = [one[None] for one in self.jax.tree_util.tree_leaves(sample)]
        watched = [(call.equation, call.operand) for call in self._calls] if added else []
        (outputs,), given = self._program.run([*leaves, *inputs], watched, added)
        return outputs, given

    def _sloped(self, leaves, sample, target):
        """Return the gradient of the loss by the outputs."""
        outputs, _ = self._run(leaves, sample)
        return self.jax.grad(lambda z: self.share.of_outputs(z, target[None]))(outputs)

    def _curved(self, leaves, sample, target):
        """Return the Hessian of the loss by the outputs."""
        outputs, _ = self._run(leaves, sample)
        return self.jax.hessian(lambda z: self.share.of_outputs(z, target[None]))(outputs)

    def _seen(self, leaves, sample, vectors):
        """Return for each layer inputs (positions, inner), and slopes (k, positions, outer) of k vectors."""
        jax, calls = self.jax, self._calls
        results = (self._program.equations[call.equation].source.outvars[0].aval for call in calls)
        zeros = [jax.numpy.zeros(result.shape, result.dtype) for result in results]
        outputs, back, given = jax.vjp(lambda added: self._run(leaves, sample, added), zeros, has_aux=True)
        (slopes,) = jax.vmap(back)(vectors.astype(outputs.dtype))
        a = [layer.inputs(jax, own) for layer, own in self._by_layer(given)]
        g = [jax.vmap(partial(layer.slopes, jax))(own) for layer, own in self._by_layer(slopes)]
        return a, g

    def _by_layer(self, of_calls: list) -> list[tuple[Layer, list]]:
        every = iter(of_calls)
        return [(layer, [next(every) for _ in layer.calls]) for layer in self.layers]

    # --- all samples ---

    def _vectors(self, inputs, targets) -> np.ndarray:
        """Return vectors (k, samples, *outputs) whose squares are what stands between Jᵀ and J."""
        found = np.asarray(self._asked(self.share.leaves, inputs, targets), np.float64)
        if self._curvature == "gauss-newton":
            size = int(np.prod(self._outputs))
            found = roots(found.reshape(len(targets), size, size))
        return found.reshape(-1, len(targets), *self._outputs)

    def _passes(self, visit) -> None:
        with self.share.precise():
            for inputs, targets in self.share.parts():
                every_a, every_g = self._shown(self.share.leaves, inputs, self._vectors(inputs, targets))
                for number, (a, g) in enumerate(zip(every_a, every_g, strict=True)):
                    visit(number, a, list(g))

    def _brought(self, array: np.ndarray):
        with self.share.precise():
            return self.jax.numpy.asarray(array)

    def _fetched(self, array) -> np.ndarray:
        return np.asarray(array)
