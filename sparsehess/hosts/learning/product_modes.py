"""How products of a curvature are formed: their precision, and how many of them at once."""

from __future__ import annotations

from collections.abc import Sequence

from sparsehess.errors import none_of

# Precision of products, or that there are none; gradients are always of float64.
DIFFERENCES = "differences"
PRODUCTS = ("float64", "float32", DIFFERENCES)

# What a loss is over samples.
REDUCTIONS = ("mean", "sum")

# Products that a batch has at most.
MOST_PRODUCTS = 64


def product_precision(products: str) -> str:
    """Return the precision of products, that of gradients where there are none. Not collective."""
    return "float64" if products == DIFFERENCES else products


def require_one_of(known: Sequence[str], value: str, what: str = "") -> None:
    """Refuse a value that is not among those known.

    Not collective.

    Raises
    ------
    InputError
        It is another; the message lists them.
    """
    if value not in known:
        raise none_of(f"{what}{' ' if what else ''}{value!r}", value, known)
