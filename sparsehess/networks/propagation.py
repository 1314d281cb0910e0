"""Sweeps over a network: values, adjoints, products with the Hessian, and its blocks.

Let ε_v be added to what node v computes. The total Jacobian of node u by ε_w, T_u = Σ_p J_{u,p} T_p with
T_w = I, is swept forward; the derivative of the adjoint δ_v by ε_w, S_v, is swept backward:

    S_p = Σ_u (J_{u,p}ᵀ S_u + Σ_q (δ_u · ∂²f_u/∂x_p∂x_q) T_q)      over the children u of p and their parents q.

With S_v = ∂²L/∂ε_v∂ε_w at hand, the block of the parameters of v and of w, an ancestor of v or v itself, is

    H_vw = Σ_samples (J_{v,θ}ᵀ S_v + Σ_p (δ_v · ∂²f_v/∂θ∂x_p) T_p) J_{w,θ} + [v = w] δ_v · ∂²f_v/∂θ².

That is Σ_u Σ_{p,q} J_{p←v}ᵀ (δ_u · ∂²f_u/∂p∂q) J_{q←w} with total Jacobians, losses being nodes u like others
and parameters being parents. It is edge pushing (Gower, Mello 2012, section 4) by whole nodes, one of the two
arguments at a time, so that nothing of parameters times samples times outputs is ever formed: weights enter by
`Local.spread` and `Local.collect` of arrays (samples, d_w, ·).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from sparsehess.networks.network import PARTS, Node, Plan
from sparsehess.networks.node_function import Given, Local
from sparsehess.runtime.validation import evaluating

# Numbers that arrays of a sweep over a chunk of samples may have together, by default: 64 MB.
CHUNK = 2**23


class Sample:
    """The network at a point, for a chunk of samples: values, and adjoints where they are wanted.

    Not collective.

    Parameters
    ----------
    plan
        Of the network.
    x
        (n,) parameters, real or complex.
    data
        Of the inputs, (N, width) each.
    share
        What the losses' weights are multiplied by: 1 over the number of samples of all ranks.
    """

    def __init__(self, plan: Plan, x: np.ndarray, data: dict[str, np.ndarray], share: float):
        self.plan, self.x, self.share = plan, x, share
        self.locals: list[Local] = []
        for u, node in enumerate(plan.nodes):
            if node.function is None:
                self.locals.append(Given(data[node.name]))
            else:
                with evaluating(f"node {node.name}"):
                    self.locals.append(node.function.at(plan.own(x, u), [self.value(p) for p in node.parents]))
        self.N = len(self.locals[0].value)
        self._adjoints: list[np.ndarray | None] | None = None

    def value(self, u: int) -> np.ndarray:
        """Return what node u computes, (N, d)."""
        return self.locals[u].value

    def energy(self):
        """Return the sum of the losses of these samples."""
        losses = (node.weight * self.value(u).sum() for u, node in enumerate(self.plan.nodes) if node.is_loss)
        return self.share * sum(losses)

    @property
    def adjoints(self) -> list[np.ndarray | None]:
        """δ of each node, (N, d); None where it depends on no parameters, or no loss on it."""
        if self._adjoints is None:
            nodes = self.plan.nodes
            out: list[np.ndarray | None] = [None] * len(nodes)
            for u in reversed(range(len(nodes))):
                if nodes[u].is_loss:
                    out[u] = np.full((self.N, 1), nodes[u].weight * self.share)
                if out[u] is None:
                    continue
                for p, parent in self.live_parents(nodes[u]):
                    _add(out, parent, self.locals[u].pull(p, out[u][:, None, :])[:, 0])
                if not nodes[u].depends:
                    out[u] = None
            self._adjoints = out
        return self._adjoints

    def live_parents(self, node: Node):
        """Return (position, number) of the parents that depend on parameters."""
        return [(p, parent) for p, parent in enumerate(node.parents) if self.plan.nodes[parent].depends]

    def gradient(self) -> np.ndarray:
        """Return the gradient (n,) of the energy."""
        out = np.zeros(self.plan.n, self.x.dtype)
        for u in self.plan.parametric:
            own = self.plan.own(out, u)
            own += self.locals[u].collect(self.adjoints[u][:, None, :])[0]
        return out

    # --- products ---

    def products(self, V: np.ndarray, part: str = "whole") -> np.ndarray:
        """Return (m, n): the Hessian's products with V (m, n), exact (Pearlmutter 1994, for any graph)."""
        plan, counts, T = self.plan, PARTS[part], self.tangents(V)
        S: list[np.ndarray | None] = [None] * len(plan.nodes)
        out = np.zeros((len(V), plan.n))
        for u in reversed(range(len(plan.nodes))):
            node, delta = plan.nodes[u], self.adjoints[u]
            if delta is None:
                continue
            self._pull(S, u, T, counts)
            if node.size:
                local, mine, own = self.locals[u], plan.own(V, u), plan.own(out, u)
                if S[u] is not None:
                    own += local.collect(S[u])
                if counts(node):
                    for p, parent in self.live_parents(node):
                        if node.function.mixing(p):
                            own += local.collect_mixed(delta, p, T[parent])
                            _add(S, parent, local.mixed_adjoint(delta, p, mine))
                    if node.function.curved_parameters:
                        own += local.own_product(delta, mine)
            S[u] = None
        return out

    def tangents(self, V: np.ndarray) -> dict[int, np.ndarray]:
        """Return {node: (N, m, d)}: how values change when parameters move by V (m, n)."""
        T: dict[int, np.ndarray] = {}
        for u, node in enumerate(self.plan.nodes):
            if node.needed and node.depends:
                self._push(T, u)
                if node.size:
                    _add(T, u, self.locals[u].advance(self.plan.own(V, u)))
        return T

    def gradient_of(self, u: int, sample: int, unit: int) -> np.ndarray:
        """Return the gradient (n,) of one number that node u computes at one sample."""
        nodes, out = self.plan.nodes, np.zeros(self.plan.n)
        Y: list[np.ndarray | None] = [None] * len(nodes)
        Y[u] = np.zeros((self.N, 1, nodes[u].width))
        Y[u][sample, 0, unit] = 1.0
        for v in reversed(range(u + 1)):
            if Y[v] is None:
                continue
            for p, parent in self.live_parents(nodes[v]):
                _add(Y, parent, self.locals[v].pull(p, Y[v]))
            if nodes[v].size:
                own = self.plan.own(out, v)
                own += self.locals[v].collect(Y[v])[0]
        return out

    def _push(self, T: dict[int, np.ndarray], u: int) -> None:
        """Make the directions of a node of those of its parents, where there are any."""
        for p, parent in enumerate(self.plan.nodes[u].parents):
            if parent in T:
                _add(T, u, self.locals[u].push(p, T[parent]))

    def _pull(self, S: list, u: int, T: dict[int, np.ndarray], counts: Callable, first: int = 0) -> None:
        """Give the parents of a node, those from number `first` on, what they have of S through it."""
        node, local, delta = self.plan.nodes[u], self.locals[u], self.adjoints[u]
        for p, parent in self.live_parents(node):
            if parent < first:
                continue
            if S[u] is not None:
                _add(S, parent, local.pull(p, S[u]))
            for q, other in enumerate(node.parents) if counts(node) else ():
                if other in T and node.function.curved(p, q):
                    _add(S, parent, local.bend(delta, p, q, T[other]))

    # --- blocks ---

    def blocks(self, w: int, wanted: dict[int, slice], part: str) -> Iterator[tuple[int, np.ndarray]]:
        """Give (v, rows of H_vw (rows, k_w)) for each node v, from w on, of which some are wanted; one each.

        Parameters of nodes are taken as their own. A node that is not coupled with w is not given.
        """
        plan, counts, last = self.plan, PARTS[part], self.locals[w]
        nodes = plan.nodes
        identity = np.broadcast_to(np.eye(nodes[w].width), (self.N, *(nodes[w].width,) * 2))
        T = {w: identity}
        for u in range(w + 1, len(nodes)):
            if nodes[u].needed:
                self._push(T, u)
        S: list[np.ndarray | None] = [None] * len(nodes)
        for v in reversed(range(min(wanted), len(nodes))):
            node, delta = nodes[v], self.adjoints[v]
            if delta is None:
                continue
            self._pull(S, v, T, counts, min(wanted))
            if v in wanted:
                rows = None if S[v] is None else self.locals[v].spread(S[v])
                for p, parent in self.live_parents(node) if counts(node) else ():
                    if parent in T and node.function.mixing(p):
                        mixed = self.locals[v].mixed(delta, p, T[parent])
                        rows = mixed if rows is None else rows + mixed
                block = None
                if rows is not None:
                    block = last.collect(np.swapaxes(rows[:, :, wanted[v]], 1, 2))
                if v == w and counts(node) and node.function.curved_parameters:
                    own = self.locals[v].own(delta)[wanted[v]]
                    block = own if block is None else block + own
                if block is not None:
                    yield v, block
            S[v] = None


