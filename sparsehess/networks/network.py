"""`Network`: a directed acyclic graph of functions, and which blocks of its Hessian can be non-zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparsehess.errors import InputError
from sparsehess.networks.node_function import Function
from sparsehess.runtime.validation import reals, whole_number

# Which nodes' second derivatives count, by the name of the part of the Hessian.
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
        None for an input.
    parents
        Numbers of the nodes it is of, in the order of its arguments.
    size, group
        Parameters of its own function, and the number of the block that they are; -1 where there are none.
    weight
        Of a loss in the sum of losses; None for other nodes.
    depends
        Whether it depends on any parameters.
    needed
        Whether a loss depends on it.
    """

    name: object
    function: Function | None
    width: int
    parents: tuple[int, ...]
    size: int = 0
    group: int = -1
    weight: float | None = None
    depends: bool = False
    needed: bool = False

    @property
    def is_loss(self) -> bool:
        return self.weight is not None


class Network:
    """A network of nodes, one or more of them losses; the objective is their weighted mean over the samples.

    Not collective to make. Parameters are one vector, a block for each node that has some, in the order in
    which the nodes were added (`blocks`); nodes that name one and the same `shared` block share it.

    Attributes
    ----------
    graph
        networkx.DiGraph; nodes carry `function` or `width`, `parents`, `shared`, `weight`.
    """

    def __init__(self):
        import networkx

        self.graph = networkx.DiGraph()
        self._plan: Plan | None = None

    @classmethod
    def from_networkx(cls, graph) -> Network:
        """Return the network of a graph whose nodes carry what they are.

        Not collective.

        Parameters
        ----------
        graph
            networkx.DiGraph, edges from parents to children. Of its nodes, inputs have an attribute `width`,
            others `function`; losses have a `weight`, nodes that share parameters the name of these as
            `shared`. A node that is of several others has these in the order of `parents`, if it carries that,
            else of its edges.

        Raises
        ------
        InputError
            The graph has a cycle, or a node does not fit its parents.
        """
        import networkx

        network = cls()
        if not networkx.is_directed_acyclic_graph(graph):
            raise InputError("a network is a directed graph without cycles")
        number = {name: at for at, name in enumerate(graph)}
        for name in networkx.lexicographical_topological_sort(graph, key=number.get):
            facts, before = graph.nodes[name], list(graph.predecessors(name))
            parents = tuple(facts.get("parents", before))
            if set(parents) != set(before):
                raise InputError(f"node {name}: its parents {list(parents)} are not those of its edges, {before}")
            if "function" not in facts:
                if before or "width" not in facts:
                    raise InputError(f"node {name} has no function; an input has a width, and no parents")
                network.input(name, facts["width"])
            elif facts.get("weight") is not None:
                network.loss(name, facts["function"], *parents, weight=facts["weight"])
            else:
                network.add(name, facts["function"], *parents, shared=facts.get("shared"))
        return network

    # --- building ---

    def input(self, name, width: int):
        """Add an input or a target, which is given by data; return its name.

        Not collective.
        """
        return self._node(name, (), width=whole_number(width, f"input {name}: width", 1))

    def add(self, name, function: Function, *parents, shared=None):
        """Add a function of other nodes; return its name.

        Not collective.

        Parameters
        ----------
        shared
            Name of the block of parameters, where other nodes have the same; if it is that of another node,
            then that node's, which it may itself share. Default the node's own.
        """
        return self._node(name, parents, function=function, shared=shared)

    def loss(self, name, function: Function, *parents, weight: float = 1.0):
        """Add a loss, of one number a sample; return its name.

        Not collective.
        """
        if not np.isfinite(reals(weight, f"the weight of loss {name}")):
            raise InputError(f"loss {name}: its weight is {weight}")
        return self._node(name, parents, function=function, weight=float(weight))

    def _node(self, name, parents, **facts):
        if name in self.graph:
            raise InputError(f"node {name} is there already")
        missing = [parent for parent in parents if parent not in self.graph]
        if missing:
            raise InputError(f"node {name} is of {missing[0]}, which is not there yet")
        function = facts.get("function")
        if "width" not in facts:
            if not (isinstance(function, Function) and parents):
                raise InputError(f"node {name} must have a Function, not {type(function).__name__}, and parents")
            if any(self.graph.nodes[parent].get("weight") is not None for parent in parents):
                raise InputError(f"node {name} is of a loss; a loss is an end of the network")
            widths = tuple(self.graph.nodes[parent]["breadth"] for parent in parents)
            try:
                facts["breadth"], facts["size"] = function.width(widths), function.parameters(widths)
            except InputError as error:
                raise InputError(f"node {name}: {error}") from error
            if facts.get("weight") is not None and (facts["breadth"] != 1 or facts["size"]):
                raise InputError(f"loss {name} must be one number a sample, without parameters")
        else:
            facts["breadth"], facts["size"] = facts["width"], 0
        self.graph.add_node(name, parents=tuple(parents), **facts)
        self.graph.add_edges_from((parent, name) for parent in parents)
        self._plan = None
        return name

    # --- what it is ---

    @property
    def plan(self) -> Plan:
        """The nodes in the order of evaluation."""
        if self._plan is None:
            self._plan = Plan.of(self.graph)
        return self._plan

    @property
    def n(self) -> int:
        """Number of parameters."""
        return self.plan.n

    @property
    def blocks(self) -> dict:
        """Which parameters are whose: {name: slice}, in their order."""
        plan = self.plan
        return {name: slice(*plan.offsets[g : g + 2].tolist()) for g, name in enumerate(plan.groups)}

    def block_pattern(self, part: str = "whole") -> np.ndarray:
        """Return which blocks of the Hessian can be non-zero, (blocks, blocks) bool.

        Not collective. Block (v, w) is there if and only if the recursion has a term for it: some node u on the
        way to a loss has a second derivative by two arguments, one that depends on v's parameters (or is these)
        and one that depends on w's. Nodes without such a node u in common have a zero block, as all of a network
        that is linear has; a block that is there may still cancel to zero.

        Parameters
        ----------
        part
            `whole`; `gauss-newton`, of the second derivatives of the losses alone; `functional`, of all others.
        """
        return self.plan.coupled(check_part(part))

    def untied(self) -> Network:
        """Return the same network in which no node shares its parameters.

        Not collective. Its Hessian H and `sharing()` as T make this one's, TᵀHT.
        """
        network = Network()
        for name, facts in self.graph.nodes(data=True):
            if facts.get("function") is None:
                network.input(name, facts["width"])
            elif facts.get("weight") is not None:
                network.loss(name, facts["function"], *facts["parents"], weight=facts["weight"])
            else:
                network.add(name, facts["function"], *facts["parents"])
        return network

    @property
    def labels(self) -> np.ndarray:
        """(n of the untied network,) which parameter of this one each of its parameters is."""
        plan, untied = self.plan, self.untied().plan
        mine = {node.name: node.group for node in plan.nodes}
        parts = [np.arange(*plan.offsets[mine[name] : mine[name] + 2]) for name in untied.groups]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    # --- doors: see the modules that do the work ---

    def pattern(self, part: str = "whole", *, comm=None):
        """Return the `Pattern` of the Hessian, full in every block of `block_pattern`.

        Collective.
        """
        from sparsehess.networks.hessian import block_rows

        return block_rows(self.plan, part, comm).pattern()

    def sharing(self, *, comm=None):
        """Return T of the congruence TᵀHT that makes of the untied network's Hessian this one's; see `untied`.

        Collective. A PETSc Mat; the caller destroys it.
        """
        from sparsehess.operators.transforms import sharing
        from sparsehess.pattern import Layout

        labels = self.labels
        layout = Layout.from_size(len(labels), comm)
        return sharing(labels[layout.start : layout.stop], layout, self.n)

    def objective(self, x, data: dict, **more):
        """Return the `Objective` of this network: energy, gradient and products of this rank's samples, summed.

        Collective; for arguments see `networks.objective.objective_of`.
        """
        from sparsehess.networks.objective import objective_of

        return objective_of(self, x, data, **more)

    def hessian(self, x, data: dict, **more):
        """Return the exact Hessian, assembled block by block.

        Collective. The caller closes it. For arguments see `networks.hessian.NetworkHessian`.
        """
        from sparsehess.networks.hessian import NetworkHessian

        return NetworkHessian(self, x, data, **more)


