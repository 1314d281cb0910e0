"""Comparison of the derivatives that a node states with finite differences."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np

from sparsehess.errors import CheckError, EvaluationError
from sparsehess.networks.node_function import NodeDerivatives, NodeFunction

# Steps of central differences. The best of them counts, as nobody knows how smooth a function is; an error of what
# is stated shows at all of them.
_STEPS = (1e-4, 1e-5, 1e-6, 1e-7)

# Part of the largest number to which derivatives must fit differences, and each other.
_TO_DIFFERENCES, _TO_EACH_OTHER = 1e-5, 1e-10


def check_derivatives(
    name: Hashable, function: NodeFunction, w: np.ndarray, X: list[np.ndarray], rng: np.random.Generator
) -> None:
    """Compare all derivatives that a function states at a point with differences in a random direction.

    *Not collective.*

    Second derivatives that the function denies count as zero, so the block pattern is checked too.

    Parameters
    ----------
    name
        Of the node, for messages.
    function
        To be checked.
    w, X
        Parameters (k,) and parents (N, d_p), the point.
    rng
        Source of the direction.

    Raises
    ------
    CheckError
        Derivatives do not fit differences, or each other.
    EvaluationError
        An array has another shape than it should.
    """
    check = _Check(name, function, w, X, rng)
    check.first_derivatives()
    for p in range(len(X)):
        check.second_derivatives_by_parent(p)
    if len(w):
        check.second_derivatives_by_parameters()


class _Check:
    """A point with tangents T of the parents, V of the parameters, and an adjoint Y, all random."""

    def __init__(
        self, name: Hashable, function: NodeFunction, w: np.ndarray, X: list[np.ndarray], rng: np.random.Generator
    ):
        self._name, self._function, self._w, self._X = name, function, w, X
        self._here = function.evaluate(w, X)
        self._N, self._d = self._here.value.shape
        self._T = [rng.normal(size=(self._N, 1, x.shape[1])) for x in X]
        self._V = rng.normal(size=(1, len(w)))
        self._Y = rng.normal(size=(self._N, 1, self._d))
        self._delta = self._Y[:, 0]

    def first_derivatives(self) -> None:
        """Compare tangents with differences, and adjoints with tangents."""
        here, N, k = self._here, self._N, len(self._w)
        moved, dot = np.zeros((N, 1, self._d)), 0.0
        for p, T in enumerate(self._T):
            moved = moved + self._shaped("jvp", here.jvp(p, T), N, 1, self._d)
        if k:
            moved = moved + self._shaped("parameter_jvp", here.parameter_jvp(self._V), N, 1, self._d)
        self._compare_with_differences(lambda there: there.value[:, None], moved, "first derivatives")
        for p, T in enumerate(self._T):
            dot += (self._shaped("vjp", here.vjp(p, self._Y), *T.shape) * T).sum()
        if k:
            by_samples = self._shaped("parameter_vjp", here.parameter_vjp(self._Y), N, 1, k)
            total = self._shaped("parameter_vjp_sum", here.parameter_vjp_sum(self._Y), 1, k)
            self._compare(by_samples.sum(axis=0), total, "parameter_vjp and parameter_vjp_sum")
            dot += (by_samples * self._V).sum()
        adjoint = np.array([(self._Y * moved).sum()])
        self._compare(np.array([dot]), adjoint, "derivatives and their adjoints")

    def second_derivatives_by_parent(self, p: int) -> None:
        """Compare the derivative of `vjp` with differences."""
        here, function, shape = self._here, self._function, self._T[p].shape
        stated = np.zeros(shape)
        for q, T in enumerate(self._T):
            if function.couples_parents(p, q):
                product = here.second_product(self._delta, p, q, T)
                stated = stated + self._shaped("second_product", product, *shape)
        if len(self._w) and function.couples_to_parameters(p):
            product = here.mixed_transposed_product(self._delta, p, self._V)
            stated = stated + self._shaped("mixed_transposed_product", product, *shape)
        self._compare_with_differences(
            lambda there: there.vjp(p, self._Y), stated, f"second derivatives by parent {p}"
        )

    def second_derivatives_by_parameters(self) -> None:
        """Compare the derivative of `parameter_vjp_sum` with differences."""
        here, function, k = self._here, self._function, len(self._w)
        by_samples = np.zeros((self._N, 1, k))
        for p, T in enumerate(self._T):
            if function.couples_to_parameters(p):
                mixed = self._shaped("mixed_product", here.mixed_product(self._delta, p, T), *by_samples.shape)
                total = here.mixed_product_sum(self._delta, p, T)
                self._compare(mixed.sum(axis=0), total, "mixed_product and mixed_product_sum")
                by_samples = by_samples + mixed
        stated = by_samples.sum(axis=0)
        if function.couples_parameters:
            own = self._shaped("parameter_hessian", here.parameter_hessian(self._delta), k, k)
            self._compare(own, own.T, "second derivatives by parameters")
            product = here.parameter_hessian_product(self._delta, self._V)
            product = self._shaped("parameter_hessian_product", product, 1, k)
            self._compare(product, self._V @ own, "parameter_hessian and parameter_hessian_product")
            stated = stated + product
        self._compare_with_differences(
            lambda there: there.parameter_vjp_sum(self._Y), stated, "second derivatives by parameters"
        )

    def _shaped(self, what: str, array: np.ndarray, *shape: int) -> np.ndarray:
        if np.shape(array) != shape:
            raise EvaluationError(
                f"node {self._name}: {what} returned shape {np.shape(array)} where {shape} belongs"
            )
        return array

    def _moved(self, step: float) -> NodeDerivatives:
        """Return the derivatives at a step along the direction."""
        X = [x + step * T[:, 0] for x, T in zip(self._X, self._T, strict=True)]
        return self._function.evaluate(self._w + step * self._V[0], X)

    def _compare_with_differences(
        self, read: Callable[[NodeDerivatives], np.ndarray], stated: np.ndarray, what: str
    ) -> None:
        best = (np.inf, 0.0)
        for step in _STEPS:
            ahead, behind = read(self._moved(step)), read(self._moved(-step))
            found = (ahead - behind) / (2 * step)
            scale = max(np.abs(array).max(initial=0.0) for array in (stated, found, ahead))
            error = np.abs(stated - found).max(initial=0.0)
            best = min(best, (error / scale if scale > 0 else error, error))
        if not best[0] <= _TO_DIFFERENCES:
            raise CheckError(f"node {self._name}: {what} do not fit differences: they are off by {best[1]:.1e}")

    def _compare(self, one: np.ndarray, other: np.ndarray, what: str) -> None:
        scale = max(np.abs(one).max(initial=0.0), np.abs(other).max(initial=0.0))
        if not np.abs(one - other).max(initial=0.0) <= _TO_EACH_OTHER * scale * max(self._N, 1):
            raise CheckError(f"node {self._name}: {what} do not fit each other")
