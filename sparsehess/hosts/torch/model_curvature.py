"""Curvature of a PyTorch model on data: Hessian, Gauss–Newton matrix, empirical Fisher matrix.

Each rank has its samples, and every product is summed over ranks once. What a product needs of the point alone,
the graph of the gradient or of the outputs, is made once for each point and kept where the memory allows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError
from sparsehess.hosts.learning.model_objective import CurvatureOptions, ModelOptions, model_objective
from sparsehess.hosts.learning.model_share import linear_cost
from sparsehess.hosts.learning.parameter_groups import Selection
from sparsehess.hosts.learning.product_modes import MOST_PRODUCTS
from sparsehess.hosts.torch.graphs import ARRAYS, GRAPHS, apply_batched, graph_bytes
from sparsehess.hosts.torch.model_share import TorchShare
from sparsehess.hosts.torch.packed_outputs import packed
from sparsehess.runtime import optional

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from sparsehess.hosts.torch.packed_outputs import Rebuild
    from sparsehess.hosts.torch.parameters import Device

# Samples by which the memory that a graph takes is measured.
_FEW = 8


def hessian(
    model: Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Any,
    targets: Any,
    **options: Unpack[ModelOptions],
) -> Objective:
    """Return the objective of a model's loss on data: the Hessian by its parameters.

    Collective on `comm`. Its products are exact, by reverse mode twice.

    Parameters
    ----------
    model
        A module. It is copied; yours stays as it is.
    loss
        `loss(outputs, targets) -> scalar tensor`, the mean or the sum over samples. Outputs are as the model
        returns them: a tensor, or dictionaries, lists, tuples, data classes and namespaces of tensors.
        A penalty in it that takes the parameters from the model, as `model.parameters()`, moves with the
        variables; one on a list of them made before is refused. Values that were taken out of the graph
        (`detach`, `.data`, NumPy) are constants, which nothing can tell from others.
    inputs, targets
        This rank's samples, along the first axis: tensors or ndarrays; inputs may be a tuple of them, which the
        model is given one by one. Ranks may have different numbers of samples, or none. A mini-batch is a part
        of them (`draw_mini_batch`), a mean over mini-batches a `weighted_sum`.
    parameters
        Which parameters are the variables: None for all that require gradients, a predicate of a name, or a
        regular expression or a list of them. All others are frozen.
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
        gradient, for models that cannot be differentiated twice. Casts of what depends on parameters, autocast
        among them, are left out; see `hosts.torch.evaluation`.
    memory
        Bytes that graphs and a batch of products may take on a device, default 2**29. Samples are worked on in
        chunks that fit.
    device
        A torch device; default where the model is.
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
        PyTorch is not installed.
    InputError
        No samples, parameters that cannot be used, a loss that is no number.
    CheckError
        Products that are not deterministic (dropout), not symmetric, or not finite; a loss that is not the mean or
        the sum over samples (batch normalisation in training mode).

    References
    ----------
    Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 6 (1994).

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sparsehess.hosts.torch.model_curvature import hessian
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> inputs = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> objective = hessian(model, torch.nn.MSELoss(), inputs, np.zeros((2, 1)))
    >>> objective.hvps(objective.x, np.eye(2)).round(6)
    array([[1., 0.],
           [0., 4.]])
    """
    return _objective(_Hessian, model, loss, inputs, targets, **options)


def gauss_newton(
    model: Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Any,
    targets: Any,
    **options: Unpack[ModelOptions],
) -> Objective:
    """Return an objective of products alone: those of the Gauss–Newton matrix, mean of JᵀLJ.

    Collective on `comm`. J are derivatives of a sample's outputs, L is the Hessian of the loss by them. It is
    the Fisher matrix for exponential families with natural parameters, such as squared errors and cross-entropy.

    Parameters
    ----------
    model, loss, inputs, targets, options
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
    >>> import numpy as np, torch
    >>> from sparsehess.hosts.torch.model_curvature import gauss_newton
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> inputs = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> objective = gauss_newton(model, torch.nn.MSELoss(), inputs, np.zeros((2, 1)))
    >>> objective.hvps(objective.x, np.eye(2)).round(6)
    array([[1., 0.],
           [0., 4.]])
    """
    return _objective(_GaussNewton, model, loss, inputs, targets, **options)


def empirical_fisher(
    model: Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Any,
    targets: Any,
    **options: Unpack[ModelOptions],
) -> Objective:
    """Return an objective of products alone: those of the mean of g gᵀ over gradients g of samples.

    Collective on `comm`. The targets are those given, so that it is not the Fisher matrix. No gradient of a single
    sample is ever made: g is Jᵀr.

    Parameters
    ----------
    model, loss, inputs, targets, options
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
    >>> import numpy as np, torch
    >>> from sparsehess.hosts.torch.model_curvature import empirical_fisher
    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> torch.nn.init.constant_(model.weight, 1.0).item()
    1.0
    >>> inputs = np.array([[1.0], [2.0]])
    >>> objective = empirical_fisher(model, torch.nn.MSELoss(), inputs, np.zeros((2, 1)))
    >>> objective.hvps(objective.x, np.eye(1)).round(6)  # of the gradients 2 and 8
    array([[34.]])
    """
    return _objective(_EmpiricalFisher, model, loss, inputs, targets, **options)


def _objective(
    kind: type[_Curvature],
    model: Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Any,
    targets: Any,
    *,
    parameters: Selection = None,
    device: Device = None,
    name: str | None = None,
    **options: Unpack[CurvatureOptions],
) -> Objective:
    torch = optional("torch", "curvature of a PyTorch model", "torch")

    def make_share(precision: str) -> TorchShare:
        return TorchShare(torch, model, loss, inputs, targets, parameters, precision, device)

    name = name or f"{kind.title} of {type(model).__name__}"
    return model_objective(
        make_share, kind, name=name, of_loss=kind is _Hessian, plain=kind is _EmpiricalFisher, **options
    )


class _Curvature(ABC):
    """Products at a point, chunk of samples after chunk.

    Attributes
    ----------
    batch
        Most vectors that are multiplied at once.
    """

    title: ClassVar[str]

    def __init__(self, share: TorchShare, memory: int) -> None:
        self.share, self.torch, self.leaves = share, share.torch, share.leaves
        few, many = (min(count, share.samples) for count in (_FEW, 2 * _FEW))
        fixed, each = linear_cost(self._bytes, few, many)
        # A chunk's graph and a product on it take half of the memory, more products or more graphs the rest.
        afford = memory // 2 - (1 + GRAPHS) * fixed - ARRAYS * self.leaves.bytes
        share.chunk = max(1, min(share.samples, afford // ((1 + GRAPHS) * each)))
        chunks, graph = len(share.chunks()), fixed + each * share.chunk
        self._keeps = chunks * graph <= memory // 2
        left = memory - graph * (chunks if self._keeps else 1)
        self.batch = int(max(1, min(MOST_PRODUCTS, left // (GRAPHS * graph + ARRAYS * self.leaves.bytes))))
        self._kept: dict[tuple[int, int], Callable[..., Sequence[Tensor]]] = {}
        self._kept_at = share.moves

    def _bytes(self, samples: int) -> int:
        """Return what the graph of so many samples holds."""
        if not samples:
            return 0
        with self.share.evaluation():
            return graph_bytes(self.torch, self._heads(0, samples))

    def forget(self) -> None:
        """Drop the graphs that are kept."""
        self._kept.clear()

    def products(self, x: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return (m, n) products of this rank's part of the curvature at x (n,) with directions (m, n)."""
        self.share.assign(x)
        if self._kept_at != self.share.moves:
            self.forget()
            self._kept_at = self.share.moves
        with self.share.evaluation():
            parts, total = self.leaves.split(directions), np.zeros(np.shape(directions))
            for chunk in self.share.chunks():
                multiply = self._kept.get(chunk)
                if multiply is None:
                    multiply = self._prepared(*chunk)
                    if self._keeps:
                        self._kept[chunk] = multiply
                # Sums over chunks in double precision.
                total += self.leaves.join(apply_batched(self.torch, multiply, parts))
        return total

    @abstractmethod
    def _prepared(self, first: int, last: int) -> Callable[..., Sequence[Tensor]]:
        """Return a function of parts of a vector, parts of its product."""

    @abstractmethod
    def _heads(self, first: int, last: int) -> list[Tensor]:
        """Return tensors whose graphs are what is kept for some samples."""

    def _grad(self, of: Any, by: Any, along: Any = None, **options: bool) -> Any:
        return self.torch.autograd.grad(of, by, along, allow_unused=True, **options)


