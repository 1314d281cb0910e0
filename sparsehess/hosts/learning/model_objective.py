"""`model_objective`: the curvature of a model on data as an objective, whatever host the model is of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypedDict

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError
from sparsehess.hosts.learning.host_errors import advised, explain_host_errors
from sparsehess.hosts.learning.model_checks import check_products
from sparsehess.hosts.learning.model_share import Share, weigh_shares
from sparsehess.hosts.learning.parameter_groups import Selection
from sparsehess.hosts.learning.product_modes import (
    DIFFERENCES,
    PRODUCTS,
    REDUCTIONS,
    product_precision,
    require_one_of,
)
from sparsehess.hosts.learning.sample_weights import WeighingOptions, weigh_samples
from sparsehess.runtime import agreement, communicator
from sparsehess.runtime.validation import whole_number


class Curvature(Protocol):
    """Products of this rank's part of a curvature matrix.

    Attributes
    ----------
    batch
        How many vectors are multiplied at once, at most.
    """

    batch: int

    def products(self, x: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return (m, n) products at x (n,) with directions (m, n)."""

    def forget(self) -> None:
        """Drop what is kept from product to product."""


class CurvatureOptions(TypedDict, total=False):
    """Options of `model_objective`, which the hosts pass on; their `hessian` describes them."""

    reduction: str
    weight: Callable[[Any], Any] | None
    products: str
    memory: int
    comm: MPI.Comm | None


class ModelOptions(CurvatureOptions, total=False):
    """Options of the hosts' `hessian`, `gauss_newton` and `empirical_fisher`."""

    parameters: Selection
    device: Any
    name: str | None


def model_objective(
    make_share: Callable[[str], Share],
    make_curvature: Callable[[Share, int], Curvature],
    *,
    name: str,
    of_loss: bool,
    plain: bool = False,
    reduction: str = "mean",
    weight: Callable[[Any], Any] | None = None,
    products: str = "float64",
    memory: int = 2**29,
    comm: MPI.Comm | None = None,
) -> Objective:
    """Return the objective of a model's curvature on data.

    Collective on `comm`.

    Parameters
    ----------
    make_share
        `make_share(precision)`, the model with this rank's samples.
    make_curvature
        `make_curvature(share, memory)`, the products; it chooses the share's chunks.
    name
        For reports.
    of_loss
        Whether the matrix is the Hessian of the loss, so that gradient and loss belong to it.
    plain
        Whether it is one of samples that all have the same weight.
    reduction, weight, products, memory, comm
        As for the hosts' `hessian`.

    Raises
    ------
    InputError
        No samples, or arguments that cannot be used.
    CheckError
        Products that are not deterministic, not symmetric, or not finite; a loss that is not the mean or the sum
        over samples.
    """
    comm = communicator(comm)
    require_one_of(PRODUCTS, products)
    require_one_of(REDUCTIONS, reduction)
    precision = product_precision(products)
    with agreement(comm), explain_host_errors(name):
        whole_number(memory, "memory", 1)
        if plain and weight is not None:
            raise InputError("`weight` is for `hessian` and `gauss_newton`: all samples have the same weight here")
        if products == DIFFERENCES and not of_loss:
            raise InputError("products='differences' are of gradients: take `hessian`")
        exact = make_share("float64")
        fast = exact if precision == "float64" else make_share(precision)
    weigh_shares(comm, reduction, exact, fast)
    with agreement(comm), explain_host_errors(name):
        for share in (exact, fast):
            share.settle_loss(not of_loss)
        curvature = make_curvature(fast, memory)
        if exact is not fast:
            exact.chunk = max(1, fast.chunk // 2)
    options = WeighingOptions(reduction, weight, plain)
    parts = weigh_samples(comm, exact, [exact.chunks(), fast.chunks()], options, name)
    for share in (exact, fast):
        share.set_weights(parts)
    with agreement(comm), explain_host_errors(name):

        def prepare() -> Callable[[np.ndarray], np.ndarray]:
            curvature.forget()
            return partial(curvature.products, exact.x)

        if exact.samples and products != DIFFERENCES:
            check_products(prepare, len(exact.x), precision=precision, name=name, advice=exact.advice())
    return Objective(
        x=exact.x,
        gradient=advised(exact.gradient) if of_loss else None,
        energy=advised(exact.energy) if of_loss else None,
        hvps=None if products == DIFFERENCES else advised(curvature.products),
        batch=1 if products == DIFFERENCES else comm.allreduce(curvature.batch, op=MPI.MIN),
        summed=True,
        name=name,
        comm=comm,
    )
