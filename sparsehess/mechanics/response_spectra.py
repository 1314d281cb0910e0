"""Combination of peak modal responses: of modes that do not have their peaks at one time."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsehess.errors import InputError, none_of
from sparsehess.runtime.validation import reals

METHODS = ("srss", "cqc")


def combine_responses(
    peaks: Any, frequencies: Any = None, damping: Any = 0.05, *, method: str = "cqc"
) -> np.ndarray | float:
    """Return the peak of a response from the peaks of its modes.

    *Not collective.* SRSS, √Σ rᵢ², is for frequencies far apart [1]_; CQC, √Σᵢⱼ ρᵢⱼ rᵢ rⱼ, knows by ρ that modes
    of near frequencies swing together [2]_. Both are of random vibrations: a record's own peak may differ.

    Parameters
    ----------
    peaks
        (k, ...) peaks of each mode with their signs, such as Γ φ S_a(ω, ζ) / ω² of displacements, or the effective
        mass times S_a of the force at the base. Combine each quantity by itself: stresses are not those of
        combined displacements.
    frequencies
        (k,) positive frequencies of the modes, in any unit; for CQC.
    damping
        Ratio of critical damping, of all modes or (k,) of each, between 0 and 1; for CQC.
    method
        "srss" or "cqc".

    Returns
    -------
    float or (...) array
        The combined peak; it has no sign.

    Raises
    ------
    InputError
        Another method, sizes that do not fit, or numbers without meaning.

    References
    ----------
    .. [1] E. Rosenblueth, A basis for aseismic design, thesis, University of Illinois, 1951.
    .. [2] A. Der Kiureghian, A response spectrum method for random vibration analysis of MDF systems, Earthquake
       Engineering and Structural Dynamics 9 (1981), 419-435.

    Examples
    --------
    >>> import sparsehess as sh
    >>> round(sh.combine_responses([3.0, 4.0], method="srss"), 6)
    5.0
    >>> round(sh.combine_responses([3.0, 4.0], [1.0, 1.0]), 6)  # two modes of one frequency swing together
    7.0
    """
    values = reals(np.asarray(peaks), "peaks")
    if method not in METHODS:
        raise none_of(f"method={method!r}", method, METHODS)
    if values.ndim < 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(f"peaks must be (modes, ...) finite numbers, not {values.shape}")
    size = float(np.abs(values).max(initial=0.0)) or 1.0  # squares stay within double precision
    values = values / size
    if method == "srss":
        found = size * np.sqrt(np.sum(values**2, axis=0))
    else:
        table = correlation(frequencies, damping, len(values))
        squares = np.einsum("i...,ij,j...->...", values, table, values)
        found = size * np.sqrt(np.maximum(squares, 0.0))
    return float(found) if np.ndim(found) == 0 else found


def correlation(frequencies: Any, damping: Any, k: int) -> np.ndarray:
    """Return (k, k) Der Kiureghian's correlation of modes under white noise. Not collective.

    Raises
    ------
    InputError
        Frequencies that are not positive, or damping that is not between 0 and 1.
    """
    if frequencies is None:
        raise InputError("CQC needs the frequencies of the modes; method='srss' does without")
    w, z = reals(np.asarray(frequencies), "frequencies"), reals(np.asarray(damping), "damping")
    if w.shape != (k,) or not (np.isfinite(w).all() and (w > 0).all()):
        raise InputError(f"frequencies must be ({k},) positive numbers, one for each mode")
    if z.shape not in ((), (k,)) or not ((z > 0).all() and (z < 1).all()):
        raise InputError(f"damping must be a ratio between 0 and 1, of all modes or ({k},) of each")
    z = np.broadcast_to(z, (k,))
    # Of each pair the lower frequency comes first: the formula is the same, and its powers do not overflow.
    first = w[:, None] <= w[None, :]
    r = np.minimum.outer(w, w) / np.maximum.outer(w, w)
    zi, zj = np.where(first, z[:, None], z[None, :]), np.where(first, z[None, :], z[:, None])
    above = 8 * np.sqrt(zi * zj) * (r * zi + zj) * r**1.5
    return above / ((1 - r**2) ** 2 + 4 * zi * zj * r * (1 + r**2) + 4 * (zi**2 + zj**2) * r**2)
