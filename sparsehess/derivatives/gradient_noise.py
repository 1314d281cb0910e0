"""How noisy a gradient is, and over which distances it bends: from gradients at a few points of a line.

Differences of the k-th order of equally spaced values fall with k as long as they show the function,
and grow with k once they show its noise (Hamming 1973, chapter 6; Moré and Wild 2011, section 3).
Five points very near x show the noise; two more, as far away as the noise asks for, show the size
of the Hessian and how soon it changes. All lie on a random line through x.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.scales import Scales
from sparsehess.runtime.citations import cite
from sparsehess.runtime.random_numbers import draw_signed

_POINTS = 5
_SEED = 20110309

# Distances of the near points, and of the far ones at least and at most, in typical lengths.
_NEAR = 1e-5
_FAR = 1e-3, 3e-2

# Levels show noise if they agree on its size this well (Moré and Wild 2011, section 3.3).
_AGREE = 4.0

# No steps are made for less noise than rounding makes, though sums may be exact by chance; and curvature is not
# trusted to last longer than this many typical lengths.
_EPS = np.finfo(float).eps
_LEAST_NOISE = 0.01 * _EPS
_FARTHEST = 10.0

# A row's own differences are few: its size is taken to be no less than this part of the mean.
_LEAST_SHARE = 0.03


@dataclass(frozen=True, eq=False)
class Noise:
    """What a few gradients tell of all others near x.

    Attributes
    ----------
    level
        (n_local,) standard deviation of the noise of each component of the gradient.
    relative
        (n_local,) that noise over the change of the component within a typical length.
    bend
        The length over which the Hessian changes by its own size, in typical lengths; 1 where noise hides it.
    measured
        Whether `bend` was seen.
    """

    level: np.ndarray
    relative: np.ndarray
    bend: float
    measured: bool


def estimate_noise(evaluations: Evaluations, scales: Scales) -> Noise:
    """Return the noise of the gradient around the point of the evaluations.

    Collective. Costs 7 gradients.
    """
    cite("noise")
    layout, comm, x = evaluations.layout, evaluations.comm, evaluations.x
    typical, room = scales.length, scales.room

    def mean(squares: np.ndarray) -> float:
        return float(comm.allreduce(float(squares.sum()))) / max(layout.n, 1)

    def line(length: float) -> np.ndarray:
        return draw_signed(layout, _SEED) * np.minimum(length * typical, room)

    half = _POINTS // 2
    near = line(half * _NEAR) / half
    # Exact in floating point: where the points are not is no noise of the function.
    grain = np.spacing(np.abs(x) + half * np.abs(near))
    near = np.rint(near / grain) * grain
    # As energies: rows of different units can be compared.
    values = evaluations.gradients([x + k * near for k in range(-half, half + 1)]) * typical
    table, squares = values, {}
    for k in range(1, _POINTS):
        table = np.diff(table, axis=0)
        squares[k] = factorial(k) ** 2 / factorial(2 * k) * np.mean(table**2, axis=0)
    top = _POINTS - 1
    levels = [mean(squares[k]) for k in (top - 1, top)]
    # Where levels do not agree they still fall, and the last one bounds the noise.
    settled = max(levels) <= _AGREE**2 * min(levels)
    noise = np.sqrt(np.mean(levels) if settled else levels[-1])

    spread = np.sqrt(mean((near / typical) ** 2))
    slope = np.sqrt(max(2 * mean(squares[1]) - 2 * noise**2, 0.0))
    visible = slope > 2 * noise and spread > 0
    far = min(max(_FAR[0], 10 * np.sqrt(noise * spread / slope)), _FAR[1]) if visible else _FAR[1]
    direction = line(far)
    ahead, behind = evaluations.gradients([x + direction, x - direction]) * typical
    spread = np.sqrt(mean((direction / typical) ** 2))
    first, second = 0.5 * (ahead - behind), ahead - 2 * values[half] + behind
    size = np.sqrt(mean(first**2)) / spread if spread > 0 else 0.0  # of the Hessian: change in a typical length
    noise = max(noise, _LEAST_NOISE * size)
    level = np.sqrt(0.5 * (squares[top] + noise**2))
    steep = np.maximum(np.abs(first) / spread, _LEAST_SHARE * size) if size > 0 else np.ones(layout.n_local)
    measured = bool(mean(second**2) > 4 * 6 * noise**2)  # three values add up to the variance of six
    bend = min(float(spread * np.sqrt(mean(first**2) / mean(second**2))), _FARTHEST) if measured else 1.0
    return Noise(level / typical, np.maximum(level / steep, _EPS), bend, measured)
