"""Checks of models before their curvature is used: products deterministic, linear and symmetric."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsehess.errors import CheckError

# Two values are the same up to these parts of their size, by precision: far above rounding, also where sums are
# taken in another order every time, and far below what chance or mistakes make.
SAME = {"float64": 1e-9, "float32": 1e-3}


def check_products(
    prepare: Callable[[], Callable[[np.ndarray], np.ndarray]],
    n: int,
    *,
    precision: str,
    name: str,
    advice: str = "",
) -> None:
    """Refuse products that change from call to call, or are not those of one symmetric matrix.

    Not collective: for what a rank computes alone.

    Parameters
    ----------
    prepare
        `prepare() -> product`, `product(V (m, n)) -> (m, n)`: the products at one place, prepared from the start.
    n
        Number of variables.
    precision
        Precision of the products.
    name
        Name of the function, for messages.
    advice
        What is known about why they might change, for messages.

    Raises
    ------
    CheckError
        The products are not deterministic, not linear, not symmetric, or not finite.
    """
    directions = np.random.default_rng(n).standard_normal((3, n))
    directions[2] = directions[0] + directions[1]
    once, again = prepare()(directions), prepare()(directions)
    if not np.isfinite(once).all():
        raise CheckError(f"products of {name} are not finite: is it twice differentiable at its parameters?")
    size = np.linalg.norm(once)
    apart = np.linalg.norm(once - again)
    if not apart <= SAME[precision] * size:
        raise CheckError(
            f"products of {name} are not deterministic: two with the same vector differ by {apart / size:.0e} of "
            f"their size{advice and ': ' + advice}"
        )
    lengths = np.linalg.norm(directions[:2], axis=1) * np.linalg.norm(once[:2], axis=1)[::-1]
    skew = _part(abs(directions[0] @ once[1] - directions[1] @ once[0]), lengths.max())
    # What is symmetric however it is rounded, as JᵀLJ, is not linear.
    bent = _part(np.linalg.norm(once[0] + once[1] - once[2]), np.linalg.norm(once, axis=1).max())
    for off, kind in ((skew, "symmetric"), (bent, "linear")):
        if off > SAME[precision] and off <= SAME["float32"]:
            raise CheckError(
                f"products of {name} are {kind} to {off:.0e} of their size alone, as in single precision: where a "
                "cast in it is meant (`.float()`, float32), say products='float32', and "
                "MatrixFree(objective, precision='single')"
            )
    if not skew <= SAME[precision]:
        raise CheckError(
            f"products of {name} are not symmetric: uᵀHv and vᵀHu differ by {skew:.0e} of their size; a part of "
            f"it has a derivative of its own that is wrong, which products='differences' does "
            f"without{advice and ', or ' + advice}"
        )
    if not bent <= SAME[precision]:
        raise CheckError(
            f"products of {name} are not linear: that with u + v and the sum of those with u and v differ by "
            f"{bent:.0e} of their size; a part of it has a derivative of its own that is wrong"
            f"{advice and ', or ' + advice}"
        )


def _part(number: float | np.floating, whole: float | np.floating) -> float:
    """Return which part of a whole a number is; 0 of nothing."""
    return float(number / whole) if whole > 0 else float(number)