def _add(sums, key, term) -> None:
    """Add a term to a sum that may not have begun; arrays that a node has given are not changed."""
    there = sums.get(key) if isinstance(sums, dict) else sums[key]
    sums[key] = term if there is None else there + term


def chunks(
    data: dict[str, np.ndarray], numbers: int, room: int, least: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Cut data into chunks of so many samples that `numbers` a sample fill no more than `room`, or of `least`."""
    N = len(next(iter(data.values())))
    step = max(least, room // max(numbers, 1))
    for first in range(0, N, step):
        yield {name: values[first : first + step] for name, values in data.items()}


def numbers_of_products(plan: Plan, m: int) -> int:
    """Return about how many numbers a sample takes in m products."""
    return (3 * m + 4) * sum(node.width for node in plan.nodes)


def numbers_of_blocks(plan: Plan, w: int) -> int:
    """Return about how many numbers a sample takes in the blocks of node w."""
    node, widest = plan.nodes[w], max(plan.nodes[v].size for v in plan.parametric)
    own = node.size**2 if node.function.curved_parameters else 0
    return numbers_of_products(plan, node.width) + 3 * node.width * widest + 3 * own


def least_of_blocks(plan: Plan, w: int) -> int:
    """Return for how many samples what blocks of node w are made of is as large as these blocks themselves."""
    return max(1, plan.nodes[w].size // plan.nodes[w].width)
