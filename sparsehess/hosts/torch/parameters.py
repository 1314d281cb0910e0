"""Tensors that are differentiated by, as one vector of NumPy's."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime import optional

# A product in a batch is taken to need so many times what the graph of the gradient holds, and so many arrays of
# the size of x. Measured: 0.6 to 2.6 times, the most for convolutions, and 3 to 5 arrays.
GRAPHS = 2
ARRAYS = 6

# Products that a batch has at most.
MOST = 64


class Leaves:
    """Tensors that require gradients, one after another the variables."""

    def __init__(self, torch, tensors):
        self._torch, self.tensors = torch, list(tensors)
        self._sizes = [leaf.numel() for leaf in self.tensors]
        self.n = sum(self._sizes)

    @property
    def bytes(self) -> int:
        return self.n * self.tensors[0].element_size()

    def parts(self, array) -> list:
        """Return the parts of an (n,) or (m, n) array that belong to the leaves, at their precision."""
        first = self.tensors[0]
        whole = self._torch.tensor(array, dtype=first.dtype, device=first.device)
        parts = zip(self.tensors, whole.split(self._sizes, -1), strict=True)
        return [part.reshape((*part.shape[:-1], *leaf.shape)).to(leaf.device) for leaf, part in parts]

    def joined(self, parts) -> np.ndarray:
        """Return the (n,) or (m, n) array of such parts, of float64."""
        flat = [
            part.detach().reshape((*part.shape[: part.ndim - leaf.ndim], -1)).to(self.tensors[0].device)
            for leaf, part in zip(self.tensors, parts, strict=True)
        ]
        return self._torch.cat(flat, -1).to("cpu", self._torch.float64).numpy()

    def put(self, x) -> None:
        """Make x (n,) the values of the leaves."""
        with self._torch.no_grad():
            for leaf, part in zip(self.tensors, self.parts(x), strict=True):
                leaf.copy_(part)

    def filled(self, slopes) -> list:
        """Return gradients by the leaves in whose graph every leaf is; zeros for those that are None.

        Parameters that are not used, or only linearly, would be missing from derivatives of the gradient.
        """
        nothing = [0 * leaf for leaf in self.tensors]
        return [zero if slope is None else slope + zero for zero, slope in zip(nothing, slopes, strict=True)]


def known_device(torch, device) -> None:
    """Refuse what is no device of PyTorch's."""
    try:
        torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device={device!r} is none of PyTorch's, such as 'cpu' and 'cuda:0'") from error


def batched(torch, product, parts: list) -> list:
    """Return product(*parts) for parts with a first axis for the vectors, all at once."""
    if len(parts[0]) == 1:  # nothing to share: what PyTorch does for batches costs a little
        return [part[None] for part in product(*(part[0] for part in parts))]
    return vmap(torch)(product)(*parts)


def vmap(torch):
    """Return the `vmap` of PyTorch, or of the functorch that versions before 2 have beside them."""
    return (torch.func if hasattr(torch, "func") else optional("functorch", "from_torch", "torch")).vmap


def differentiable_attention(torch):
    """Return a context in which attention is not fused: PyTorch has no second derivatives of the fused ones."""
    if not hasattr(torch.nn, "attention"):
        return nullcontext()
    return torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)


def held(torch, tensors) -> int:
    """Return the bytes of the dense tensors that the graph of some tensors holds, each as often as it is held."""
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
