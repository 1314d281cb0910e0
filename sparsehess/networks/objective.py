"""A network as an `Objective`: energy, gradient and exact products in batches, of this rank's samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.errors import EvaluationError, InputError
from sparsehess.networks.derivative_check import check
from sparsehess.networks.network import Network, Plan, check_part
from sparsehess.networks.propagation import CHUNK, Sample, chunks, numbers_of_products
from sparsehess.networks.samples import checked
from sparsehess.runtime import agreement, communicator
from sparsehess.runtime.validation import reals

# Products that a batch has at most.
_MOST = 64

# Samples of each rank on which what nodes of the user's own state is checked.
_CHECKED = 4


@dataclass(frozen=True, eq=False)
class Task:
    """A network with its parameters and this rank's samples, checked.

    Attributes
    ----------
    plan, x, data
        The network made ready, (n,) and {input: (N, width)}.
    share
        1 over the number of samples of all ranks.
    comm
        Our communicator.
    """

    plan: Plan
    x: np.ndarray
    data: dict[str, np.ndarray]
    share: float
    comm: object

    @classmethod
    def of(cls, network: Network, x, data: dict, comm) -> Task:
        """Check parameters, samples, and what nodes of the user's own state. Collective."""
        comm = communicator(comm)
        with agreement(comm):
            if not isinstance(network, Network):
                raise InputError(f"expected a Network, not {type(network).__name__}")
            plan = network.plan
            x = np.array(reals(x, "x"))
            if x.shape != (plan.n,) or not np.isfinite(x).all():
                raise InputError(f"x must be ({plan.n},) finite parameters; its shape is {x.shape}")
        data = checked(data, plan.inputs, comm)
        samples = comm.allreduce(len(next(iter(data.values()))))
        task = cls(plan, x, data, 1.0 / samples, comm)
        with agreement(comm):
            task._check_nodes()
        return task

    def _check_nodes(self) -> None:
        few = {name: values[:_CHECKED] for name, values in self.data.items()}
        if not len(next(iter(few.values()))):
            return
        sample, rng = Sample(self.plan, self.x, few, self.share), np.random.default_rng(0)
        for u, node in enumerate(self.plan.nodes):
            shape = (sample.N, node.width)
            if sample.value(u).shape != shape:
                raise EvaluationError(f"node {node.name} computed {sample.value(u).shape} where {shape} belongs")
            if node.function is not None and not node.function.trusted:
                parents = [sample.value(p) for p in node.parents]
                check(node.name, node.function, self.plan.own(self.x, u), parents, rng)

    def samples(self, x: np.ndarray, numbers: int, room: int, least: int = 1):
        """Give the network at x for chunks of this rank's samples; for the arguments see `chunks`."""
        for part in chunks(self.data, numbers, room, least):
            yield Sample(self.plan, x, part, self.share)


def objective_of(
    network: Network, x, data: dict, *, part: str = "whole", room: int = CHUNK, comm=None, **more
) -> Objective:
    """Return the objective of a network: the weighted mean of its losses over the samples of all ranks.

    Collective.

    Parameters
    ----------
    network
        The same on every rank.
    x
        (n,) parameters, the same on every rank.
    data
        {input: (N, width)}: this rank's samples, perhaps none; see `deal`.
    part
        Of the Hessian that products are with: `whole`, `gauss-newton`, `functional`.
    room
        Numbers, of 8 bytes, that a sweep over a chunk of samples may take.
    comm, more
        Other arguments of `Objective`. The pattern is by default the network's.

    Returns
    -------
    Objective
        Of arrays, summed over ranks; products are exact. With a part of the Hessian goes no gradient.
        Where a piecewise linear activation is exactly at its kink, gradients and products take its slope `left`.

    Raises
    ------
    InputError
        Parameters or data do not fit the network.
    CheckError
        Derivatives that a node of the user's own states do not fit differences.
    """
    check_part(part)
    task = Task.of(network, x, data, comm)
    work = _Products(task, part, room)
    if "pattern" not in more:
        more["pattern"] = network.pattern(part, comm=comm)
    # Of a part of the Hessian there is no function that it is the derivative of.
    function = {"energy": work.energy, "gradient": work.gradient} if part == "whole" else {}
    return Objective(
        x=task.x,
        **function,
        hvps=work.products,
        batch=_MOST,
        summed=True,
        comm=comm,
        **{"name": "network", **more},
    )


class _Products:
    """What the objective calls. The last point is kept, where all of its samples are one chunk."""

    def __init__(self, task: Task, part: str, room: int):
        self._task, self._part, self._room = task, part, room
        self._last: Sample | None = None

    def _samples(self, x, m: int):
        last = self._last
        if last is not None and np.array_equal(last.x, x):
            return [last]
        numbers = numbers_of_products(self._task.plan, m)
        N = len(next(iter(self._task.data.values())))
        found = self._task.samples(np.array(x), numbers, self._room)
        if 0 < N * numbers_of_products(self._task.plan, _MOST) <= self._room:
            self._last = next(found)
            return [self._last]
        return found

    def energy(self, x) -> float:
        return float(sum(sample.energy() for sample in self._samples(x, 1)))

    def gradient(self, x) -> np.ndarray:
        return sum((sample.gradient() for sample in self._samples(x, 1)), np.zeros(len(x), x.dtype))

    def products(self, x, V) -> np.ndarray:
        found = (sample.products(V, self._part) for sample in self._samples(x, len(V)))
        return sum(found, np.zeros(V.shape))
