"""What the error bars of eigenpairs are, in words."""

from __future__ import annotations

from typing import Any

import numpy as np

# Part of a bar that changes its digits, and backward errors that are more than rounding.
_SEEN, _LEFT = 0.01, 1e-12


def error_words(facts: dict[str, Any], of_hessian: str) -> list[str]:
    """Return what the bars of an answer are, a sentence each; none where it has none. Not collective.

    Parameters
    ----------
    facts
        Of `Spectrum.facts`, or of an answer that was stored.
    of_hessian
        What is said of bars that come from the error of the Hessian; empty for nothing.
    """
    left = np.array([np.nan if one is None else one for one in facts.get("solver_errors") or []], float)
    errors, bars, said = facts.get("errors"), facts.get("bars"), []
    if errors is not None and of_hessian:
        seen = len(left) == len(errors) and bool((left > _SEEN * np.asarray(errors, float)).any())
        more = f"; what the solver left, a bound of up to {np.nanmax(left):.1e}, is added" if seen else ""
        said.append(f"± is {of_hessian}{more}")
    elif errors is None and bars is not None:
        said.append(
            f"± is a bound of what the solver left, by the residuals, up to {np.nanmax(left):.1e}, and rounding; "
            "the matrix is taken as it is"
        )
    if np.isnan(left).any() and max(facts["residuals"]) > _LEFT:
        said.append("what the solver left is not in ±: no lower bound of the mass is known")
    return said
