"""`Plan`: the nodes of a network in the order of evaluation, and which blocks of its Hessian can be non-zero."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sparsehess.errors import InputError, none_of
from sparsehess.networks.node_function import Input, NodeFunction

if TYPE_CHECKING:
    import networkx

# Nodes whose second derivatives count, by the name of the part of the Hessian.
PARTS: dict[str, Callable[[Node], bool]] = {
    "whole": lambda node: True,
    "gauss-newton": lambda node: node.is_loss,
    "functional": lambda node: not node.is_loss,
}


@dataclass(frozen=True, eq=False)
class Node:
    """A node with its place in the order of evaluation.

    Attributes
    ----------
    name, width
        Of the node.
    function
        What it computes; `Input` for an input.
    parents
        Numbers of the nodes that are the arguments of the function, in their order.
    size, group
        Number of parameters of the function, and of the block that holds them; 0 and -1 where there are none.
    is_loss, weight
        Whether the node is a loss, and its weight in the sum of losses.
    depends
        Whether its value depends on any parameters.
    needed
        Whether a loss depends on it.
    """

    name: Hashable
    function: NodeFunction
    width: int
    parents: tuple[int, ...]
    size: int = 0
    group: int = -1
    is_loss: bool = False
    weight: float = 0.0
    depends: bool = False
    needed: bool = False

    @property
    def is_input(self) -> bool:
        """Whether data give its value."""
        return isinstance(self.function, Input)


@dataclass(frozen=True, eq=False)
class Plan:
    """A network in the order of evaluation.

    Attributes
    ----------
    nodes
        Parents come before their children; the order is that in which nodes were added.
    groups
        Names of the blocks of parameters.
    offsets
        (blocks + 1,) where each block begins in the vector of parameters.
    """

    nodes: tuple[Node, ...]
    groups: tuple[Hashable, ...]
    offsets: np.ndarray

    @classmethod
    def from_graph(cls, graph: networkx.DiGraph) -> Plan:
        """Return the plan of a network's graph.

        Raises
        ------
        InputError
            The graph has no loss or no parameters, or nodes with one block have different numbers of parameters.
        """
        number = {name: u for u, name in enumerate(graph)}
        needed = _needed_nodes(graph)
        nodes: list[Node] = []
        groups: dict[Hashable, int] = {}
        sizes: list[int] = []
        for name, facts in graph.nodes(data=True):
            parents, size, group = tuple(number[parent] for parent in facts["parents"]), facts["size"], -1
            if size:
                block = _block_name(graph, name)
                if block not in groups:
                    groups[block] = len(groups)
                    sizes.append(size)
                group = groups[block]
                if sizes[group] != size:
                    raise InputError(f"node {name} has {size} parameters; those of {block} are {sizes[group]}")
            weight = facts.get("weight")
            nodes.append(
                Node(
                    name,
                    facts.get("function") or Input(facts["width"]),
                    facts["breadth"],
                    parents,
                    size,
                    group,
                    is_loss=weight is not None,
                    weight=0.0 if weight is None else weight,
                    depends=size > 0 or any(nodes[parent].depends for parent in parents),
                    needed=name in needed,
                )
            )
        if not groups:
            raise InputError("the network has no parameters")
        return cls(tuple(nodes), tuple(groups), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    @property
    def n(self) -> int:
        """Number of parameters."""
        return int(self.offsets[-1])

    @cached_property
    def inputs(self) -> dict[Hashable, int]:
        """{name: width} of the inputs."""
        return {node.name: node.width for node in self.nodes if node.is_input}

    @cached_property
    def parametric_nodes(self) -> tuple[int, ...]:
        """Numbers of the nodes with parameters that a loss depends on."""
        return tuple(u for u, node in enumerate(self.nodes) if node.size and node.needed)

    def parameters_of(self, x: np.ndarray, u: int) -> np.ndarray:
        """Return a view of the parameters of node u in a vector (n,) or in vectors (m, n)."""
        group = self.nodes[u].group
        return x[..., self.offsets[group] : self.offsets[group + 1]] if group >= 0 else x[..., :0]

    def dependent_parents(self, u: int) -> list[tuple[int, int]]:
        """Return (position, number) of the parents of node u that depend on parameters."""
        return [(p, parent) for p, parent in enumerate(self.nodes[u].parents) if self.nodes[parent].depends]

    @cached_property
    def _dependence(self) -> np.ndarray:
        """(nodes, nodes) bool: [u, v] whether node u depends on the parameters of node v."""
        out = np.zeros((len(self.nodes),) * 2, bool)
        for u, node in enumerate(self.nodes):
            for parent in node.parents:
                out[u] |= out[parent]
            out[u, u] = node.size > 0
        return out

    def node_coupling(self, part: str) -> np.ndarray:
        """Return (nodes, nodes) bool: whether the recursion couples the parameters of two nodes.

        Parameters of nodes are taken as their own here, shared or not.
        """
        out, depends = np.zeros((len(self.nodes),) * 2, bool), self._dependence
        for u, node in enumerate(self.nodes):
            if not (node.needed and node.depends and PARTS[part](node)):
                continue
            for p, first in enumerate(node.parents):
                for q, second in enumerate(node.parents):
                    if node.function.couples_parents(p, q):
                        out |= depends[first][:, None] & depends[second]
                if node.size and node.function.couples_to_parameters(p):
                    out[u] |= depends[first]
                    out[:, u] |= depends[first]
            if node.size and node.function.couples_parameters:
                out[u, u] = True
        return out | out.T

    def block_coupling(self, part: str) -> np.ndarray:
        """Return (blocks, blocks) bool: whether the recursion couples two blocks of parameters."""
        out = np.zeros((len(self.groups),) * 2, bool)
        own = np.array(self.parametric_nodes, np.int64)
        groups = np.array([self.nodes[u].group for u in own], np.int64)
        v, w = np.nonzero(self.node_coupling(part)[np.ix_(own, own)])
        out[groups[v], groups[w]] = True
        return out


class Planned(Protocol):
    """What has a plan: a `Network`."""

    @property
    def plan(self) -> Plan:
        """The nodes in the order of evaluation."""
        ...


def plan_of(network: Planned) -> Plan:
    """Return the plan of a network, or refuse what is none.

    Raises
    ------
    InputError
        The argument is not a network, or not a whole one.
    """
    plan = getattr(network, "plan", None)
    if not isinstance(plan, Plan):
        raise InputError(f"expected a Network, not {type(network).__name__}")
    return plan


def check_part(part: str) -> str:
    """Return the name of a part of the Hessian, if it is one.

    Raises
    ------
    InputError
        There is no part of that name.
    """
    if part not in PARTS:
        raise none_of(f"part={part!r}", part, PARTS)
    return part


def _needed_nodes(graph: networkx.DiGraph) -> set[Hashable]:
    """Return the names of the losses and of all nodes that they depend on."""
    needed = {name for name, facts in graph.nodes(data=True) if facts.get("weight") is not None}
    if not needed:
        raise InputError("the network has no loss: add one with Network.loss")
    for name in reversed(list(graph)):
        if name in needed:
            needed.update(graph.nodes[name]["parents"])
    return needed


def _block_name(graph: networkx.DiGraph, name: Hashable) -> Hashable:
    """Return the name of the block that holds a node's parameters.

    A node may share the parameters of a node that shares those of another; the last of them names the block. Of
    nodes that name each other in a circle it is the one that was added first.
    """
    visited: list[Hashable] = []
    while name not in visited:
        visited.append(name)
        shared = graph.nodes[name].get("shared") if name in graph else None
        name = name if shared is None else shared
    circle = visited[visited.index(name) :]
    return name if len(circle) == 1 else next(one for one in graph if one in circle)
