"""Checks of models before their curvature is used: deterministic, symmetric, a mean or a sum over samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsehess.errors import CheckError
from sparsehess.hosts.learning.model_share import ModelShare

# Two values are the same up to these parts of their size, by precision: far above rounding, also where sums are
# taken in another order every time, and far below what chance or mistakes make.
SAME = {"float64": 1e-9, "float32": 1e-3}

# The loss is compared on so many samples and twice as many.
_HALF = 8


def check_products(
    prepare: Callable[[], Callable[[np.ndarray], np.ndarray]],
    n: int,
    *,
    precision: str,
    name: str,
    advice: str = "",
) -> None:
    """Refuse products that change from call to call, or are not those of a symmetric matrix.

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
        The products are not deterministic, not symmetric, or not finite.
    """
    directions = np.random.default_rng(n).standard_normal((2, n))
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
    lengths = np.linalg.norm(directions, axis=1) * np.linalg.norm(once, axis=1)[::-1]
    skew = abs(directions[0] @ once[1] - directions[1] @ once[0])
    if not skew <= SAME[precision] * lengths.max():
        raise CheckError(
            f"products of {name} are not symmetric: uᵀHv and vᵀHu differ by {skew / lengths.max():.0e} of their "
            f"size; a part of it has a derivative of its own that is wrong{advice and ', or ' + advice}"
        )


def check_reduction(share: ModelShare, name: str) -> None:
    """Refuse a loss that is not the mean (or sum) over samples that it is said to be.

    Not collective.

    Parameters
    ----------
    share
        The model, its samples weighed.
    name
        Name of the function, for messages.

    Raises
    ------
    CheckError
        The loss is neither, or the other one; or it changes from call to call.
    """
    half = min(share.samples // 2, _HALF)
    few = max(2 * half, min(share.samples, 1))
    if not few:
        return
    advice = share.advice()
    whole, again = share.loss(0, few), share.loss(0, few)
    if not np.isfinite(whole):
        raise CheckError(f"the loss of {name} is {whole}")
    if abs(whole - again) > SAME["float64"] * abs(whole):
        raise CheckError(
            f"the loss of {name} is not deterministic: {whole:.6g}, then {again:.6g}{advice and ': ' + advice}"
        )
    if not half:
        return
    parts = share.loss(0, half) + share.loss(half, few)
    size = max(abs(whole), abs(parts), 1e-300)
    expected = {"mean": parts / 2, "sum": parts}
    fits = {kind: abs(whole - one) <= SAME["float64"] * size for kind, one in expected.items()}
    wanted, other = ("sum", "mean") if share.is_sum else ("mean", "sum")
    if fits[wanted]:
        return
    if fits[other]:
        raise CheckError(f"the loss of {name} is a {other} over samples: say reduction={other!r}")
    raise CheckError(
        f"the loss of {few} samples of {name} is neither the mean nor the sum of that of its halves, "
        f"{whole:.6g} against {parts / 2:.6g} and {parts:.6g}: {advice or 'samples depend on each other'}"
    )
