"""`NetworkProblem`: a network with its parameters and this rank's samples, checked."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.errors import EvaluationError, InputError
from sparsehess.networks.chunks import split_samples
from sparsehess.networks.derivative_check import check_derivatives
from sparsehess.networks.plan import Plan, Planned, plan_of
from sparsehess.networks.propagation import ForwardPass
from sparsehess.networks.samples import check_samples
from sparsehess.runtime import agreement, communicator
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from mpi4py import MPI

# Samples of each rank on which finite differences check nodes of the user's own.
_CHECKED_SAMPLES = 4


@dataclass(frozen=True, eq=False)
class NetworkProblem:
    """A network with its parameters and this rank's samples, checked.

    Attributes
    ----------
    plan
        Of the network.
    x
        (n,) parameters, the same on every rank.
    data
        {input: (N, width)}, this rank's samples.
    loss_scale
        1 over the number of samples of all ranks.
    comm
        Communicator.
    """

    plan: Plan
    x: np.ndarray
    data: dict[Hashable, np.ndarray]
    loss_scale: float
    comm: MPI.Comm

    @classmethod
    def from_arguments(cls, network: Planned, x: object, data: object, comm: MPI.Comm | None) -> NetworkProblem:
        """Return the problem of what a caller gives.

        *Collective.*

        Raises
        ------
        InputError
            Parameters or samples do not fit the network.
        CheckError
            Derivatives that a node of the user's own states do not fit differences.
        EvaluationError
            A node raised, or computed an array of another shape than it should.
        """
        comm = communicator(comm)
        with agreement(comm):
            plan = plan_of(network)
            x = np.array(reals(x, "x"))
            if x.shape != (plan.n,) or not np.isfinite(x).all():
                raise InputError(f"x must be ({plan.n},) finite parameters; its shape is {x.shape}")
        own = check_samples(data, plan.inputs, comm)
        samples = comm.allreduce(len(next(iter(own.values()))))
        problem = cls(plan, x, own, 1.0 / samples, comm)
        with agreement(comm):
            problem._check_nodes()
        return problem

    def _check_nodes(self) -> None:
        few = {name: values[:_CHECKED_SAMPLES] for name, values in self.data.items()}
        if not len(next(iter(few.values()))):
            return
        forward, rng = self.forward_pass(few), np.random.default_rng(0)
        for u, node in enumerate(self.plan.nodes):
            shape = (forward.sample_count, node.width)
            if forward.value(u).shape != shape:
                raise EvaluationError(f"node {node.name} computed {forward.value(u).shape} where {shape} belongs")
            if not node.function.trusted:
                parents = [forward.value(parent) for parent in node.parents]
                check_derivatives(node.name, node.function, self.plan.parameters_of(self.x, u), parents, rng)

    def forward_pass(self, data: dict[Hashable, np.ndarray]) -> ForwardPass:
        """Return the forward pass of some samples at x."""
        return ForwardPass(self.plan, self.x, data, self.loss_scale)

    def forward_passes(self, sample_numbers: int, workspace: int, fewest: int = 1) -> Iterator[ForwardPass]:
        """Yield the forward passes at x of this rank's samples in chunks; see `split_samples`."""
        for chunk in split_samples(self.data, sample_numbers, workspace, fewest):
            yield self.forward_pass(chunk)
