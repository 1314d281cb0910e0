"""What a search beside the found pairs says where nothing counts them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sparsehess.runtime.short_repr import ShortRepr


@dataclass(frozen=True, repr=False)
class Search(ShortRepr):
    """A search by Lanczos steps for eigenvalues beyond the pairs found, with a random start beside them.

    Attributes
    ----------
    products
        How many it took.
    probability
        Bound of the probability, over the random start, that an eigenvalue lies beyond the pairs found and the
        search has not seen it; 1 where it proves nothing.
    seen
        Whether it has seen one that no solve has found.
    """

    products: int
    probability: float
    seen: bool = False

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{self.products} products"
        yield self.in_words

    @property
    def in_words(self) -> str:
        """What was shown, in words. Not collective."""
        if self.seen:
            return "one lies beyond that was not found: ask for more pairs, or a smaller tolerance"
        if self.probability == 0:
            return "none beyond: the search has seen all eigenvalues"
        if self.probability >= 1:
            return "none seen beyond, which proves nothing: the others lie too near to the last"
        return f"one beyond is missed with a probability of at most {self.probability:.1g}"

    def facts(self) -> dict[str, Any]:
        """Return it as JSON. Not collective."""
        return {"products": self.products, "probability": self.probability, "seen": self.seen}

    @classmethod
    def read(cls, facts: Mapping[str, Any] | None) -> Search | None:
        """Return the search of stored facts, None where none was made. Not collective."""
        if facts is None:
            return None
        return cls(int(facts["products"]), float(facts["probability"]), bool(facts["seen"]))
