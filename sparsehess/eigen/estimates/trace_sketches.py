"""Trace estimators that take out a low-rank part first: Hutch++ and XTrace, growing until they are good enough."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsehess.eigen.estimates.reduced_operator import Reduction, combined
from sparsehess.runtime import on_root

# The estimates of XTrace share their sketch, so that the error of their mean is more than their spread tells: 1.04
# to 1.36 times as much for eigenvalues that fall like k^(-1/2) to k^(-3) and 6 to 40 vectors, 1.1 for random ones.
_CORRELATED = 1.15


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

    def __init__(self, operator: Reduction, image: Callable[[np.ndarray], np.ndarray]):
        self.operator, self.image = operator, image
        empty = np.empty((operator.layout.n_local, 0), order="F")
        self.omega, self.Q, self.FQ = empty, empty, empty
        self.R = np.empty((0, 0))  # Q'M F Omega

    def grow(self, omega: np.ndarray) -> None:
        """Take more random vectors."""
        operator, Y = self.operator, self.image(omega)
        new, sizes = Y, operator.dots(Y, Y)
        for _ in range(2):
            new = new - combined(self.Q, operator.gram(self.Q, new))
        # What rounding leaves of an image that Q held before is noise, not a direction.
        left = operator.dots(new, new) > 1e-20 * sizes
        new = operator.orthonormal(np.asfortranarray(new[:, left]))
        new = operator.orthonormal(np.asfortranarray(new - combined(self.Q, operator.gram(self.Q, new))))
        held = _beside(self.Q, new)
        old = self.R
        self.R = np.zeros((held.shape[1], self.omega.shape[1] + omega.shape[1]))
        self.R[: old.shape[0], : old.shape[1]] = old
        self.R[:, old.shape[1] :] = operator.gram(held, Y)
        self.FQ = _beside(self.FQ, self.image(new))
        self.omega = _beside(self.omega, omega)
        self.Q = held

    @property
    def whole(self) -> bool:
        """Whether Q spans all that there is, or all that F reaches: some images were dependent."""
        return self.Q.shape[1] == self.operator.total or self.Q.shape[1] < self.omega.shape[1]

    def core(self) -> np.ndarray:
        """Return QᵀM F Q, symmetrised."""
        H = self.operator.gram(self.Q, self.FQ)
        return (H + H.T) / 2


class HutchPP:
    """Hutch++: a third of the vectors each for Ω, Q and the rest.

    Collective to make and to use. Meyer, Musco, Musco, Woodruff 2021, "Hutch++: optimal stochastic trace
    estimation", algorithm 1.
    """

    least, share = 6, 3

    def __init__(self, operator: Reduction, image, seed: int):
        self.sketch, self.operator, self.image, self.seed = Sketch(operator, image), operator, image, seed
        self.values = np.empty(0)
        empty = np.empty((operator.layout.n_local, 0), order="F")
        self.G, self.FG = empty, empty

    def grow(self, samples: int) -> None:
        """Go on to so many vectors in all."""
        part, had = samples // 3, self.G.shape[1]
        omega = range(had, min(part, self.operator.total))
        if len(omega) and not self.sketch.whole:
            self.sketch.grow(self.operator.starts(omega, self.seed, "sphere"))
        new = self.operator.starts(range(2**30 + had, 2**30 + part), self.seed, "signs")
        self.FG = _beside(self.FG, self.image(new))
        self.G = _beside(self.G, new)

    def estimate(self) -> tuple[float, float, int]:
        """Return the trace, its standard error, and the degrees of freedom of that."""
        operator, Q, FQ = self.operator, self.sketch.Q, self.sketch.FQ
        if Q.shape[1] == operator.total:
            return float(np.trace(self.sketch.core())), 0.0, 1
        share = operator.gram(Q, self.G)
        rest, image = self.G - combined(Q, share), self.FG - combined(FQ, share)
        values = operator.dots(rest, image)
        m = len(values)
        return float(np.trace(self.sketch.core()) + values.mean()), float(values.std(ddof=1) / np.sqrt(m)), m - 1


class XTrace:
    """XTrace: each vector in turn is left out of the sketch, and estimates what the sketch of the others leaves.

    Collective to make and to use. Epperly, Tropp, Webber 2024, "XTrace: making the most of every sample in
    stochastic trace estimation", sections 2 and 3, with its normalisation of what is left.
    """

    least, share = 4, 2

    def __init__(self, operator: Reduction, image, seed: int):
        self.sketch, self.operator, self.seed = Sketch(operator, image), operator, seed

    def grow(self, samples: int) -> None:
        """Go on to so many vectors in all."""
        omega = range(self.sketch.omega.shape[1], min(samples // 2, self.operator.total))
        if len(omega) and not self.sketch.whole:
            self.sketch.grow(self.operator.starts(omega, self.seed, "sphere"))

    def estimate(self) -> tuple[float, float, int]:
        """Return the trace, its standard error, and the degrees of freedom of that."""
        operator, sketch = self.operator, self.sketch
        H = sketch.core()
        m = sketch.omega.shape[1]
        if sketch.Q.shape[1] == operator.total:
            return float(np.trace(H)), 0.0, 1
        W = operator.gram(sketch.Q, sketch.omega)
        sizes = operator.dots(sketch.omega, sketch.omega)
        values = on_root(operator.comm, _left_out, H, W, sketch.R, sizes, operator.total)
        return float(values.mean()), float(_CORRELATED * values.std(ddof=1) / np.sqrt(m)), m - 1


def _left_out(H, W, R, sizes, n) -> np.ndarray:
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
