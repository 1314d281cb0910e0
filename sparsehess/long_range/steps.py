"""Steps of random sign, and products with the Hessian itself."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.finite_differences import Steps, directional
from sparsehess.derivatives.gradient_noise import Noise
from sparsehess.derivatives.scales import Scales
from sparsehess.runtime.random_numbers import draw_normal, draw_uniform

# Steps are turned round where there is so many times their length on either side.
_ROOM = 2.0


def with_random_signs(evaluations: Evaluations, scales: Scales, steps: Steps, seed: int) -> Steps:
    """Return the steps of a forward or central scheme, or of products, every variable's to a random side.

    Not collective. What is beside a bound keeps its side.
    """
    signs = np.where(draw_uniform(evaluations.layout, seed) < 0, -1.0, 1.0)
    turned = (signs < 0) & (scales.room >= _ROOM * np.abs(steps.taken))
    if steps.scheme == "product":
        return replace(steps, taken=np.where(turned, -steps.taken, steps.taken))
    x = evaluations.x
    if steps.scheme == "forward":
        stood = x + steps.taken
        stand = np.where(turned, x - steps.taken, stood)
        return replace(steps, nodes=((stand, 1.0), (None, -1.0)), taken=stand - x)
    (plus, up), (minus, down) = steps.nodes
    assert plus is not None and minus is not None
    swapped = ((np.where(turned, minus, plus), up), (np.where(turned, plus, minus), down))
    return replace(steps, nodes=swapped, taken=np.where(turned, -steps.taken, steps.taken))


class FreshProduct(NamedTuple):
    """A product along a random direction.

    Attributes
    ----------
    image, along
        (n_local,) H d and d.
    noise
        The norm of that of H d, with what the step leaves out.
    """

    image: np.ndarray
    along: np.ndarray
    noise: float


class TrueProducts:
    """Products with the Hessian itself, by the objective's own or by central differences.

    Collective to use.

    Attributes
    ----------
    calls_each
        Gradients or products that one takes.
    """

    def __init__(self, evaluations: Evaluations, steps: Steps, noise: Noise | None):
        self._evaluations, self._steps, self._noise = evaluations, steps, noise
        self.calls_each = 1 if steps.scheme == "product" else 2
        self._fresh: dict[tuple[int, int], list[FreshProduct]] = {}

    def fresh(self, many: int, seed: int) -> list[FreshProduct]:
        """Return products along normal directions d, which are for telling errors alone.

        Collective. They are evaluated once: an estimate of H that was not made of them may be told by those that
        told another.
        """
        if (many, seed) not in self._fresh:
            self._fresh[many, seed] = [
                FreshProduct(*self.product(draw_normal(self._evaluations.layout, 1000 + 7 * seed + one)))
                for one in range(many)
            ]
        return self._fresh[many, seed]

    def product(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Return (H d, d, noise) (n_local,) for d, the vector or, at bounds, what differs a little from it.

        Collective. The noise is the norm of that of H d, with what the step leaves out, 0 of products. The step is
        as long as the variable that moves farthest allows.
        """
        farthest = self._farthest(vector)
        if farthest == 0.0:
            return np.zeros(len(vector)), vector, 0.0
        image, taken = directional(self._evaluations, vector / farthest, self._steps.scheme)
        if self._noise is None:
            return image * farthest, taken * farthest, 0.0
        return image * farthest, taken * farthest, self._noise_and_bend(self._noise, taken) * farthest

    def _noise_and_bend(self, noise: Noise, step: np.ndarray) -> float:
        """Return the norm of the noise of a difference, and of what a step (n_local,) leaves out. Collective."""
        comm = self._evaluations.comm
        level = noise.relative * noise.slope  # no less than rounding, though few values may be even by chance
        reach = comm.allreduce(float((np.abs(step) / noise.length).max(initial=0.0)), op=MPI.MAX)
        left = noise.slope * reach**3 / (6 * noise.bend * np.minimum(noise.bend, 1.0))  # as steps are planned by
        squares = comm.allreduce(np.array([0.5 * (level @ level), left @ left]))
        return float(np.sqrt(squares).sum())

    def _farthest(self, vector: np.ndarray) -> float:
        wanted = self._steps.wanted if self._noise is not None else np.ones(len(vector))
        most = float((np.abs(vector) / wanted).max(initial=0.0))
        return self._evaluations.comm.allreduce(most, op=MPI.MAX)
