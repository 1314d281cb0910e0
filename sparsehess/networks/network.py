"""`Network`: a directed acyclic graph of functions, whose losses are the objective."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.errors import InputError
from sparsehess.networks.node_function import NodeFunction
from sparsehess.networks.plan import Plan, check_part
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import reals, whole_number

if TYPE_CHECKING:
    from mpi4py import MPI
    from petsc4py import PETSc

    import networkx

    from sparsehess.derivatives.objective import Objective
    from sparsehess.networks.hessian import NetworkHessian
    from sparsehess.pattern.sparsity_pattern import Pattern


class Network(ShortRepr):
    """A network of nodes, one or more of them losses; the objective is their weighted mean over the samples.

    *Not collective.*

    Parameters are one vector with a block for each node that has some, in the order in which the nodes were added;
    see `blocks`. Nodes that name the same `shared` block share it.

    Attributes
    ----------
    graph
        networkx.DiGraph; nodes carry `function` or `width`, `parents`, `shared`, `weight`.

    Examples
    --------
    >>> import sparsehess as sh
    >>> from sparsehess.networks import Affine, SoftmaxCrossEntropy, tanh
    >>> network = sh.Network()
    >>> names = network.input("point", 2), network.input("class", 3)
    >>> names = network.add("hidden", Affine(4), "point"), network.add("bent", tanh(), "hidden")
    >>> names = network.add("logits", Affine(3), "bent")
    >>> names = network.loss("loss", SoftmaxCrossEntropy(), "logits", "class")
    >>> network.n, network.blocks
    (27, {'hidden': slice(0, 12, None), 'logits': slice(12, 27, None)})
    >>> network.block_pattern("functional")
    array([[ True,  True],
           [ True, False]])
    """

    def __init__(self) -> None:
        import networkx

        self.graph: networkx.DiGraph = networkx.DiGraph()

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield number_of(len(self.graph), "node")

    @classmethod
    def from_networkx(cls, graph: networkx.DiGraph) -> Network:
        """Return the network of a graph whose nodes carry their functions.

        *Not collective.*

        Parameters
        ----------
        graph
            networkx.DiGraph, edges from parents to children. An input has an attribute `width`, another node
            `function`; a loss has a `weight`, a node that shares parameters the name of their block as `shared`.
            The arguments of a node stand in the order of its `parents`, if it carries that, else of its edges.

        Returns
        -------
        Network
            With nodes in the order of the graph, as far as parents come before their children.

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
            if facts.get("function") is None and (before or "width" not in facts):
                raise InputError(f"node {name} has no function; an input has a width, and no parents")
            network._add_node(name, {**facts, "parents": parents}, shared=facts.get("shared"))
        return network

    # --- building ---

    def input(self, name: Hashable, width: int) -> Hashable:
        """Add an input or a target, whose values are data.

        *Not collective.*

        Parameters
        ----------
        name
            Of the node.
        width
            Numbers that it has for each sample.

        Returns
        -------
        Hashable
            The name.

        Raises
        ------
        InputError
            The name is taken, or the width is not a positive whole number.
        """
        width = whole_number(width, f"input {name}: width", 1)
        self._check_new(name, ())
        return self._insert(name, (), width, 0, width=width)

    def add(
        self, name: Hashable, function: NodeFunction, *parents: Hashable, shared: Hashable | None = None
    ) -> Hashable:
        """Add a function of other nodes.

        *Not collective.*

        Parameters
        ----------
        name
            Of the node.
        function
            What it computes.
        parents
            Names of the nodes that are its arguments.
        shared
            Name of the block of its parameters, if other nodes have the same: any name, or that of a node, whose
            block is meant then, its own or shared itself. Default: the node has its own.

        Returns
        -------
        Hashable
            The name.

        Raises
        ------
        InputError
            The name is taken, a parent is not there or is a loss, or the function does not fit the parents.
        """
        width, size = self._check_function(name, function, parents)
        return self._insert(name, parents, width, size, function=function, shared=shared)

    def loss(self, name: Hashable, function: NodeFunction, *parents: Hashable, weight: float = 1.0) -> Hashable:
        """Add a loss, of one number a sample.

        *Not collective.*

        Parameters
        ----------
        name
            Of the node.
        function
            What it computes.
        parents
            Names of the nodes that are its arguments: of the package's losses, prediction and target.
        weight
            Factor in the sum of the losses.

        Returns
        -------
        Hashable
            The name.

        Raises
        ------
        InputError
            As for `add`; the function has more than one number a sample, or parameters; the weight is not finite.
        """
        if not np.isfinite(reals(weight, f"the weight of loss {name}")):
            raise InputError(f"loss {name}: its weight is {weight}")
        width, size = self._check_function(name, function, parents)
        if width != 1 or size:
            raise InputError(f"loss {name} must be one number a sample, without parameters")
        return self._insert(name, parents, width, size, function=function, weight=float(weight))

    def _add_node(self, name: Hashable, facts: dict[str, Any], shared: Hashable | None = None) -> None:
        """Add the node that the attributes of a node of a graph describe."""
        if facts.get("function") is None:
            self.input(name, facts["width"])
        elif facts.get("weight") is not None:
            self.loss(name, facts["function"], *facts["parents"], weight=facts["weight"])
        else:
            self.add(name, facts["function"], *facts["parents"], shared=shared)

    def _check_new(self, name: Hashable, parents: Sequence[Hashable]) -> None:
        if name in self.graph:
            raise InputError(f"node {name} is there already")
        missing = [parent for parent in parents if parent not in self.graph]
        if missing:
            raise InputError(f"node {name} is of {missing[0]}, which is not there yet")

    def _check_function(
        self, name: Hashable, function: NodeFunction, parents: Sequence[Hashable]
    ) -> tuple[int, int]:
        """Return width and number of parameters of a function of some nodes."""
        self._check_new(name, parents)
        if not (isinstance(function, NodeFunction) and parents):
            raise InputError(f"node {name} must have a NodeFunction, not {type(function).__name__}, and parents")
        facts = [self.graph.nodes[parent] for parent in parents]
        if any(parent.get("weight") is not None for parent in facts):
            raise InputError(f"node {name} is of a loss; a loss is an end of the network")
        widths = tuple(parent["breadth"] for parent in facts)
        try:
            return function.width(widths), function.parameter_count(widths)
        except InputError as error:
            raise InputError(f"node {name}: {error}") from error

    def _insert(
        self, name: Hashable, parents: Sequence[Hashable], breadth: int, size: int, **facts: object
    ) -> Hashable:
        self.graph.add_node(name, parents=tuple(parents), breadth=breadth, size=size, **facts)
        self.graph.add_edges_from((parent, name) for parent in parents)
        self.__dict__.pop("plan", None)  # it is of the graph before
        return name

    # --- structure ---

    @cached_property
    def plan(self) -> Plan:
        """The nodes in the order of evaluation.

        *Not collective.*

        Raises
        ------
        InputError
            There is no loss, or there are no parameters.
        """
        return Plan.from_graph(self.graph)

    @property
    def n(self) -> int:
        """Number of parameters."""
        return self.plan.n

    @property
    def blocks(self) -> dict[Hashable, slice]:
        """{name: slice} of the blocks of parameters, in their order."""
        plan = self.plan
        return {name: slice(*plan.offsets[g : g + 2].tolist()) for g, name in enumerate(plan.groups)}

    def block_pattern(self, part: str = "whole") -> np.ndarray:
        """Return which blocks of the Hessian can be non-zero.

        *Not collective.*

        Block (v, w) is there if and only if the recursion has a term for it: some node u on the way to a loss has
        a non-zero second derivative by two arguments, of which one depends on v's parameters (or is these) and the
        other on w's. A network that is linear has no such node, and no blocks. Terms of a block that is there may
        still cancel.

        Parameters
        ----------
        part
            `whole`; `gauss-newton`, of the second derivatives of the losses alone; `functional`, of all others.

        Returns
        -------
        np.ndarray
            (blocks, blocks) bool.

        Raises
        ------
        InputError
            There is no such part.
        """
        return self.plan.block_coupling(check_part(part))

    def untied(self) -> Network:
        """Return the same network in which no node shares its parameters.

        *Not collective.*

        With its Hessian H and `sharing()` as T, this network's is TᵀHT.

        Returns
        -------
        Network
            Another network, whose nodes have blocks of their own.
        """
        network = Network()
        for name, facts in self.graph.nodes(data=True):
            network._add_node(name, facts)
        return network

    @property
    def labels(self) -> np.ndarray:
        """(n of the untied network,) which parameter of this one each of its parameters is."""
        plan, untied = self.plan, self.untied().plan
        group = {node.name: node.group for node in plan.nodes}
        parts = [np.arange(*plan.offsets[group[name] : group[name] + 2]) for name in untied.groups]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    # --- derivatives ---

    def pattern(self, part: str = "whole", *, comm: MPI.Comm | None = None) -> Pattern:
        """Return the pattern of the Hessian.

        *Collective.*

        Parameters
        ----------
        part
            See `block_pattern`.
        comm
            Communicator. Default: this process alone.

        Returns
        -------
        Pattern
            Full in every block of `block_pattern`.

        Raises
        ------
        InputError
            There is no such part.
        """
        from sparsehess.networks.block_rows import block_rows

        return block_rows(self.plan, part, comm).pattern()

    def sharing(self, *, comm: MPI.Comm | None = None) -> PETSc.Mat:
        """Return T of the congruence TᵀHT that ties the Hessian H of the untied network; see `untied`.

        *Collective.*

        Parameters
        ----------
        comm
            Communicator. Default: this process alone.

        Returns
        -------
        PETSc.Mat
            The caller destroys it.
        """
        from sparsehess.operators.transforms import sharing
        from sparsehess.runtime.row_layout import Layout

        labels = self.labels
        layout = Layout.from_size(len(labels), comm)
        return sharing(labels[layout.start : layout.stop], layout, self.n)

    def objective(self, x: np.ndarray, data: dict[Hashable, np.ndarray], **more: Any) -> Objective:
        """Return the objective of this network: energy, gradient and products of this rank's samples, summed.

        *Collective.*

        Parameters
        ----------
        x
            (n,) parameters, the same on every rank.
        data
            {input: (N, width)}: this rank's samples, perhaps none; see `networks.shard_samples`.
        more
            Other arguments of `networks.objective.network_objective`: `part`, `workspace`, `comm`, and those of
            `Objective`.

        Returns
        -------
        Objective
            Replicated, with exact products.

        Raises
        ------
        InputError, CheckError, EvaluationError
            See `networks.objective.network_objective`.
        """
        from sparsehess.networks.objective import network_objective

        return network_objective(self, x, data, **more)

    def hessian(self, x: np.ndarray, data: dict[Hashable, np.ndarray], **more: Any) -> NetworkHessian:
        """Return the exact Hessian, assembled block by block.

        *Collective.*

        Parameters
        ----------
        x
            (n,) parameters, the same on every rank.
        data
            {input: (N, width)}: this rank's samples, perhaps none; see `networks.shard_samples`.
        more
            Other arguments of `NetworkHessian`: `part`, `workspace`, `comm`.

        Returns
        -------
        NetworkHessian
            The caller closes it.

        Raises
        ------
        InputError, CheckError, EvaluationError
            See `NetworkHessian`.
        """
        from sparsehess.networks.hessian import NetworkHessian

        return NetworkHessian(self, x, data, **more)
