"""Objectives of PyTorch functions and modules: exact gradients, and products in batches.

Products are derivatives of the gradient's own graph: reverse mode twice. That needs nothing of the function
but what a gradient needs, where forward mode lacks operations.
"""

from __future__ import annotations

import copy

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError
from sparsehess.hosts.jax.objective import PRODUCTS
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
from sparsehess.runtime.validation import evaluating, reals, whole_number


def from_torch(
    function,
    x,
    *data,
    pattern=None,
    products: str = "float64",
    memory: int = 2**29,
    device=None,
    comm=None,
    **more,
) -> Objective:
    """Return the objective of a scalar PyTorch function, of an array or of the parameters of a module.

    Collective on `comm`.

    Parameters
    ----------
    function
        `function(x, *data) -> scalar tensor`, a module or another callable, twice differentiable by reverse
        mode. It is called once here. It must be deterministic, so modules with dropout and the like in eval mode,
        and depend on nothing else that changes: what it gives at a place is kept for more products there.
    x
        Where the Hessian is taken: an array or tensor of any shape, whose entries are the variables, or a
        `torch.nn.Module`: the variables are its parameters, those that require gradients (see `blocks`).
        The function is given a tensor or a module too.
    data
        Passed on to the function; with `summed=True` every rank has its own, and the function returns a part of
        the sum.
    pattern
        Default none: it is probed where one is needed.
    products
        Precision of Hessian-vector products; gradients are always of float64. Function, x and data are brought to
        the precision wanted, whichever they had: of modules a copy with all parameters and buffers (yours stays
        as it is), tensors and ndarrays of floating point as tensors. What a function has by itself is not.
    memory
        Bytes that a batch of products may take on the device, and what is kept of the function.
    device
        A torch device for all of them; default where they are, and of ndarrays among the data that of x.
    comm, more
        Other arguments of `Objective`.

    Raises
    ------
    StackError
        PyTorch is not installed.
    InputError
        There are no parameters to differentiate by, or the function returns no scalar that depends on them.
    """
    torch = optional("torch", "from_torch", "torch")
    if products not in PRODUCTS:
        raise InputError(f"products {products!r} is none of {', '.join(PRODUCTS)}")
    comm, name = communicator(comm), getattr(function, "__name__", "PyTorch function")
    with agreement(comm), evaluating(name):
        whole_number(memory, "memory", 1)
        known_device(torch, device)
        exact = _Copy(torch, function, x, data, "float64", device, memory)
        fast = exact if products == "float64" else _Copy(torch, function, x, data, products, device, memory)
        batch = max(1, min(MOST, memory // fast.bytes_a_product()))
    return Objective(
        x=exact.x,
        gradient=exact.gradient,
        energy=exact.energy,
        hvps=fast.products,
        batch=comm.allreduce(batch, op=MPI.MIN),
        pattern=pattern,
        comm=comm,
        **{"name": name, **more},
    )


def blocks(module) -> dict[str, slice]:
    """Return which variables the parameters of a module are: a slice for each name.

    Not collective. In the order of `module.named_parameters()`, those that require gradients.
    """
    found, begin = {}, 0
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            found[name] = slice(begin, begin + parameter.numel())
            begin += parameter.numel()
    return found


class _Copy:
    """A function with its argument and data, copied at one precision. Vectors are NumPy's, of float64.

    Attributes
    ----------
    x
        (n,) where the argument was at first.
    """

    def __init__(self, torch, function, x, data, precision: str, device, memory: int):
        self._torch, self._dtype, self._device = torch, getattr(torch, precision), device
        if isinstance(x, torch.nn.Module):
            self._argument = self._brought(x)
            self._leaves = [parameter for parameter in self._argument.parameters() if parameter.requires_grad]
            if not self._leaves or any(leaf.is_complex() for leaf in self._leaves):
                raise InputError(
                    f"{type(x).__name__} must have parameters that require gradients, all of them real"
                )
        else:
            given = x.detach() if torch.is_tensor(x) else torch.tensor(np.array(reals(x, "x")))
            if given.is_complex():
                raise InputError("x must be real numbers, not complex ones")
            self._argument = given.to(device=device, dtype=self._dtype, copy=True).requires_grad_()
            self._leaves = [self._argument]
        self._function, *self._data = (self._brought(item) for item in (function, *data))
        self._all = Leaves(torch, self._leaves)
        self.x = self._all.joined(self._leaves)
        self._memory, self._keeps = memory, False
        self._kept: tuple[np.ndarray, list] | None = None

    def _brought(self, item):
        """Return an item of what the user gave at the precision and on the device."""
        if isinstance(item, self._torch.nn.Module):
            module = copy.deepcopy(item).to(self._device)
            # Unlike to(dtype) these leave complex buffers as they are.
            return module.double() if self._dtype == self._torch.float64 else module.float()
        if isinstance(item, np.ndarray):
            item = self._torch.tensor(item, device=self._leaves[0].device)
        if self._torch.is_tensor(item):
            dtype = self._dtype if item.is_floating_point() else item.dtype
            return item.to(device=self._device, dtype=dtype)
        return item

    def _value(self, x):
        """Return the function at x, a tensor of one number."""
        self._kept = None
        self._all.put(x)
        with differentiable_attention(self._torch):
            value = self._function(self._argument, *self._data)
        if not self._torch.is_tensor(value):
            raise InputError(f"the function must return a tensor, not {type(value).__name__}")
        if value.numel() != 1 or not value.is_floating_point():
            kind = f"{value.dtype} of shape {tuple(value.shape)}"
            raise InputError(f"the function must return a tensor of one real number, not {kind}")
        return value

    def _slopes(self, x, graph: bool = False) -> list:
        """Return the gradient at x by leaves; with a graph, each of them has one that reaches its leaf."""
        with self._torch.enable_grad():
            value = self._value(x)
            slopes = (
                self._torch.autograd.grad(value, self._leaves, create_graph=graph, allow_unused=True)
                if value.requires_grad
                else ()
            )
            if all(slope is None for slope in slopes):
                raise InputError("the function must depend on what it is given, by operations of PyTorch")
            return self._all.filled(slopes)

    def energy(self, x) -> float:
        with self._torch.enable_grad():  # the function may differentiate by itself
            return self._value(x).item()

    def gradient(self, x) -> np.ndarray:
        return self._all.joined(self._slopes(x))

    def products(self, x, directions) -> np.ndarray:
        if self._kept is None or not np.array_equal(self._kept[0], x):
            self._kept = np.array(x), self._slopes(x, graph=True)
        slopes = self._kept[1]

        def product(*direction):
            return self._torch.autograd.grad(slopes, self._leaves, direction, retain_graph=self._keeps)

        out = self._all.joined(batched(self._torch, product, self._all.parts(directions)))
        if not self._keeps:
            self._kept = None
        return out

    def bytes_a_product(self) -> int:
        """Return what a product needs, and keep the graph of the gradient from product to product if it fits."""
        graph = held(self._torch, self._slopes(self.x, graph=True))
        self._keeps = 2 * graph <= self._memory
        return GRAPHS * graph + ARRAYS * self._all.bytes
