"""Operations whose second derivatives PyTorch lacks, or has wrong, made of others that have theirs."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def compositions(torch: ModuleType) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return functions by those that they stand for, with the same arguments.

    Not collective.
    """

    def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
        """As `torch._weight_norm`, whose Hessians are not symmetric."""
        return v * (g / torch.norm_except_dim(v, 2, dim))

    def cdist(one: Tensor, other: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
        apart = one[..., :, None, :] - other[..., None, :, :]
        return torch.linalg.vector_norm(apart, ord=p, dim=-1)

    def pdist(points: Tensor, p: float = 2.0) -> Tensor:
        first, second = torch.triu_indices(len(points), len(points), 1, device=points.device)
        return torch.linalg.vector_norm(points[first] - points[second], ord=p, dim=-1)

    known: dict[str, Callable[..., Any]] = {"_weight_norm": weight_norm, "cdist": cdist, "pdist": pdist}
    places = (torch, torch.nn.functional)
    return {
        getattr(place, name): function
        for place in places
        for name, function in known.items()
        if hasattr(place, name)
    }
