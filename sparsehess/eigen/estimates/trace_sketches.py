"""Trace estimators that take out a low-rank part first: Hutch++ and XTrace, growing until they are good enough."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from sparsehess.eigen.estimates.reduced_operator import ReducedOperator, combine
from sparsehess.runtime import on_root

# Maps a block X (n_local, k) to F X.
Image = Callable[[np.ndarray], np.ndarray]

# Random vectors of Hutch++ that are not those of its sketch have numbers from this one on.
_SECOND = 2**30


class Sketch:
    """An orthonormal basis Q of images F Ω of random vectors, with F Q; it can grow.

    Collective to make and to use. Keeps three vectors for each of Ω.

    Parameters
    ----------
    operator
        What F is a function of.
    image
        X (n_local, k) to F X.
    """

    def __init__(self, operator: ReducedOperator, image: Image):
        self.operator, self.image = operator, image
        empty = np.empty((operator.layout.n_local, 0), order="F")
        self.omega, self.Q, self.FQ = empty, empty, empty
        self.R = np.empty((0, 0))  # QᵀM F Ω

    def grow(self, omega: np.ndarray) -> None:
        """Take more random vectors.

        Collective.
        """
        operator, Y = self.operator, self.image(omega)
        new, sizes = Y, operator.dots(Y, Y)
        for _ in range(2):
            new = new - combine(self.Q, operator.gram(self.Q, new))
        # What rounding leaves of an image that Q held before is noise, not a direction.
        left = operator.dots(new, new) > 1e-20 * sizes
        new = operator.orthonormal_basis(np.asfortranarray(new[:, left]))
        new = operator.orthonormal_basis(np.asfortranarray(new - combine(self.Q, operator.gram(self.Q, new))))
        held = _beside(self.Q, new)
        old = self.R
        self.R = np.zeros((held.shape[1], self.omega.shape[1] + omega.shape[1]))
        self.R[: old.shape[0], : old.shape[1]] = old
        self.R[:, old.shape[1] :] = operator.gram(held, Y)
        self.FQ = _beside(self.FQ, self.image(new))
        self.omega = _beside(self.omega, omega)
        self.Q = held

    @property
    def complete(self) -> bool:
        """Whether Q spans all that there is, or all that F reaches: some images were dependent."""
        return self.Q.shape[1] == self.operator.total or self.Q.shape[1] < self.omega.shape[1]

    def core(self) -> np.ndarray:
        """Return QᵀM F Q, symmetrised.

        Collective.
        """
        H = self.operator.gram(self.Q, self.FQ)
        return (H + H.T) / 2


class SketchedTrace(ABC):
    """An estimate of a trace: that on the span of a sketch, exactly, and that on the rest, from samples.

    Collective to make and to use.

    Parameters
    ----------
    operator
        What F is a function of.
    image
        X (n_local, k) to F X.
    seed
        Of the random vectors.

    Attributes
    ----------
    least
        Fewest vectors that give an error.
    share
        One in so many vectors is for Ω of the sketch.
    correlation
        By how much the error of the mean is more than what the spread of independent samples tells.
    """

    least: ClassVar[int]
    share: ClassVar[int]
    correlation: ClassVar[float] = 1.0

    def __init__(self, operator: ReducedOperator, image: Image, seed: int):
        self.operator, self.image, self.seed = operator, image, seed
        self.sketch = Sketch(operator, image)

    def grow(self, samples: int) -> None:
        """Go on to so many vectors in all.

        Collective.
        """
        fresh = range(self.sketch.omega.shape[1], min(samples // self.share, self.operator.total))
        if len(fresh) and not self.sketch.complete:
            self.sketch.grow(self.operator.random_vectors(fresh, self.seed, "sphere"))

    def estimate(self) -> tuple[float, float, int]:
        """Return the trace, its standard error, and the degrees of freedom of that.

        Collective.
        """
        H = self.sketch.core()
        if self.sketch.Q.shape[1] == self.operator.total:
            return float(np.trace(H)), 0.0, 1
        inside, values = self._samples(H)
        m = len(values)
        return inside + float(values.mean()), float(self.correlation * values.std(ddof=1) / np.sqrt(m)), m - 1

    @abstractmethod
    def _samples(self, H: np.ndarray) -> tuple[float, np.ndarray]:
        """Return a part of the trace and (m,) estimates of what it lacks; H is the core of the sketch."""


class HutchPP(SketchedTrace):
    """Hutch++: a third of the vectors each for Ω, Q and the rest.

    Collective to make and to use. Meyer, Musco, Musco, Woodruff 2021, "Hutch++: optimal stochastic trace
    estimation", algorithm 1.
    """

    least, share = 6, 3

    def __init__(self, operator: ReducedOperator, image: Image, seed: int):
        super().__init__(operator, image, seed)
        self.G = self.FG = np.empty((operator.layout.n_local, 0), order="F")

    def grow(self, samples: int) -> None:
        """Go on to so many vectors in all.

        Collective.
        """
        super().grow(samples)
        fresh = range(_SECOND + self.G.shape[1], _SECOND + samples // self.share)
        new = self.operator.random_vectors(fresh, self.seed, "signs")
        self.FG = _beside(self.FG, self.image(new))
        self.G = _beside(self.G, new)

    def _samples(self, H: np.ndarray) -> tuple[float, np.ndarray]:
        operator, Q, FQ = self.operator, self.sketch.Q, self.sketch.FQ
        share = operator.gram(Q, self.G)
        return float(np.trace(H)), operator.dots(self.G - combine(Q, share), self.FG - combine(FQ, share))


class XTrace(SketchedTrace):
    """XTrace: each vector in turn is left out of the sketch, and estimates what the sketch of the others leaves.

    Collective to make and to use. Epperly, Tropp, Webber 2024, "XTrace: making the most of every sample in
    stochastic trace estimation", sections 2 and 3, with its normalisation of what is left.
    """

    # The estimates share their sketch: for eigenvalues that fall like k^(-1/2) to k^(-3) and 6 to 40 vectors the
    # error of their mean is 1.04 to 1.36 times what their spread tells, for random ones 1.1.
    least, share, correlation = 4, 2, 1.15

    def _samples(self, H: np.ndarray) -> tuple[float, np.ndarray]:
        operator, sketch = self.operator, self.sketch
        W = operator.gram(sketch.Q, sketch.omega)
        sizes = operator.dots(sketch.omega, sketch.omega)
        return 0.0, on_root(operator.comm, _left_out, H, W, sketch.R, sizes, operator.total)


def _left_out(H: np.ndarray, W: np.ndarray, R: np.ndarray, sizes: np.ndarray, n: int) -> np.ndarray:
    """Return (m,) estimates of the trace, each of a sketch without one vector, and of that vector."""
    m = W.shape[1]
    if R.shape[0] == m:
        # Column i of S is, within Q, the direction that only image i has.
        S = np.linalg.inv(R).T
        S /= np.linalg.norm(S, axis=0)
    else:  # dependent images: without any one of them the others span the same
        S = np.zeros_like(W)
    sigma = np.einsum("ij,ij->j", S, W)
    rest = W - S * sigma  # parts of the vectors in the span of the other images
    inside = np.trace(H) - np.einsum("ij,ij->j", S, H @ S)
    outside = np.einsum("ij,ij->j", R, W - 2 * rest) + np.einsum("ij,ij->j", rest, H @ rest)
    dimension = n - R.shape[0] + (R.shape[0] == m)
    length = sizes - np.einsum("ij,ij->j", rest, rest)
    return inside + outside * dimension / length


def _beside(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Return the columns of two blocks, contiguous. Not collective."""
    return np.concatenate([X.T, Y.T]).T
