"""What a model returns, a tree of arrays, as real arrays that can be differentiated, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sparsehess.errors import InputError
from sparsehess.hosts.jax.parameters import is_complex, is_real

if TYPE_CHECKING:
    from jax import Array

    Rebuild = Callable[[Sequence[Array]], Any]


class SplitOutputs:
    """Outputs of a model as real arrays: those of floating point, and real and imaginary parts of complex ones.

    Parameters
    ----------
    jax
        The package.
    outputs
        A tree of arrays; what is of integers, and what is no array, stays as it is.

    Attributes
    ----------
    parts
        The real arrays, in order.

    Raises
    ------
    InputError
        There are none.
    """

    def __init__(self, jax: ModuleType, outputs: Any) -> None:
        self._jax = jax
        self._leaves, self._tree = jax.tree_util.tree_flatten(outputs)
        self.parts = self._real(self._leaves)
        if not self.parts:
            raise InputError(
                f"the model must return arrays of floating point, or a tree of them, not {type(outputs).__name__}"
            )

    def parts_of(self, outputs: Any) -> list[Array]:
        """Return the real arrays of such outputs. Not collective. It can be traced."""
        return self._real(self._jax.tree_util.tree_leaves(outputs))

    def _real(self, leaves: Sequence[Any]) -> list[Array]:
        out: list[Array] = []
        for leaf in leaves:
            if is_complex(leaf):
                out += [leaf.real, leaf.imag]
            elif is_real(leaf):
                out.append(self._jax.numpy.asarray(leaf))
        return out

    def rebuilt(self, parts: Sequence[Array]) -> Any:
        """Return outputs with other real arrays. Not collective. It can be traced."""
        left = iter(parts)
        leaves = [
            self._jax.lax.complex(next(left), next(left))
            if is_complex(leaf)
            else next(left)
            if is_real(leaf)
            else leaf
            for leaf in self._leaves
        ]
        return self._jax.tree_util.tree_unflatten(self._tree, leaves)

    def joined(self, parts: Sequence[Array]) -> Array:
        """Return one array of real ones whose first axis are the samples; a single one is itself.

        Not collective. It can be traced.

        Raises
        ------
        InputError
            They have different numbers of samples.
        """
        if len(parts) == 1:
            return parts[0]
        counts = {part.shape[:1] for part in parts}
        if len(counts) > 1 or () in counts:
            raise InputError(
                f"outputs have shapes {[part.shape for part in parts]}: the first axis of all must be samples"
            )
        return self._jax.numpy.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def separated(self, joined: Array) -> list[Array]:
        """Return the real arrays that such a one is made of. Not collective. It can be traced."""
        if len(self.parts) == 1:
            return [joined]
        out, begin = [], 0
        for part in self.parts:
            width = part.size // len(part)
            out.append(joined[:, begin : begin + width].reshape(part.shape))
            begin += width
        return out
