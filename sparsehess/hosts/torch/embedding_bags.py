"""Bags of embeddings by operations that can be differentiated as often as one likes; PyTorch's own can be once."""

from __future__ import annotations

from inspect import BoundArguments
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def embedding_bag(torch: ModuleType, bound: BoundArguments) -> Tensor:
    """Return the value of `torch.nn.functional.embedding_bag` for some arguments.

    Not collective. Where gradients are scaled by frequencies, and are no gradients, PyTorch's own is called.
    """
    bound.apply_defaults()
    given = dict(bound.arguments)
    words, weight, offsets = given["input"], given["weight"], given["offsets"]
    if given["scale_grad_by_freq"] or words.ndim not in (1, 2) or words.is_floating_point():
        return torch.nn.functional.embedding_bag(*bound.args, **bound.kwargs)
    if words.is_nested:
        offsets, words = words.offsets()[:-1], words.values()
        if given["per_sample_weights"] is not None:
            given["per_sample_weights"] = given["per_sample_weights"].values()
    bags, count = _bags(torch, words, offsets, given["include_last_offset"])
    return _reduced(torch, words.reshape(-1), weight, bags, count, given)


def _bags(torch: ModuleType, words: Tensor, offsets: Tensor | None, last: bool) -> tuple[Tensor, int]:
    """Return to which bag each word belongs, and how many bags there are."""
    if words.ndim == 2:
        bags = torch.arange(len(words), device=words.device)
        return bags.repeat_interleave(words.shape[1]), len(words)
    if offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    begins = offsets[:-1] if last else offsets
    places = torch.arange(len(words), device=words.device)
    return torch.searchsorted(begins.contiguous(), places, right=True) - 1, len(begins)


def _reduced(
    torch: ModuleType, words: Tensor, weight: Tensor, bags: Tensor, count: int, given: dict[str, Any]
) -> Tensor:
    """Return the sums, means or maxima (count, width) of the rows of words in each bag."""
    rows = torch.nn.functional.embedding(words, weight, None, given["max_norm"], given["norm_type"])
    padding = given["padding_idx"]
    if padding is not None:
        kept = words != padding % len(weight)
        rows, bags, words = rows[kept], bags[kept], words[kept]
    factors = given["per_sample_weights"]
    if factors is not None:
        if given["mode"] != "sum":
            raise NotImplementedError("per_sample_weights are for mode='sum'")
        factors = factors.reshape(-1)
        rows = rows * (factors if padding is None else factors[kept])[:, None]
    empty = rows.new_zeros((count, weight.shape[1]))
    if given["mode"] == "max":
        # Where a bag has its largest numbers: the first of equal ones.
        with torch.no_grad():
            index = bags[:, None].expand_as(rows)
            largest = torch.full_like(empty, -torch.inf).scatter_reduce(0, index, rows.detach(), "amax")
            places = torch.arange(len(rows), device=rows.device)[:, None].expand_as(rows)
            at = torch.where(rows.detach() == largest[bags], places, len(rows))
            first = torch.full_like(empty, len(rows), dtype=at.dtype).scatter_reduce(0, index, at, "amin")
        return torch.cat([rows, empty[:1]]).gather(0, first)  # of an empty bag the row of zeros
    sums = empty.index_add(0, bags, rows)
    if given["mode"] == "sum":
        return sums
    sizes = torch.bincount(bags, minlength=count).clamp(min=1)
    return sums / sizes[:, None].to(sums.dtype)