def _block(graph, name):
    """Return the name of the block that a node's parameters are: at the end of what nodes share with nodes."""
    met = []
    while name not in met:
        met.append(name)
        shared = graph.nodes[name].get("shared") if name in graph else None
        name = name if shared is None else shared
    circle = met[met.index(name) :]  # nodes that name each other share one block, the same for all of them
    return name if len(circle) == 1 else next(one for one in graph if one in circle)


def check_part(part: str) -> str:
    """Return the name of a part of the Hessian, if it is one."""
    if part not in PARTS:
        raise InputError(f"part={part!r} is none of {', '.join(PARTS)}")
    return part


@dataclass(frozen=True, eq=False)
class Plan:
    """A network made ready.

    Attributes
    ----------
    nodes
        In an order in which parents come first: that in which they were added.
    groups
        Names of the blocks of parameters.
    offsets
        (blocks + 1,) where each begins.
    """

    nodes: tuple[Node, ...]
    groups: tuple
    offsets: np.ndarray

    @classmethod
    def of(cls, graph) -> Plan:
        number = {name: at for at, name in enumerate(graph)}
        needed = [False] * len(number)
        losses = [name for name in graph if graph.nodes[name].get("weight") is not None]
        if not losses:
            raise InputError("the network has no loss: add one with Network.loss")
        for name in reversed(list(graph)):
            at = number[name]
            needed[at] = needed[at] or graph.nodes[name].get("weight") is not None
            for parent in graph.nodes[name]["parents"] if needed[at] else ():
                needed[number[parent]] = True
        nodes, groups, sizes = [], {}, []
        for name, facts in graph.nodes(data=True):
            parents, size, group = tuple(number[parent] for parent in facts["parents"]), facts["size"], -1
            if size:
                key = _block(graph, name)
                if key not in groups:
                    groups[key] = len(groups)
                    sizes.append(size)
                group = groups[key]
                if sizes[group] != size:
                    raise InputError(f"node {name} has {size} parameters; those of {key} are {sizes[group]}")
            depends = size > 0 or any(nodes[parent].depends for parent in parents)
            nodes.append(
                Node(
                    name, facts.get("function"), facts["breadth"], parents, size, group, facts.get("weight"),
                    depends, needed[number[name]],
                )
            )  # fmt: skip
        if not groups:
            raise InputError("the network has no parameters")
        return cls(tuple(nodes), tuple(groups), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    @property
    def n(self) -> int:
        return int(self.offsets[-1])

    @cached_property
    def inputs(self) -> dict:
        """{name: width} of the inputs."""
        return {node.name: node.width for node in self.nodes if node.function is None}

    @cached_property
    def parametric(self) -> tuple[int, ...]:
        """Numbers of the nodes with parameters that a loss depends on."""
        return tuple(u for u, node in enumerate(self.nodes) if node.size and node.needed)

    @cached_property
    def _reaching(self) -> np.ndarray:
        """(nodes, nodes) bool: [u, v] whether node u is, or depends on, node v of those with parameters."""
        out = np.zeros((len(self.nodes),) * 2, bool)
        for u, node in enumerate(self.nodes):
            for parent in node.parents:
                out[u] |= out[parent]
            out[u, u] = node.size > 0
        return out

    def coupled_nodes(self, part: str) -> np.ndarray:
        """Return (nodes, nodes) bool: whether parameters of two nodes, as their own, can be coupled."""
        out, reaching = np.zeros((len(self.nodes),) * 2, bool), self._reaching
        for u, node in enumerate(self.nodes):
            if not (node.needed and node.depends and node.function is not None and PARTS[part](node)):
                continue
            places = range(len(node.parents))
            for p in places:
                above = reaching[node.parents[p]]
                for q in places:
                    if node.function.curved(p, q):
                        out |= above[:, None] & reaching[node.parents[q]]
                if node.size and node.function.mixing(p):
                    out[u] |= above
                    out[:, u] |= above
            if node.size and node.function.curved_parameters:
                out[u, u] = True
        return out | out.T

    def coupled(self, part: str) -> np.ndarray:
        """Return (blocks, blocks) bool: whether blocks of parameters can be coupled."""
        nodes = self.coupled_nodes(part)
        out = np.zeros((len(self.groups),) * 2, bool)
        own = np.array(self.parametric, np.int64)
        groups = np.array([self.nodes[u].group for u in own], np.int64)
        v, w = np.nonzero(nodes[np.ix_(own, own)])
        out[groups[v], groups[w]] = True
        return out

    def own(self, x: np.ndarray, u: int) -> np.ndarray:
        """Return the parameters of a node, of a vector (n,) or of vectors (m, n)."""
        group = self.nodes[u].group
        return x[..., self.offsets[group] : self.offsets[group + 1]] if group >= 0 else x[..., :0]
