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
from sparsehess.runtime.validation import explain_evaluation_errors


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
    sample_count
        Number N of samples.
    """

    def __init__(self, plan: Plan, x: np.ndarray, data: dict[Hashable, np.ndarray], loss_scale: float):
        self.plan, self.x, self._loss_scale = plan, x, loss_scale
        self.derivatives: list[NodeDerivatives] = []
        for u, node in enumerate(plan.nodes):
            arguments = [data[node.name]] if node.is_input else [self.value(parent) for parent in node.parents]
            with explain_evaluation_errors(f"node {node.name}"):
                self.derivatives.append(node.function.evaluate(plan.parameters_of(x, u), arguments))
        self.sample_count = len(self.value(0))

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
        losses = NodeArrays()
        for u, node in enumerate(self.plan.nodes):
            if node.is_loss and node.depends:
                losses[u] = np.full((self.sample_count, 1, 1), node.weight * self._loss_scale)
        return NodeArrays({u: Y[:, 0] for u, Y in self._pull_back(losses).items()})

    def gradient(self) -> np.ndarray:
        """Return the gradient (n,) of the energy."""
        return self._parameter_gradient({u: delta[:, None, :] for u, delta in self.adjoints.items()})

    def unit_gradient(self, u: int, sample: int, unit: int) -> np.ndarray:
        """Return the gradient (n,) of one number, that of a unit of node u at a sample."""
        adjoint = np.zeros((self.sample_count, 1, self.plan.nodes[u].width))
        adjoint[sample, 0, unit] = 1.0
        return self._parameter_gradient(self._pull_back(NodeArrays({u: adjoint})))

    def _pull_back(self, adjoints: NodeArrays) -> NodeArrays:
        """Propagate adjoints (N, m, d) of some nodes to all nodes before them that depend on parameters."""
        for u in reversed(range(len(self.plan.nodes))):
            if u in adjoints:
                for p, parent in self.plan.dependent_parents(u):
                    adjoints.accumulate(parent, self.derivatives[u].vjp(p, adjoints[u]))
        return adjoints

    def _parameter_gradient(self, adjoints: dict[int, np.ndarray]) -> np.ndarray:
        """Return the gradient (n,) by the parameters from adjoints (N, 1, d) of the nodes."""
        gradient = np.zeros(self.plan.n, self.x.dtype)
        for u in self.plan.parametric_nodes:
            if u in adjoints:
                own = self.plan.parameters_of(gradient, u)
                own += self.derivatives[u].parameter_vjp_sum(adjoints[u])[0]
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
        tangents = NodeArrays({w: np.broadcast_to(np.eye(width), (self.sample_count, width, width))})
        for u in range(w + 1, len(self.plan.nodes)):
            if self.plan.nodes[u].needed:
                self._push_forward(tangents, u)
        return tangents

    def _push_forward(self, tangents: NodeArrays, u: int) -> None:
        """Make the tangents of node u from those of its parents."""
        for p, parent in enumerate(self.plan.nodes[u].parents):
            if parent in tangents:
                tangents.accumulate(u, self.derivatives[u].jvp(p, tangents[parent]))
