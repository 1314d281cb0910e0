"""A network as an `Objective`: energy, gradient and exact products in batches, of this rank's samples."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.networks.block_rows import block_rows
from sparsehess.networks.chunks import DEFAULT_WORKSPACE, product_numbers
from sparsehess.networks.plan import Planned, check_part
from sparsehess.networks.problem import NetworkProblem
from sparsehess.networks.propagation import ForwardPass
from sparsehess.networks.second_derivatives import hessian_products

if TYPE_CHECKING:
    from mpi4py import MPI

# Most directions of one batch of products.
_BATCH = 64


def network_objective(
    network: Planned,
    x: np.ndarray,
    data: dict[Hashable, np.ndarray],
    *,
    part: str = "whole",
    workspace: int = DEFAULT_WORKSPACE,
    comm: MPI.Comm | None = None,
    **more: Any,
) -> Objective:
    """Return the objective of a network: the weighted mean of its losses over the samples of all ranks.

    *Collective.*

    Energy, gradient and products are of arrays and summed over the ranks; products are exact. A part of the
    Hessian has no gradient. Exactly at the kink of a piecewise linear activation, gradients and products take its
    slope `left`.

    Parameters
    ----------
    network
        The same on every rank.
    x
        (n,) parameters, the same on every rank.
    data
        {input: (N, width)}: this rank's samples, perhaps none; see `shard_samples`.
    part
        Of the Hessian in products: `whole`, `gauss-newton` or `functional`; see `NetworkHessian`.
    workspace
        Numbers of 8 bytes that the arrays of a chunk of samples may take.
    comm
        Communicator. Default: this process alone.
    more
        Other arguments of `Objective`. The pattern is by default the network's.

    Returns
    -------
    Objective
        Replicated, with `summed`, `hvps`, and for the whole Hessian `energy` and `gradient`.

    Raises
    ------
    InputError
        Parameters or data do not fit the network; there is no such part.
    CheckError
        Derivatives that a node of the user's own states do not fit differences.
    EvaluationError
        A node raised, or computed an array of another shape than it should.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> from sparsehess.networks import Affine, SoftmaxCrossEntropy
    >>> network = sh.Network()
    >>> names = network.input("point", 1), network.input("class", 2)
    >>> names = network.add("logits", Affine(2), "point")
    >>> name = network.loss("loss", SoftmaxCrossEntropy(), "logits", "class")
    >>> data = {"point": np.array([[1.0], [2.0]]), "class": np.eye(2)}
    >>> objective = network.objective(np.zeros(network.n), data)
    >>> print(round(objective.energy(objective.x), 6), objective.gradient(objective.x))
    0.693147 [ 0.25 -0.25  0.    0.  ]
    """
    check_part(part)
    problem = NetworkProblem.from_arguments(network, x, data, comm)
    work = _NetworkFunctions(problem, part, workspace)
    if "pattern" not in more:
        more["pattern"] = block_rows(problem.plan, part, comm).pattern()
    functions: dict[str, Any] = {}
    if part == "whole":  # another part of the Hessian is the derivative of no function
        functions = {"energy": work.energy, "gradient": work.gradient}
    return Objective(
        x=problem.x,
        **functions,
        hvps=work.products,
        batch=_BATCH,
        summed=True,
        comm=problem.comm,
        **{"name": "network", **more},
    )


class _NetworkFunctions:
    """Functions of the objective. The forward pass of the last point is kept if all samples are one chunk."""

    def __init__(self, problem: NetworkProblem, part: str, workspace: int):
        self._problem, self._part, self._workspace = problem, part, workspace
        samples = len(next(iter(problem.data.values())))
        self._is_one_chunk = 0 < samples * product_numbers(problem.plan, _BATCH) <= workspace
        self._kept: list[ForwardPass] = []

    def _passes(self, x: np.ndarray, m: int) -> Iterable[ForwardPass]:
        """Return the forward passes at x, of chunks for m products."""
        if self._kept and np.array_equal(self._kept[0].x, x):
            return self._kept
        problem = replace(self._problem, x=np.array(x))
        if self._is_one_chunk:
            self._kept = [problem.forward_pass(problem.data)]
            return self._kept
        return problem.forward_passes(product_numbers(problem.plan, m), self._workspace)

    def energy(self, x: np.ndarray) -> float:
        return float(sum(forward.energy() for forward in self._passes(x, 1)))

    def gradient(self, x: np.ndarray) -> np.ndarray:
        return sum((forward.gradient() for forward in self._passes(x, 1)), np.zeros(len(x), x.dtype))

    def products(self, x: np.ndarray, V: np.ndarray) -> np.ndarray:
        passes = self._passes(x, len(V))
        return sum((hessian_products(forward, V, self._part) for forward in passes), np.zeros(V.shape))
