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

    def length(apart: Tensor, p: float) -> Tensor:
        """As PyTorch has it, of derivative zero where it is zero: points may be at no distance from themselves."""
        same = (apart == 0).all(-1)
        some = torch.linalg.vector_norm(torch.where(same[..., None], 1.0, apart), ord=p, dim=-1)
        return torch.where(same, 0.0, some)

    def cdist(one: Tensor, other: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
        return length(one[..., :, None, :] - other[..., None, :, :], p)

    def pdist(points: Tensor, p: float = 2.0) -> Tensor:
        first, second = torch.triu_indices(len(points), len(points), 1, device=points.device)
        return length(points[first] - points[second], p)

    known: dict[str, Callable[..., Any]] = {"_weight_norm": weight_norm, "cdist": cdist, "pdist": pdist}
    places = (torch, torch.nn.functional)
    return {
        getattr(place, name): function
        for place in places
        for name, function in known.items()
        if hasattr(place, name)
    }
