"""Curvature of a PyTorch model on data: Hessian, Gauss–Newton matrix, empirical Fisher matrix.

Each rank has its samples, and every product is summed over ranks once. What a product needs of the point alone,
the graph of the gradient or of the outputs, is made once for each point and kept where the memory allows.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError
from sparsehess.hosts.jax.objective import PRODUCTS
from sparsehess.hosts.learning.sample_shares import REDUCTIONS, check_parts, check_products, selected
from sparsehess.hosts.torch.parameters import (
    ARRAYS,
    GRAPHS,
    MOST,
    Leaves,
    batched,
    differentiable_attention,
    held,
    known_device,
)
from sparsehess.runtime import agreement, communicator, optional
from sparsehess.runtime.validation import evaluating, whole_number

# Samples by which the memory that a graph takes is measured.
_FEW = 8


def hessian(model, loss, inputs, targets, **options) -> Objective:
    """Return the objective of a model's loss on data: the Hessian by its parameters.

    Collective on `comm`. Its products are exact, by reverse mode twice (Pearlmutter 1994).

    Parameters
    ----------
    model
        `torch.nn.Module`. It is copied; yours stays as it is.
    loss
        `loss(outputs, targets) -> scalar tensor`, the mean or the sum over samples.
    inputs, targets
        This rank's samples, along the first axis: tensors or ndarrays; inputs may be a tuple of them, which the
        model is given one by one. Ranks may have different numbers of samples, or none. A mini-batch is a part
        of them (`learning.drawn`), a mean over mini-batches a `weighted_sum`.
    parameters
        Which parameters are the variables: None for all that require gradients, a predicate of a name, or a
        regular expression or a list of them. All others are frozen.
    reduction
        What the loss is over samples: `mean` or `sum`. It is checked.
    products
        Precision of products: float64, or float32 with everything around them in float64; say so to
        `MatrixFree(objective, precision="single")` too.
    memory
        Bytes that graphs and a batch of products may take on a device. Samples are worked on in chunks that fit.
    device
        A torch device; default where the model is.
    name
        For reports.
    comm
        Communicator.

    Raises
    ------
    StackError
        PyTorch is not installed.
    InputError
        No samples, parameters that cannot be used, a loss that is no number.
    CheckError
        Products that are not deterministic (dropout), not symmetric, or not finite; a loss that is not the mean or
        the sum over samples (batch normalisation in training mode).
    """
    return _objective(_Hessian, model, loss, inputs, targets, **options)


def gauss_newton(model, loss, inputs, targets, **options) -> Objective:
    """Return an objective of products alone: those of the Gauss–Newton matrix, mean of JᵀLJ.

    Collective on `comm`. J are derivatives of a sample's outputs, L is the Hessian of the loss by them; for
    exponential families with natural parameters, such as squared errors and cross-entropy, it is the Fisher matrix
    (Martens 2020, section 9). Arguments and errors are those of `hessian`.
    """
    return _objective(_GaussNewton, model, loss, inputs, targets, **options)


def empirical_fisher(model, loss, inputs, targets, **options) -> Objective:
    """Return an objective of products alone: those of the mean of g gᵀ over gradients g of samples.

    Collective on `comm`. With the targets given, so that it is not the Fisher matrix (Kunstner, Balles, Hennig
    2019). No gradient of a single sample is ever made: g is Jᵀr. Arguments and errors are those of `hessian`.
    """
    return _objective(_EmpiricalFisher, model, loss, inputs, targets, **options)


def _objective(
    kind,
    model,
    loss,
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
    torch = optional("torch", "curvature of a PyTorch model", "torch")
    comm = communicator(comm)
    for value, all_of_them in ((products, PRODUCTS), (reduction, REDUCTIONS)):
        if value not in all_of_them:
            raise InputError(f"{value!r} is none of {', '.join(all_of_them)}")
    name = name or f"{kind.title} of {type(model).__name__}"
    with agreement(comm):
        whole_number(memory, "memory", 1)
        make = partial(Share, torch, model, loss, inputs, targets, parameters, device=device)
        exact = make("float64")
        fast = exact if products == "float64" else make(products)
    total = comm.allreduce(exact.samples)
    if not total:
        raise InputError("no rank has a sample")
    with agreement(comm), evaluating(name):
        mean = reduction == "mean"
        for share in {exact, fast}:
            share.weigh(1 / total if mean else None)
        check_parts(exact.value_of, exact.samples, mean=mean, name=name, reason=exact.moody())
        curvature = kind(fast, memory)
        if exact is not fast:
            exact.chunk = max(1, fast.chunk // 2)
        x = exact.leaves.joined(exact.leaves.tensors)
        if exact.samples:
            check_products(
                lambda: partial(curvature.fresh().products, x),
                len(x),
                precision=products,
                name=name,
                reason=exact.moody(),
            )
    whole = {"gradient": exact.gradient, "energy": exact.energy} if kind is _Hessian else {}
    return Objective(
        x=x,
        hvps=curvature.products,
        batch=comm.allreduce(curvature.batch, op=MPI.MIN),
        summed=True,
        name=name,
        comm=comm,
        **whole,
    )


class Share:
    """A model and this rank's samples at one precision, with the loss on them.

    Attributes
    ----------
    leaves
        Parameters that are the variables, `Leaves`.
    names
        Theirs.
    samples
        How many.
    chunk
        How many are worked on at a time, at most.
    moves
        How often the parameters have changed: graphs made before the last time are of no use.
    """

    def __init__(self, torch, model, loss, inputs, targets, parameters, precision: str, *, device):
        self.torch, self._dtype = torch, getattr(torch, precision)
        if not isinstance(model, torch.nn.Module):
            raise InputError(f"the model must be a torch.nn.Module, not {type(model).__name__}")
        own = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        if not own:
            raise InputError(f"{type(model).__name__} has no parameters that require gradients")
        self.names = selected(own, parameters)
        known_device(torch, device)
        self.model = self._converted(model, device)
        tensors = dict(self.model.named_parameters())
        for parameter_name, tensor in tensors.items():
            tensor.requires_grad_(parameter_name in self.names)
            if tensor.is_complex() and tensor.requires_grad:
                raise InputError(f"parameter {parameter_name} is complex")
        self.leaves = Leaves(torch, [tensors[one] for one in self.names])
        self.device = self.leaves.tensors[0].device
        self._loss = self._converted(loss, device) if isinstance(loss, torch.nn.Module) else loss
        inputs = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        self._inputs = [self._tensor(array) for array in inputs]
        self._targets = self._tensor(targets)
        self.samples = self.chunk = len(self._targets)
        if any(len(array) != self.samples for array in self._inputs):
            raise InputError(
                f"inputs of {[len(array) for array in self._inputs]} samples, targets of {self.samples}"
            )
        self._part: float | None = None
        self._x: np.ndarray | None = None
        self.moves = 0

    def _converted(self, module, device):
        module = copy.deepcopy(module).to(device)
        # Unlike to(dtype) these leave complex buffers as they are.
        return module.double() if self._dtype == self.torch.float64 else module.float()

    def _tensor(self, array):
        try:
            tensor = array.detach() if self.torch.is_tensor(array) else self.torch.tensor(np.asarray(array))
        except (TypeError, ValueError) as error:
            raise InputError(f"inputs and targets must be tensors or arrays of numbers: {error}") from error
        if not tensor.ndim:
            raise InputError("samples lie along the first axis, and there is none")
        return tensor.to(device=self.device, dtype=self._dtype if tensor.is_floating_point() else tensor.dtype)

    def weigh(self, part: float | None) -> None:
        """Say what part of all a sample is, for means; None for sums."""
        self._part = part

    @property
    def is_sum(self) -> bool:
        """Whether the loss is a sum over samples, not a mean."""
        return self._part is None

    def weight(self, count: int) -> float:
        """Return by what the loss of some samples is multiplied in the whole."""
        return 1.0 if self.is_sum else count * self._part

    def outputs(self, first: int, last: int):
        """Return what the model gives for some samples."""
        with differentiable_attention(self.torch):
            return self.model(*(array[first:last] for array in self._inputs))

    def of_outputs(self, outputs, first: int, last: int):
        """Return the loss of outputs for some samples, as the user's function has it."""
        value = self._loss(outputs, self._targets[first:last])
        if not self.torch.is_tensor(value) or value.numel() != 1 or not value.is_floating_point():
            shape = tuple(value.shape) if self.torch.is_tensor(value) else ""
            raise InputError(
                f"the loss must return a tensor of one real number, not {type(value).__name__} {shape}"
                + (": take its mean over samples" if shape else "")
            )
        return value.reshape(())

    def value_of(self, first: int, last: int) -> float:
        """Return the loss of some samples at the parameters as they stand."""
        with self.torch.enable_grad():  # the loss may differentiate by itself
            return self.of_outputs(self.outputs(first, last), first, last).item()

    def weighted_loss(self, first: int, last: int):
        """Return what some samples contribute to the whole."""
        return self.weight(last - first) * self.of_outputs(self.outputs(first, last), first, last)

    def chunks(self) -> list[tuple[int, int]]:
        """Return (first, last) of chunks of samples, about as large as each other."""
        if not self.samples:
            return []
        edges = np.linspace(0, self.samples, -(-self.samples // self.chunk) + 1).astype(int)
        return [*zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]

    def put(self, x) -> None:
        """Make x (n,) the values of the parameters."""
        if self._x is None or not np.array_equal(self._x, x):
            self.leaves.put(x)
            self._x = np.array(x)
            self.moves += 1

    def energy(self, x) -> float:
        self.put(x)
        return sum(self.weight(last - first) * self.value_of(first, last) for first, last in self.chunks())

    def gradient(self, x) -> np.ndarray:
        self.put(x)
        total = np.zeros(self.leaves.n)
        for first, last in self.chunks():
            with self.torch.enable_grad():
                slopes = self.torch.autograd.grad(
                    self.weighted_loss(first, last), self.leaves.tensors, allow_unused=True
                )
                total += self.leaves.joined(self.leaves.filled(slopes))
        return total

    def moody(self) -> str:
        """Return which modules make outputs depend on chance or on other samples, and what to do; or nothing."""
        nn = self.torch.nn.modules
        found = []
        for where, module in self.model.named_modules():
            drops = isinstance(module, nn.dropout._DropoutNd) and module.p > 0
            drops = drops or (isinstance(module, self.torch.nn.RNNBase) and module.dropout > 0)
            drops = drops or (isinstance(module, self.torch.nn.MultiheadAttention) and module.dropout > 0)
            norms = isinstance(module, nn.batchnorm._BatchNorm)
            if module.training and (drops or norms):
                found.append(f"{type(module).__name__} {where!r}")
        if not found:
            return ""
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        are = "is" if len(found) == 1 else "are"
        return f"{', '.join(found[:3])}{more} {are} in training mode; call model.eval() first"


class _Curvature(ABC):
    """Products at a point, chunk of samples after chunk.

    Attributes
    ----------
    batch
        Most vectors that are multiplied at once.
    """

    title: str

    def __init__(self, share: Share, memory: int):
        self.share, self.torch, self.leaves = share, share.torch, share.leaves
        few, many = (self._bytes(min(count, share.samples)) for count in (_FEW, 2 * _FEW))
        each = max(1, (many - few) // max(1, min(2 * _FEW, share.samples) - min(_FEW, share.samples)))
        fixed = max(0, few - each * min(_FEW, share.samples))
        # A chunk's graph and a product on it take half of the memory, more products or more graphs the rest.
        afford = memory // 2 - (1 + GRAPHS) * fixed - ARRAYS * self.leaves.bytes
        share.chunk = max(1, min(share.samples, afford // ((1 + GRAPHS) * each)))
        self._chunks = share.chunks()
        graph = fixed + each * share.chunk
        self._keeps = len(self._chunks) * graph <= memory // 2
        left = memory - graph * (len(self._chunks) if self._keeps else 1)
        self.batch = int(max(1, min(MOST, left // (GRAPHS * graph + ARRAYS * self.leaves.bytes))))
        self.fresh()

    def _bytes(self, samples: int) -> int:
        """Return what the graph of so many samples holds."""
        if not samples:
            return 0
        with self.torch.enable_grad():
            return held(self.torch, self._heads(0, samples))

    def fresh(self) -> _Curvature:
        """Return this without what it has kept."""
        self._made_at = -1
        return self

    def products(self, x, directions) -> np.ndarray:
        """Return (m, n) products of this rank's part of the curvature at x (n,) with directions (m, n)."""
        self.share.put(x)
        if self._made_at != self.share.moves:
            self._made_at: int = self.share.moves
            self._kept: list[Callable | None] = [None] * len(self._chunks)
        parts, total = self.leaves.parts(directions), None
        for number, chunk in enumerate(self._chunks):
            multiply = self._kept[number]
            if multiply is None:
                with self.torch.enable_grad():
                    multiply = self._prepared(*chunk)
                if self._keeps:
                    self._kept[number] = multiply
            images = batched(self.torch, multiply, parts)
            # Sums over chunks in double precision.
            total = self.leaves.joined(images) if total is None else total + self.leaves.joined(images)
        return np.zeros(np.shape(directions)) if total is None else total

    @abstractmethod
    def _prepared(self, first: int, last: int) -> Callable:
        """Return a function of parts of a vector, parts of its product."""

    @abstractmethod
    def _heads(self, first: int, last: int) -> list:
        """Return tensors whose graphs are what is kept for some samples."""

    def _grad(self, of, by, along=None, **options):
        return self.torch.autograd.grad(of, by, along, allow_unused=True, **options)


class _Hessian(_Curvature):
    title = "Hessian"

    def _heads(self, first: int, last: int) -> list:
        loss = self.share.weighted_loss(first, last)
        if not loss.requires_grad:
            raise InputError("the loss must depend on the parameters, by operations of PyTorch")
        return self.leaves.filled(self._grad(loss, self.leaves.tensors, create_graph=True))

    def _prepared(self, first: int, last: int) -> Callable:
        slopes = self._heads(first, last)
        return lambda *v: self._grad(slopes, self.leaves.tensors, v, retain_graph=True)


class _Outer(_Curvature):
    """Jᵀ L J: J v by the derivative of Jᵀu, which is linear in u, along u."""

    def _outputs(self, first: int, last: int) -> tuple:
        """Return the outputs, a cotangent u of them, and Jᵀu."""
        outputs = self.share.outputs(first, last)
        if not self.torch.is_tensor(outputs):
            raise InputError(f"the model must return a tensor, not {type(outputs).__name__}")
        if not outputs.requires_grad:
            raise InputError("the outputs must depend on the parameters, by operations of PyTorch")
        u = self.torch.zeros_like(outputs).requires_grad_()
        slopes = self._grad(outputs, self.leaves.tensors, u, create_graph=True)
        return outputs, u, self.leaves.filled(slopes)

    def _heads(self, first: int, last: int) -> list:
        outputs, _, slopes = self._outputs(first, last)
        return [outputs, *slopes]

    def _prepared(self, first: int, last: int) -> Callable:
        outputs, u, slopes = self._outputs(first, last)
        used = [number for number, slope in enumerate(slopes) if slope.requires_grad]
        inner = self._inner(outputs.detach().requires_grad_(), first, last)

        def product(*v):
            (change,) = self._grad([slopes[i] for i in used], u, [v[i] for i in used], retain_graph=True)
            found = self._grad(outputs, self.leaves.tensors, inner(change), retain_graph=True)
            return tuple(0 * along if one is None else one for one, along in zip(found, v, strict=True))

        return product

    @abstractmethod
    def _inner(self, outputs, first: int, last: int) -> Callable:
        """Return the map of changes of the outputs that stands between Jᵀ and J."""


class _GaussNewton(_Outer):
    title = "Gauss–Newton matrix"

    def _inner(self, outputs, first: int, last: int) -> Callable:
        value = self.share.weight(last - first) * self.share.of_outputs(outputs, first, last)
        (slope,) = self.torch.autograd.grad(value, outputs, create_graph=True)
        slope = slope + 0 * outputs  # of a loss that is linear
        return lambda change: self._grad(slope, outputs, change, retain_graph=True)[0]


class _EmpiricalFisher(_Outer):
    title = "empirical Fisher matrix"

    def _inner(self, outputs, first: int, last: int) -> Callable:
        slope, weight = sample_slopes(self.share, outputs, first, last)
        axes = tuple(range(1, outputs.ndim))

        def inner(change):
            along = (slope * change).sum(axes, keepdim=True) if axes else slope * change
            return weight * along * slope

        return inner


def sample_slopes(share: Share, outputs, first: int, last: int) -> tuple:
    """Return the gradients of the loss of each sample by its outputs, and what part of the whole a sample is.

    Not collective. The outputs' first axis must be the samples.
    """
    count = last - first
    if not outputs.ndim or len(outputs) != count:
        raise InputError(f"{count} samples have outputs {tuple(outputs.shape)}: their first axis must be samples")
    (slope,) = share.torch.autograd.grad(share.of_outputs(outputs, first, last), outputs)
    weight = share.weight(1)
    return (slope if share.is_sum else count * slope).detach(), weight
