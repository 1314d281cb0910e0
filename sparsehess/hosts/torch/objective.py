"""Objectives of PyTorch functions and modules: exact gradients, and products in batches.

Products are derivatives of the gradient's own graph: reverse mode twice. That needs nothing of the function
but what a gradient needs, where forward mode lacks operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError
from sparsehess.hosts.learning.host_errors import advised, explain_host_errors
from sparsehess.hosts.learning.product_modes import (
    DIFFERENCES,
    MOST_PRODUCTS,
    PRODUCTS,
    product_precision,
    require_one_of,
)
from sparsehess.hosts.torch.compressed_products import CompressedProducts
from sparsehess.hosts.torch.evaluation import evaluation
from sparsehess.hosts.torch.graphs import ARRAYS, GRAPHS, apply_batched, graph_bytes
from sparsehess.hosts.torch.parameters import Leaves, convert_module, follow_copy, reads_own, require_device
from sparsehess.pattern import Pattern
from sparsehess.runtime import agreement, communicator, optional
from sparsehess.runtime.validation import reals, whole_number

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from sparsehess.hosts.torch.parameters import Device


def from_torch(
    function: Callable[..., Tensor],
    x: Any,
    *data: Any,
    pattern: Pattern | None = None,
    products: str = "float64",
    memory: int = 2**29,
    device: Device = None,
    name: str | None = None,
    comm: MPI.Comm | None = None,
    **more: Any,
) -> Objective:
    """Return the objective of a scalar PyTorch function, of an array or of the parameters of a module.

    Collective on `comm`.

    Parameters
    ----------
    function
        `function(x, *data) -> scalar tensor`, a module or another callable, twice differentiable by reverse
        mode. It is called once here. It must be deterministic, so modules with dropout and the like in eval mode,
        and depend on nothing else that changes: its graph at a point serves several products there.
    x
        Where the Hessian is taken: an array or tensor of any shape, whose entries are the variables, or a
        `torch.nn.Module`: the variables are its parameters, those that require gradients (see
        `hosts.torch.parameters.parameter_slices`). The function is given a tensor or a module too.
    data
        Passed on to the function; with `summed=True` every rank has its own, and the function returns a part of
        the sum.
    pattern
        Default none: it is probed where one is needed.
    products
        Precision of Hessian-vector products, float64 or float32, or `differences`: there are none, for functions
        that cannot be differentiated twice. Gradients are always of float64. Function, x and
        data are converted to the precision wanted, whichever they had: modules as copies with all parameters and
        buffers (yours stays as it is), tensors and ndarrays of floating point as tensors. Tensors that the
        function refers to by itself are not converted.
    memory
        Bytes that a batch of products and the graph of the function may take on the device.
    device
        A torch device for all of them; default where they are, and of ndarrays among the data that of x.
    name
        For reports; default the function's.
    comm
        Communicator; default this process alone.
    more
        Other arguments of `Objective`.

    Returns
    -------
    objective
        Energy, gradient and batches of products, of replicated arrays.

    Raises
    ------
    StackError
        PyTorch is not installed.
    InputError
        There are no parameters to differentiate by, or the function returns no scalar that depends on them.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> objective = sh.from_torch(lambda x: (x[1:] - x[:-1] ** 2).square().sum(), np.ones(3))
    >>> objective.gradient(objective.x)
    array([0., 0., 0.])
    >>> objective.hvps(objective.x, np.eye(3))
    array([[ 8., -4.,  0.],
           [-4., 10., -4.],
           [ 0., -4.,  2.]])
    """
    torch = optional("torch", "from_torch", "torch")
    require_one_of(PRODUCTS, products, "products")
    comm, name = communicator(comm), name or str(getattr(function, "__name__", "PyTorch function"))
    with agreement(comm), explain_host_errors(name):
        whole_number(memory, "memory", 1)
        require_device(torch, device)
        exact = _Copy(torch, function, x, data, "float64", device, memory)
        precision = product_precision(products)
        fast = exact if precision == "float64" else _Copy(torch, function, x, data, precision, device, memory)
        batch = max(1, min(MOST_PRODUCTS, memory // fast.bytes_per_product()))
    return Objective(
        x=exact.x,
        gradient=advised(exact.gradient),
        energy=advised(exact.energy),
        hvps=None if products == DIFFERENCES else advised(fast.products),
        compressed=None if products == DIFFERENCES else fast.compressed,
        batch=1 if products == DIFFERENCES else comm.allreduce(batch, op=MPI.MIN),
        pattern=pattern,
        name=name,
        comm=comm,
        **more,
    )


class _Copy:
    """A function with its argument and data, copied at one precision. Vectors are NumPy's, of float64.

    Attributes
    ----------
    x
        (n,) where the argument was at first.
    """

    def __init__(
        self,
        torch: ModuleType,
        function: Callable[..., Tensor],
        x: Any,
        data: Sequence[Any],
        precision: str,
        device: Device,
        memory: int,
    ) -> None:
        self._torch, self._dtype, self._device = torch, getattr(torch, precision), device
        self._held: dict[tuple[int, int], Tensor] = {}  # rows of padding
        self._argument: Tensor | Module
        if isinstance(x, torch.nn.Module):
            self._argument = convert_module(torch, x, self._dtype, device)
            leaves: list[Tensor] = [
                parameter for parameter in self._argument.parameters() if parameter.requires_grad
            ]
            if not leaves or any(leaf.is_complex() for leaf in leaves):
                raise InputError(
                    f"{type(x).__name__} must have parameters that require gradients, all of them real"
                )
        else:
            given = x.detach() if torch.is_tensor(x) else torch.tensor(np.array(reals(x, "x")))
            if given.is_complex():
                raise InputError("x must be real numbers, not complex ones")
            leaves = [given.to(device=device, dtype=self._dtype, copy=True).requires_grad_()]
            self._argument = leaves[0]
        self._leaves = Leaves(torch, leaves)
        self._function, *self._data = (self._converted(item) for item in (function, *data))
        self.x = self._leaves.join(leaves)
        self._settle_function(x)
        self._memory, self._keeps = memory, False
        self._kept: tuple[np.ndarray, list[Tensor]] | None = None  # a point, and the gradient's graph there

    def _settle_function(self, given: Any) -> None:
        """Let the function read the copy where it reads the module that was given, or refuse it."""
        torch = self._torch
        own = (
            [*given.parameters()]
            if isinstance(given, torch.nn.Module)
            else [given]
            if torch.is_tensor(given)
            else []
        )
        with self._evaluation():
            if not any(one.requires_grad for one in own) or not reads_own(torch, self._value(self.x), own):
                return
            if isinstance(self._argument, torch.nn.Module):
                self._function = follow_copy(torch, self._function, given, self._argument)
                if not reads_own(torch, self._value(self.x), own):
                    return
        raise InputError(
            "the function reads the parameters that were given by itself, and those do not move with the "
            "variables: let it take them from its argument"
        )

    def _evaluation(self) -> ExitStack:
        """Return the context for calls of the function and for derivatives of what it returns."""
        return evaluation(self._torch, self._dtype, self._leaves.tensors[0].device, self._held)

    def _converted(self, item: Any) -> Any:
        """Return an item of what the user gave at the precision and on the device."""
        if isinstance(item, self._torch.nn.Module):
            return convert_module(self._torch, item, self._dtype, self._device)
        if isinstance(item, np.ndarray):
            item = self._torch.tensor(item, device=self._leaves.tensors[0].device)
        if self._torch.is_tensor(item):
            dtype = self._dtype if item.is_floating_point() else item.dtype
            return item.to(device=self._device, dtype=dtype)
        return item

    def _value(self, x: np.ndarray) -> Tensor:
        """Return the function at x, a tensor of one number."""
        self._kept = None
        self._leaves.assign(x)
        value = self._function(self._argument, *self._data)
        if not self._torch.is_tensor(value):
            raise InputError(f"the function must return a tensor, not {type(value).__name__}")
        if value.numel() != 1 or not value.is_floating_point():
            kind = f"{value.dtype} of shape {tuple(value.shape)}"
            raise InputError(f"the function must return a tensor of one real number, not {kind}")
        return value

    def _slopes(self, x: np.ndarray, graph: bool = False) -> list[Tensor]:
        """Return the gradient at x by leaves; with a graph, each of them has one that reaches its leaf."""
        with self._evaluation():
            value = self._value(x)
            slopes = (
                self._torch.autograd.grad(value, self._leaves.tensors, create_graph=graph, allow_unused=True)
                if value.requires_grad
                else ()
            )
            if all(slope is None for slope in slopes):
                raise InputError("the function must depend on what it is given, by operations of PyTorch")
            return self._leaves.complete(slopes)

    def energy(self, x: np.ndarray) -> float:
        """Return the function at x (n,). Not collective."""
        with self._evaluation():  # the function may differentiate by itself
            return self._value(x).item()

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Return the gradient (n,) at x (n,). Not collective."""
        return self._leaves.join(self._slopes(x))

    def products(self, x: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return (m, n) products of the Hessian at x (n,) with directions (m, n). Not collective."""
        return self._leaves.join(self._products(x, self._leaves.split(directions)))

    def compressed(self, colors: np.ndarray, count: int, reads: np.ndarray) -> CompressedProducts:
        """Return the products with the variables of each colour. Not collective."""
        return CompressedProducts(self._torch, self._leaves, self._products, colors, count, reads)

    def _products(self, x: np.ndarray, directions: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return products by leaves with directions by leaves."""
        if self._kept is None or not np.array_equal(self._kept[0], x):
            self._kept = np.array(x), self._slopes(x, graph=True)
        slopes = self._kept[1]

        def product(*direction: Tensor) -> Sequence[Tensor]:
            return self._torch.autograd.grad(slopes, self._leaves.tensors, direction, retain_graph=self._keeps)

        with self._evaluation():
            out = apply_batched(self._torch, product, directions)
        if not self._keeps:
            self._kept = None
        return out

    def bytes_per_product(self) -> int:
        """Return what a product needs, and keep the graph of the gradient from product to product if it fits."""
        graph = graph_bytes(self._torch, self._slopes(self.x, graph=True))
        self._keeps = 2 * graph <= self._memory
        return GRAPHS * graph + ARRAYS * self._leaves.bytes
