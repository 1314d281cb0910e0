"""Shares of eigenvalues, each the mean of samples, and their standard errors."""

from __future__ import annotations

import numpy as np

# Shares that differ by less are the same.
SAME = 1e-12

# For so many samples counts the variance of random directions beside that of the samples.
_PRIOR = 4


def mean_and_error(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of rows and its standard error; of a single row, in which nothing is random, no error.

    Not collective.
    """
    if len(rows) == 1:
        return rows[0], np.zeros(rows.shape[1:])
    return rows.mean(axis=0), rows.std(axis=0, ddof=1) / np.sqrt(len(rows))


def share_and_error(rows: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of rows of shares of so many eigenvalues and its standard error, be they few.

    Not collective. The variance of a count is proportional to it, or to what is left beside it: where few samples
    have met little of what is there they spread little as well. The error is that of the greatest share for which
    the one found is one of its own errors off (after Wilson 1927, "Probable inference, the law of succession, and
    statistical inference"). The factor is that of the samples, drawn somewhat to that of random directions, 2: few
    do not tell it well. Without a spread there is no error: signs are exact for diagonal matrices.
    """
    value, error = mean_and_error(rows)
    samples, aside = len(rows), np.clip(np.minimum(value, 1 - value), 0.0, 1.0)
    spread = aside * (error > SAME)
    factor = np.divide(number * samples * error**2, aside, out=np.zeros_like(error), where=spread > 0)
    factor = ((samples - 1) * factor + _PRIOR * 2 * (1 - aside)) / (samples - 1 + _PRIOR) * (spread > 0)
    half = 0.5 * factor / (samples * number)
    return value, half + np.sqrt(half**2 + factor * aside / (samples * number))
