"""What a model returns, a tensor or dictionaries, lists and tuples of them, as one tensor and back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sparsehess.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    Rebuild = Callable[[Tensor], Any]


def packed(torch: ModuleType, outputs: Any, count: int) -> tuple[Tensor, Rebuild]:
    """Return one tensor of all in some outputs that depends on parameters, and what makes outputs of such a one.

    Not collective. A tensor is itself. Of several the result is (count, m) where the first axis of all are the
    samples, else (1, m). What does not depend on the parameters stays as it is.

    Raises
    ------
    InputError
        Nothing does, or the outputs are of a kind that cannot be made again.
    """
    if torch.is_tensor(outputs):
        if not outputs.requires_grad:
            raise InputError("the outputs must depend on the parameters, by operations of PyTorch")
        return outputs, lambda flat: flat
    tensors = list(_tensors(torch, outputs))
    if not tensors:
        raise InputError(
            "the model must return a tensor, or dictionaries, lists and tuples of tensors that depend on the "
            f"parameters by operations of PyTorch, not {type(outputs).__name__}"
        )
    rows = count if all(one.ndim and len(one) == count for one in tensors) else 1
    flat = torch.cat([one.reshape(rows, -1) for one in tensors], dim=1)
    sizes = [one.numel() // rows for one in tensors]

    def rebuild(flat: Tensor) -> Any:
        parts = iter(part.reshape(one.shape) for part, one in zip(flat.split(sizes, dim=1), tensors, strict=True))
        return _with_tensors(torch, outputs, parts)

    return flat, rebuild


def detached(torch: ModuleType, outputs: Any, count: int) -> Any:
    """Return outputs without their graph; what depends on no parameters stays as it is. Not collective."""
    if torch.is_tensor(outputs):
        return outputs.detach()
    if not list(_tensors(torch, outputs)):
        return outputs
    flat, rebuild = packed(torch, outputs, count)
    return rebuild(flat.detach())


def _tensors(torch: ModuleType, outputs: Any) -> Iterator[Tensor]:
    """Yield the tensors that depend on parameters, in their order."""
    if torch.is_tensor(outputs):
        if outputs.requires_grad:
            yield outputs
    elif isinstance(outputs, (Mapping, list, tuple)):
        for one in outputs.values() if isinstance(outputs, Mapping) else outputs:
            yield from _tensors(torch, one)


def _with_tensors(torch: ModuleType, outputs: Any, parts: Iterator[Tensor]) -> Any:
    """Return outputs of the same kind with others in the places of the tensors that depend on parameters."""
    if torch.is_tensor(outputs):
        return next(parts) if outputs.requires_grad else outputs
    if isinstance(outputs, Mapping):
        made: Any = copy.copy(outputs)
        for key, one in outputs.items():
            try:
                made[key] = _with_tensors(torch, one, parts)
            except TypeError as error:
                raise InputError(
                    f"outputs in a {type(outputs).__name__} cannot be changed: return a dict"
                ) from error
        return made
    if isinstance(outputs, (list, tuple)):
        items = [_with_tensors(torch, one, parts) for one in outputs]
        return type(outputs)(*items) if hasattr(outputs, "_fields") else type(outputs)(items)
    return outputs
