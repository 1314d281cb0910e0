"""Graphs of derivatives: what they hold, products of many vectors with one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from sparsehess.runtime import optional

if TYPE_CHECKING:
    from torch import Tensor

# A product in a batch is taken to need so many times what the graph of the gradient holds, and so many arrays of
# the size of x. Measured: 0.6 to 2.6 times, the most for convolutions, and 3 to 5 arrays.
GRAPHS = 2
ARRAYS = 6


def apply_batched(
    torch: ModuleType, product: Callable[..., Sequence[Tensor]], parts: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Return product(*parts) for parts with a first axis for the vectors, all at once.

    Not collective.
    """
    if len(parts[0]) == 1:  # nothing to share: what PyTorch does for batches costs a little
        return [part[None] for part in product(*(part[0] for part in parts))]
    try:
        return vmap(torch)(product)(*parts)
    except (RuntimeError, NotImplementedError):  # something in it that PyTorch has no batches of: one by one
        every = [product(*one) for one in zip(*parts, strict=True)]
        return [torch.stack(column) for column in zip(*every, strict=True)]


def vmap(torch: ModuleType) -> Callable[[Callable], Callable]:
    """Return the `vmap` of PyTorch, or of the functorch that versions before 2 have beside them.

    Not collective.
    """
    return (torch.func if hasattr(torch, "func") else optional("functorch", "from_torch", "torch")).vmap


def graph_bytes(torch: ModuleType, tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the dense tensors that the graph of some tensors holds, each as often as it is held.

    Not collective.
    """
    seen, nodes, total = set(), {tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None}, 0
    while nodes:
        node = nodes.pop()
        seen.add(node)
        nodes.update(following for following, _ in node.next_functions if following and following not in seen)
        for name in dir(node):
            if name.startswith("_saved_"):
                saved = getattr(node, name)
                for item in saved if isinstance(saved, (tuple, list)) else [saved]:
                    if torch.is_tensor(item) and item.layout == torch.strided:
                        total += item.numel() * item.element_size()
    return total
