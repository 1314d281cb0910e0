"""What a model returns, a tensor or containers of them, as one real tensor and back.

Containers are dictionaries, lists, tuples, data classes and namespaces, and what is derived of them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from sparsehess.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    Rebuild = Callable[[Tensor], Any]

# What has no parts.
_PLAIN = (str, bytes, int, float, complex, type(None))


def packed(torch: ModuleType, outputs: Any, count: int) -> tuple[Tensor, Rebuild]:
    """Return one real tensor of all that depends on parameters in some outputs, and what makes outputs of it.

    Not collective. A real tensor is itself. Of several, and of complex ones, the result is (count, m) where the
    first axis of all are the samples, else (1, m). What does not depend on the parameters stays as it is.

    Raises
    ------
    InputError
        Nothing does, or the outputs are of a kind that cannot be made again.
    """
    if torch.is_tensor(outputs) and not outputs.is_complex():
        if not outputs.requires_grad:
            raise InputError("the outputs must depend on the parameters, by operations of PyTorch")
        return outputs, lambda flat: flat
    tensors = [one for one in _leaves(torch, outputs) if torch.is_tensor(one) and one.requires_grad]
    if not tensors:
        raise InputError(
            "the model must return a tensor, or dictionaries, lists, tuples and data classes of tensors that "
            f"depend on the parameters by operations of PyTorch, not {type(outputs).__name__}"
        )
    rows = count if all(one.ndim and len(one) == count for one in tensors) else 1
    real = [torch.view_as_real(one) if one.is_complex() else one for one in tensors]
    flat = torch.cat([one.reshape(rows, -1) for one in real], dim=1)
    sizes = [one.numel() // rows for one in real]

    def rebuild(flat: Tensor) -> Any:
        pieces = zip(flat.split(sizes, dim=1), real, tensors, strict=True)
        parts = (
            torch.view_as_complex(part.reshape(shaped.shape)) if one.is_complex() else part.reshape(shaped.shape)
            for part, shaped, one in pieces
        )
        return _with_tensors(torch, outputs, parts)

    return flat, rebuild


def detached(torch: ModuleType, outputs: Any, count: int) -> Any:
    """Return outputs without their graph; what depends on no parameters stays as it is. Not collective."""
    if torch.is_tensor(outputs):
        return outputs.detach()
    if not any(torch.is_tensor(one) and one.requires_grad for one in _leaves(torch, outputs)):
        return outputs
    flat, rebuild = packed(torch, outputs, count)
    return rebuild(flat.detach())


def unknown_kind(torch: ModuleType, outputs: Any) -> str:
    """Return the name of a type in the outputs whose parts cannot be told; or nothing. Not collective."""
    kinds = (
        type(one).__name__
        for one in _leaves(torch, outputs)
        if not torch.is_tensor(one) and not isinstance(one, _PLAIN)
    )
    return next(kinds, "")


def _parts(outputs: Any) -> dict[Any, Any] | None:
    """Return the parts of a container by key, place or name; None where it is none."""
    if isinstance(outputs, Mapping):
        return {key: outputs[key] for key in outputs}
    if isinstance(outputs, (list, tuple)):
        return dict(enumerate(outputs))
    if isinstance(outputs, SimpleNamespace):
        return dict(vars(outputs))
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        names = (field.name for field in dataclasses.fields(outputs))
        return {name: getattr(outputs, name) for name in names if hasattr(outputs, name)}
    return None


def _leaves(torch: ModuleType, outputs: Any) -> Iterator[Any]:
    """Yield what is in containers and is none, in order."""
    parts = None if torch.is_tensor(outputs) else _parts(outputs)
    if parts is None:
        yield outputs
    else:
        for one in parts.values():
            yield from _leaves(torch, one)


def _with_tensors(torch: ModuleType, outputs: Any, tensors: Iterator[Tensor]) -> Any:
    """Return outputs of the same kind with others in the places of the tensors that depend on parameters."""
    if torch.is_tensor(outputs):
        return next(tensors) if outputs.requires_grad else outputs
    parts = _parts(outputs)
    if parts is None:
        return outputs
    made = {key: _with_tensors(torch, one, tensors) for key, one in parts.items()}
    if isinstance(outputs, (list, tuple)):
        return type(outputs)(*made.values()) if hasattr(outputs, "_fields") else type(outputs)(made.values())
    return _with_parts(outputs, made)


def _with_parts(outputs: Any, parts: Mapping[Any, Any]) -> Any:
    """Return a copy of a dictionary, a data class or a namespace with other parts."""
    out: Any = copy.copy(outputs)
    for key, one in parts.items():
        try:
            if isinstance(outputs, Mapping):
                out[key] = one
            else:
                object.__setattr__(out, key, one)  # also where the class is frozen
        except TypeError as error:
            raise InputError(f"outputs in a {type(outputs).__name__} cannot be changed: return a dict") from error
    return out