class _Hessian(_Curvature):
    title = "Hessian"

    def _heads(self, first: int, last: int) -> list[Tensor]:
        loss = self.share.weighted_loss(first, last)
        if not loss.requires_grad:
            raise InputError("the loss must depend on the parameters, by operations of PyTorch")
        return self.leaves.complete(self._grad(loss, self.leaves.tensors, create_graph=True))

    def _prepared(self, first: int, last: int) -> Callable[..., Sequence[Tensor]]:
        slopes = self._heads(first, last)
        return lambda *v: self._grad(slopes, self.leaves.tensors, v, retain_graph=True)


class _BetweenJacobians(_Curvature):
    """Jᵀ L J: J v by the derivative of Jᵀu, which is linear in u, along u."""

    def _outputs(self, first: int, last: int) -> tuple[Tensor, Rebuild, Tensor, list[Tensor]]:
        """Return the outputs as one tensor, what makes them of it, a cotangent u of them, and Jᵀu."""
        outputs, rebuild = packed(self.torch, self.share.outputs(first, last), last - first)
        u = self.torch.zeros_like(outputs).requires_grad_()
        slopes = self._grad(outputs, self.leaves.tensors, u, create_graph=True)
        return outputs, rebuild, u, self.leaves.complete(slopes)

    def _heads(self, first: int, last: int) -> list[Tensor]:
        outputs, _, _, slopes = self._outputs(first, last)
        return [outputs, *slopes]

    def _prepared(self, first: int, last: int) -> Callable[..., Sequence[Tensor]]:
        outputs, rebuild, u, slopes = self._outputs(first, last)
        used = [number for number, slope in enumerate(slopes) if slope.requires_grad]
        inner = self._inner(outputs.detach().requires_grad_(), rebuild, first, last)

        def product(*v: Tensor) -> Sequence[Tensor]:
            (change,) = self._grad([slopes[i] for i in used], u, [v[i] for i in used], retain_graph=True)
            if change is None:
                raise InputError(
                    "a part of the model has a backward pass that is not differentiable again, so that nothing is "
                    "known of changes of its outputs: take `hessian` with products='differences'"
                )
            found = self._grad(outputs, self.leaves.tensors, inner(change), retain_graph=True)
            return tuple(0 * along if one is None else one for one, along in zip(found, v, strict=True))

        return product

    @abstractmethod
    def _inner(self, outputs: Tensor, rebuild: Rebuild, first: int, last: int) -> Callable[[Tensor], Tensor]:
        """Return the map of changes of the outputs that stands between Jᵀ and J."""


class _GaussNewton(_BetweenJacobians):
    title = "Gauss–Newton matrix"

    def _inner(self, outputs: Tensor, rebuild: Rebuild, first: int, last: int) -> Callable[[Tensor], Tensor]:
        value = self.share.weight(first, last) * self.share.loss_of_outputs(rebuild(outputs), first, last)
        (slope,) = self.torch.autograd.grad(value, outputs, create_graph=True)
        slope = slope + 0 * outputs  # of a loss that is linear
        return lambda change: self._grad(slope, outputs, change, retain_graph=True)[0]


class _EmpiricalFisher(_BetweenJacobians):
    title = "empirical Fisher matrix"

    def _inner(self, outputs: Tensor, rebuild: Rebuild, first: int, last: int) -> Callable[[Tensor], Tensor]:
        slope, weight = self.share.sample_slopes(outputs, first, last, rebuild), self.share.sample_weight
        axes = tuple(range(1, outputs.ndim))

        def inner(change: Tensor) -> Tensor:
            along = (slope * change).sum(axes, keepdim=True) if axes else slope * change
            return weight * along * slope

        return inner
