"""Propagation through a network: values and tangents forward, adjoints backward.

The forward pass computes the value of every node u from those of its parents p, and the backward pass the
adjoints δ_u, the derivatives of the losses by these values. Tangents T_u, the derivatives of the values along some
directions, are propagated forward by the Jacobians J_{u,p} of node u by parent p:

    T_u = Σ_p J_{u,p} T_p,      δ_p = Σ_u J_{u,p}ᵀ δ_u.

They start from directions of the parameters, or from the identity at one node w; then T_u is the total Jacobian of
node u by the value of w. For second derivatives see `second_derivatives`.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property

import numpy as np

from sparsehess.networks.node_function import NodeDerivatives
from sparsehess.networks.plan import Plan
from sparsehess.runtime.validation import evaluating


class NodeArrays(dict[int, np.ndarray]):
    """{node: array}. The array of a node that is not there is zero."""

    def accumulate(self, node: int, term: np.ndarray) -> None:
        """Add a term to the array of a node; arrays given before stay as they are."""
        self[node] = self[node] + term if node in self else term


class ForwardPass:
    """Values and derivatives of all nodes at a point, for a chunk of samples.

    *Not collective.*

    Parameters
    ----------
    plan
        Of the network.
    x
        (n,) parameters, real or complex.
    data
        {input: (N, width)}.
    loss_scale
        Factor of the weights of the losses: 1 over the number of samples of all ranks.

    Attributes
    ----------
    derivatives
        Value and derivatives of each node.
    samples
        Number N of samples.
    """

    def __init__(self, plan: Plan, x: np.ndarray, data: dict[Hashable, np.ndarray], loss_scale: float):
        self.plan, self.x, self._loss_scale = plan, x, loss_scale
        self.derivatives: list[NodeDerivatives] = []
        for u, node in enumerate(plan.nodes):
            arguments = [data[node.name]] if node.is_input else [self.value(parent) for parent in node.parents]
            with evaluating(f"node {node.name}"):
                self.derivatives.append(node.function.evaluate(plan.parameters_of(x, u), arguments))
        self.samples = len(self.value(0))

    def value(self, u: int) -> np.ndarray:
        """Return the value (N, d) of node u."""
        return self.derivatives[u].value

    # --- first derivatives ---

    def energy(self) -> float:
        """Return the weighted sum of the losses over these samples."""
        losses = (node.weight * self.value(u).sum() for u, node in enumerate(self.plan.nodes) if node.is_loss)
        return self._loss_scale * sum(losses)

    @cached_property
    def adjoints(self) -> NodeArrays:
        """δ (N, d) of each node that depends on parameters and that a loss depends on."""
        adjoints = NodeArrays()
        for u in reversed(range(len(self.plan.nodes))):
            node = self.plan.nodes[u]
            if node.is_loss and node.depends:
                adjoints[u] = np.full((self.samples, 1), node.weight * self._loss_scale)
            if u in adjoints:
                for p, parent in self.plan.dependent_parents(u):
                    adjoints.accumulate(parent, self.derivatives[u].vjp(p, adjoints[u][:, None, :])[:, 0])
        return adjoints

    def gradient(self) -> np.ndarray:
        """Return the gradient (n,) of the energy."""
        gradient = np.zeros(self.plan.n, self.x.dtype)
        for u in self.plan.parametric_nodes:
            own = self.plan.parameters_of(gradient, u)
            own += self.derivatives[u].parameter_vjp_sum(self.adjoints[u][:, None, :])[0]
        return gradient

    def unit_gradient(self, u: int, sample: int, unit: int) -> np.ndarray:
        """Return the gradient (n,) of one number, that of a unit of node u at a sample."""
        gradient, adjoints = np.zeros(self.plan.n), NodeArrays()
        adjoints[u] = np.zeros((self.samples, 1, self.plan.nodes[u].width))
        adjoints[u][sample, 0, unit] = 1.0
        for v in reversed(range(u + 1)):
            if v not in adjoints:
                continue
            for p, parent in self.plan.dependent_parents(v):
                adjoints.accumulate(parent, self.derivatives[v].vjp(p, adjoints[v]))
            if self.plan.nodes[v].size:
                own = self.plan.parameters_of(gradient, v)
                own += self.derivatives[v].parameter_vjp_sum(adjoints[v])[0]
        return gradient

    # --- tangents ---

    def parameter_tangents(self, V: np.ndarray) -> NodeArrays:
        """Return the tangents (N, m, d) of the nodes along directions V (m, n) of the parameters."""
        tangents = NodeArrays()
        for u, node in enumerate(self.plan.nodes):
            if node.needed and node.depends:
                self._push_forward(tangents, u)
                if node.size:
                    tangents.accumulate(u, self.derivatives[u].parameter_jvp(self.plan.parameters_of(V, u)))
        return tangents

    def node_tangents(self, w: int) -> NodeArrays:
        """Return the total Jacobians by the value of node w, as tangents (N, d_w, d) along its d_w units."""
        width = self.plan.nodes[w].width
        tangents = NodeArrays({w: np.broadcast_to(np.eye(width), (self.samples, width, width))})
        for u in range(w + 1, len(self.plan.nodes)):
            if self.plan.nodes[u].needed:
                self._push_forward(tangents, u)
        return tangents

    def _push_forward(self, tangents: NodeArrays, u: int) -> None:
        """Make the tangents of node u from those of its parents."""
        for p, parent in enumerate(self.plan.nodes[u].parents):
            if parent in tangents:
                tangents.accumulate(u, self.derivatives[u].jvp(p, tangents[parent]))
