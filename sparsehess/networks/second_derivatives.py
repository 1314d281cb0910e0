"""Second derivatives of a network: products with its Hessian, and blocks of it.

Given tangents T_u of the values, the backward pass of second order propagates the tangents S_u of the adjoints
δ_u, from the children u of a node p to p:

    S_p = Σ_u (J_{u,p}ᵀ S_u + Σ_q (δ_u · ∂²f_u/∂x_p∂x_q) T_q),      q the parents of u.

*Products H V*: T starts from the directions V of the parameters (Pearlmutter 1994, here on any graph). At a node
with parameters θ its mixed second derivatives by a parent and θ add to S of the parent.

*Blocks*: T starts from the identity at a node w, T_w = I, so that S_v is the block of second derivatives of the
losses by the values of nodes v and w. For v = w or a later v, the block of their parameters is

    H_vw = Σ_samples (J_{v,θ}ᵀ S_v + Σ_p (δ_v · ∂²f_v/∂θ∂x_p) T_p) J_{w,θ} + [v = w] δ_v · ∂²f_v/∂θ².

This is edge pushing (Gower, Mello 2012, section 4) by whole nodes, with one of the two arguments at a time: no
array has a dimension for each of parameters, samples and outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from sparsehess.networks.plan import PARTS
from sparsehess.networks.propagation import ForwardPass, NodeArrays


class SecondOrderPass:
    """The backward pass of the tangents of the adjoints.

    *Not collective.*

    Parameters
    ----------
    forward
        Values and adjoints.
    tangents
        (N, m, d) of the nodes; those of other nodes are zero.
    part
        Of the Hessian: only nodes in it count with their second derivatives.
    first
        Number of the node at which the pass ends.
    """

    def __init__(self, forward: ForwardPass, tangents: NodeArrays, part: str, first: int = 0):
        self._forward, self._tangents, self._first = forward, tangents, first
        self._in_part = PARTS[part]
        self._adjoint_tangents = NodeArrays()

    def nodes(self) -> Iterator[int]:
        """Yield the nodes from the last to the first, each when the tangents of its adjoint are complete."""
        for u in reversed(range(self._first, len(self._forward.plan.nodes))):
            if u in self._forward.adjoints:
                self._pull_back(u)
                yield u
                self._adjoint_tangents.pop(u, None)

    def _pull_back(self, u: int) -> None:
        """Propagate the tangents of the adjoint of node u to its parents."""
        plan, derivatives, delta = self._forward.plan, self._forward.derivatives[u], self._forward.adjoints[u]
        node = plan.nodes[u]
        for p, parent in plan.dependent_parents(u):
            if parent < self._first:
                continue
            if u in self._adjoint_tangents:
                self._adjoint_tangents.accumulate(parent, derivatives.vjp(p, self._adjoint_tangents[u]))
            if not self._in_part(node):
                continue
            for q, other in enumerate(node.parents):
                if other in self._tangents and node.function.couples_parents(p, q):
                    product = derivatives.second_product(delta, p, q, self._tangents[other])
                    self._adjoint_tangents.accumulate(parent, product)

    def _mixed_parents(self, u: int) -> list[tuple[int, int]]:
        """Return (position, number) of the parents that node u couples to its parameters."""
        node, parents = self._forward.plan.nodes[u], self._forward.plan.dependent_parents(u)
        if not self._in_part(node):
            return []
        couples = node.function.couples_to_parameters
        return [(p, parent) for p, parent in parents if parent in self._tangents and couples(p)]

    def _has_parameter_hessian(self, u: int) -> bool:
        node = self._forward.plan.nodes[u]
        return self._in_part(node) and node.function.couples_parameters

    def pull_back_parameters(self, u: int, V: np.ndarray) -> None:
        """Propagate the tangents along V (m, k) of the parameters of node u to the adjoints of its parents."""
        derivatives, delta = self._forward.derivatives[u], self._forward.adjoints[u]
        for p, parent in self._mixed_parents(u):
            self._adjoint_tangents.accumulate(parent, derivatives.mixed_transposed_product(delta, p, V))

    def parameter_products(self, u: int, V: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the terms (m, k) of the Hessian product in the rows of the parameters of node u.

        Parameters
        ----------
        u
            A node with parameters, the current one of `nodes`.
        V
            (m, k) directions of its parameters.
        """
        derivatives, delta = self._forward.derivatives[u], self._forward.adjoints[u]
        if u in self._adjoint_tangents:
            yield derivatives.parameter_vjp_sum(self._adjoint_tangents[u])
        for p, parent in self._mixed_parents(u):
            yield derivatives.mixed_product_sum(delta, p, self._tangents[parent])
        if self._has_parameter_hessian(u):
            yield derivatives.parameter_hessian_product(delta, V)

    def parameter_rows(self, v: int) -> Iterator[np.ndarray]:
        """Yield the terms (N, m, k) of the tangents of the gradient by the parameters of node v, by samples.

        Parameters
        ----------
        v
            A node with parameters, the current one of `nodes`.
        """
        derivatives, delta = self._forward.derivatives[v], self._forward.adjoints[v]
        if v in self._adjoint_tangents:
            yield derivatives.parameter_vjp(self._adjoint_tangents[v])
        for p, parent in self._mixed_parents(v):
            yield derivatives.mixed_product(delta, p, self._tangents[parent])

    def block_terms(self, v: int, w: int, rows: slice) -> Iterator[np.ndarray]:
        """Yield the terms of rows of H_vw (rows, k_w), the tangents being those by the value of node w.

        Parameters
        ----------
        v
            A node with parameters, the current one of `nodes`.
        w
            The node from which the tangents started.
        rows
            Of H_vw.
        """
        by_samples = _total(self.parameter_rows(v))
        if by_samples is not None:
            adjoints = np.swapaxes(by_samples[:, :, rows], 1, 2)
            yield self._forward.derivatives[w].parameter_vjp_sum(adjoints)
        if v == w and self._has_parameter_hessian(v):
            yield self._forward.derivatives[v].parameter_hessian(self._forward.adjoints[v])[rows]


def hessian_products(forward: ForwardPass, V: np.ndarray, part: str = "whole") -> np.ndarray:
    """Return the products (m, n) of a part of the Hessian with V (m, n), exact to rounding."""
    plan, products = forward.plan, np.zeros((len(V), forward.plan.n))
    backward = SecondOrderPass(forward, forward.parameter_tangents(V), part)
    for u in backward.nodes():
        if plan.nodes[u].size:
            own, directions = plan.parameters_of(products, u), plan.parameters_of(V, u)
            for term in backward.parameter_products(u, directions):
                own += term
            backward.pull_back_parameters(u, directions)
    return products


def hessian_blocks(
    forward: ForwardPass, w: int, wanted: dict[int, slice], part: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (v, rows of H_vw (rows, k_w)) for the nodes v that are coupled with node w, once each.

    Parameters of nodes are taken as their own here, shared or not.

    Parameters
    ----------
    forward
        Values and adjoints.
    w
        A node with parameters.
    wanted
        {v: rows of H_vw} of nodes v >= w.
    part
        Of the Hessian.
    """
    backward = SecondOrderPass(forward, forward.node_tangents(w), part, min(wanted))
    for v in backward.nodes():
        if v in wanted:
            block = _total(backward.block_terms(v, w, wanted[v]))
            if block is not None:
                yield v, block


def _total(terms: Iterable[np.ndarray]) -> np.ndarray | None:
    """Return the sum of arrays, None if there are none."""
    total = None
    for term in terms:
        total = term if total is None else total + term
    return total
