"""Do the derivatives that a node states fit differences? Asked of nodes that are not the package's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsehess.errors import CheckError, EvaluationError
from sparsehess.networks.node_function import Function

# Central differences: the best of these steps counts, as nobody knows how far a function is smooth. An error of
# what is stated is seen at all of them.
_STEPS = (1e-4, 1e-5, 1e-6, 1e-7)

# To what part of the largest number stated derivatives must fit differences, and each other.
_DIFFERENCES, _ALIKE = 1e-5, 1e-10


def check(name, function: Function, w: np.ndarray, X: list[np.ndarray], rng: np.random.Generator) -> None:
    """Compare all that a function states at a point with differences in a random direction.

    Not collective. Second derivatives that `curved`, `mixing` and `curved_parameters` deny are taken to be zero,
    so that what the block pattern relies on is checked too.

    Parameters
    ----------
    name
        Of the node, for messages.
    w, X
        Parameters (k,) and parents (N, d_p); differences look around this point.

    Raises
    ------
    CheckError
        Something does not fit.
    EvaluationError
        An array has another shape than it should.
    """
    here = function.at(w, X)
    N, d = here.value.shape
    T, V = [rng.normal(size=(N, 1, x.shape[1])) for x in X], rng.normal(size=(1, len(w)))
    Y, places = rng.normal(size=(N, 1, d)), range(len(X))
    delta = Y[:, 0]

    def shaped(what, array, *shape):
        if np.shape(array) != shape:
            raise EvaluationError(f"node {name}: {what} returned shape {np.shape(array)} where {shape} belongs")
        return array

    def differences(of: Callable, stated, what):
        best = (np.inf, 0.0)
        for step in _STEPS:
            ahead, behind = (
                of(function.at(w + t * V[0], [x + t * dx[:, 0] for x, dx in zip(X, T, strict=True)]))
                for t in (step, -step)
            )
            found = (ahead - behind) / (2 * step)
            scale = max(np.abs(array).max(initial=0.0) for array in (stated, found, ahead))
            error = np.abs(stated - found).max(initial=0.0)
            best = min(best, (error / scale if scale > 0 else error, error))
        if not best[0] <= _DIFFERENCES:
            raise CheckError(f"node {name}: {what} do not fit differences: they are off by {best[1]:.1e}")

    def alike(one, other, what):
        scale = max(np.abs(one).max(initial=0.0), np.abs(other).max(initial=0.0))
        if not np.abs(one - other).max(initial=0.0) <= _ALIKE * scale * max(N, 1):
            raise CheckError(f"node {name}: {what} do not fit each other")

    moved = sum((shaped("push", here.push(p, T[p]), N, 1, d) for p in places), np.zeros((N, 1, d)))
    if len(w):
        moved = moved + shaped("advance", here.advance(V), N, 1, d)
    differences(lambda there: there.value[:, None], moved, "first derivatives")
    by_parents = [shaped("pull", here.pull(p, Y), *T[p].shape) for p in places]
    dot = sum((g * dx).sum() for g, dx in zip(by_parents, T, strict=True))
    if len(w):
        by_parameters = shaped("spread", here.spread(Y), N, 1, len(w))
        alike(by_parameters.sum(axis=0), shaped("collect", here.collect(Y), 1, len(w)), "spread and collect")
        dot = dot + (by_parameters * V).sum()
    alike(np.array([dot]), np.array([(Y * moved).sum()]), "derivatives and their adjoints")

    for p in places:
        stated = np.zeros(T[p].shape)
        for q in places:
            if function.curved(p, q):
                stated = stated + shaped("bend", here.bend(delta, p, q, T[q]), *T[p].shape)
        if len(w) and function.mixing(p):
            stated = stated + shaped("mixed_adjoint", here.mixed_adjoint(delta, p, V), *T[p].shape)
        differences(lambda there, p=p: there.pull(p, Y), stated, f"second derivatives by parent {p}")
    if not len(w):
        return
    stated = np.zeros((N, 1, len(w)))
    for p in places:
        if function.mixing(p):
            mixed = shaped("mixed", here.mixed(delta, p, T[p]), *stated.shape)
            alike(mixed.sum(axis=0), here.collect_mixed(delta, p, T[p]), "mixed and collect_mixed")
            stated = stated + mixed
    total = stated.sum(axis=0)
    if function.curved_parameters:
        own = shaped("own", here.own(delta), len(w), len(w))
        alike(own, own.T, "second derivatives by parameters")
        product = shaped("own_product", here.own_product(delta, V), 1, len(w))
        alike(product, V @ own, "own and own_product")
        total = total + product
    differences(lambda there: there.collect(Y), total, "second derivatives by parameters")
