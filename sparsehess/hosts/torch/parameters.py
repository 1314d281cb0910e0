"""Parameters as variables: one vector of NumPy's for many tensors, copies at a precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from sparsehess.errors import InputError
from sparsehess.hosts.learning.parameter_groups import consecutive_slices

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

    # What PyTorch takes as a device; None leaves things where they are.
    Device: TypeAlias = str | int | torch.device | None


class Leaves:
    """Tensors that require gradients, one after another the variables.

    Parameters
    ----------
    torch
        The package.
    tensors
        At least one, all of one precision; they may be on several devices.

    Attributes
    ----------
    tensors
        As given.
    n
        Number of variables.
    """

    def __init__(self, torch: ModuleType, tensors: Iterable[Tensor]) -> None:
        self._torch, self.tensors = torch, list(tensors)
        self._sizes = [leaf.numel() for leaf in self.tensors]
        self.n = sum(self._sizes)

    @property
    def bytes(self) -> int:
        """Size of all tensors. Not collective."""
        return self.n * self.tensors[0].element_size()

    def split(self, array: np.ndarray) -> list[Tensor]:
        """Return the parts of an (n,) or (m, n) array that belong to the leaves, at their precision.

        Not collective.
        """
        first = self.tensors[0]
        whole = self._torch.tensor(array, dtype=first.dtype, device=first.device)
        parts = zip(self.tensors, whole.split(self._sizes, -1), strict=True)
        return [part.reshape((*part.shape[:-1], *leaf.shape)).to(leaf.device) for leaf, part in parts]

    def join(self, parts: Sequence[Tensor]) -> np.ndarray:
        """Return the (n,) or (m, n) array of such parts, of float64.

        Not collective.
        """
        return self.joined(parts).cpu().numpy().astype(np.float64)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the (n,) or (m, n) tensor of such parts, on the device of the first leaf.

        Not collective. It may be one of the parts.
        """
        flat = [
            part.detach().reshape((*part.shape[: part.ndim - leaf.ndim], -1)).to(self.tensors[0].device)
            for leaf, part in zip(self.tensors, parts, strict=True)
        ]
        return flat[0] if len(flat) == 1 else self._torch.cat(flat, -1)

    def assign(self, x: np.ndarray) -> None:
        """Make x (n,) the values of the leaves.

        Not collective.
        """
        with self._torch.no_grad():
            for leaf, part in zip(self.tensors, self.split(x), strict=True):
                leaf.copy_(part)

    def complete(self, slopes: Sequence[Tensor | None]) -> list[Tensor]:
        """Return gradients by the leaves in whose graph every leaf is; zeros for those that are None.

        Not collective. Parameters that are not used, or only linearly, would be missing from derivatives of the
        gradient.
        """
        nothing = [0 * leaf for leaf in self.tensors]
        return [zero if slope is None else slope + zero for zero, slope in zip(nothing, slopes, strict=True)]


def parameter_slices(module: Module) -> dict[str, slice]:
    """Return which variables the parameters of a module are: a slice for each name.

    Not collective. In the order of `module.named_parameters()`, those that require gradients.

    Examples
    --------
    >>> import torch
    >>> from sparsehess.hosts.torch.parameters import parameter_slices
    >>> parameter_slices(torch.nn.Linear(3, 2))
    {'weight': slice(0, 6, None), 'bias': slice(6, 8, None)}
    """
    return consecutive_slices(
        (name, parameter.numel()) for name, parameter in module.named_parameters() if parameter.requires_grad
    )


def convert_module(torch: ModuleType, module: Module, precision: torch.dtype, device: Device) -> Module:
    """Return a copy of a module with parameters, buffers and other tensors at a precision and on a device.

    Not collective. What is complex stays so, unlike with `module.to(precision)`.
    """
    complex_precision = torch.complex128 if precision == torch.float64 else torch.complex64

    def converted(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(complex_precision)
        return tensor.to(precision) if tensor.is_floating_point() else tensor

    with torch.no_grad():  # where copies of compiled modules are no leaves
        out = copy.deepcopy(module, _copies_of_results(torch, module)).to(device)._apply(converted)
        for part in out.modules():  # tensors that are no buffers
            held = {name: one for name, one in vars(part).items() if torch.is_tensor(one)}
            vars(part).update({name: converted(one.detach().to(device)) for name, one in held.items()})
    for own, copied in zip(module.parameters(), out.parameters(), strict=True):
        copied.requires_grad_(own.requires_grad)
    return out


def _copies_of_results(torch: ModuleType, module: Module) -> dict[int, Any]:
    """Return copies, by the identities of what they are of, of tensors that modules keep and that have a graph.

    Such are what hooks compute of parameters (`weight_norm`), and what modules remember of their last call; they
    cannot be copied as parts of a module. Each call makes them anew.
    """
    memo: dict[int, Any] = {}

    def visit(value: Any) -> None:
        if torch.is_tensor(value) and not value.is_leaf:
            memo[id(value)] = value.detach().clone()
        elif isinstance(value, Mapping):
            for one in value.values():
                visit(one)
        elif isinstance(value, (list, tuple)):
            for one in value:
                visit(one)

    for part in module.modules():
        visit(vars(part))
    return memo


def convert_pair(
    torch: ModuleType, module: Module, loss: Any, precision: torch.dtype, device: Device
) -> tuple[Module, Any]:
    """Return copies of a module and of a loss, which share what the two have in common where the loss is a module.

    Not collective. A loss that is no module is returned as it is.
    """
    if not isinstance(loss, torch.nn.Module):
        return convert_module(torch, module, precision, device), loss
    first, second = convert_module(torch, torch.nn.ModuleList([module, loss]), precision, device).children()
    return first, second


def reads_own(torch: ModuleType, value: Tensor, own: Iterable[Tensor]) -> bool:
    """Return whether a value is differentiable by tensors of the caller's, of which copies should stand for them.

    Not collective.
    """
    tensors = [one for one in own if one.requires_grad]
    if not tensors or not value.requires_grad:
        return False
    found = torch.autograd.grad(value, tensors, retain_graph=True, allow_unused=True)
    return any(one is not None for one in found)


def follow_copy(torch: Any, loss: Callable[..., Tensor], own: Module, copied: Module) -> Callable[..., Tensor]:
    """Return a loss that is evaluated with the tensors of a copy in the place of those of the caller's module.

    Not collective. What the loss reads of the module, such as `module.parameters()`, is the copy's for the time of
    a call; tensors that the loss has got of it before are not.
    """

    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = own

        def forward(self, *arguments: Any) -> Any:
            return loss(*arguments)

    holder, call = Holder(), (torch.func if hasattr(torch, "func") else torch.nn.utils.stateless).functional_call
    state = {f"own.{name}": tensor for name, tensor in (*copied.named_parameters(), *copied.named_buffers())}
    return lambda *arguments: call(holder, state, arguments)


def require_device(torch: ModuleType, device: Device) -> None:
    """Refuse what is no device of PyTorch's.

    Not collective.

    Raises
    ------
    InputError
        It is none.
    """
    try:
        torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device={device!r} is none of PyTorch's, such as 'cpu' and 'cuda:0'") from error
