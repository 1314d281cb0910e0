"""The advice of `plan`: a few products, and what follows from them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess import runtime
from sparsehess.commands import cost_model, method_advice
from sparsehess.commands.cost_model import Calls, Memory
from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError
from sparsehess.hessian.matrix_free import MatrixFree
from sparsehess.pattern import Pattern
from sparsehess.runtime import destroy
from sparsehess.storage import matrix_files
from sparsehess.storage.matrix_files import StoredMatrix

if TYPE_CHECKING:
    from petsc4py import PETSc

# Entries beyond two to this power, or below its inverse, are not multiplied with.
_EXTREME = 200

# Products that are made where nothing is said.
_PRODUCTS = 12


def give_advice(
    arguments: argparse.Namespace,
    source: Objective | StoredMatrix,
    pattern: Pattern | None,
    calls: Calls | None,
    needed: Memory,
    free: int,
    many: int,
) -> tuple[method_advice.SpectrumProbe | None, method_advice.Advice | None, str]:
    """Return (how it looks, the advice, both for people); None where the problem has no products to look at.

    Collective.

    Parameters
    ----------
    pattern
        None where it is not known.
    calls, needed
        What an assembly would call, and take of memory; estimated anew where the pattern is not known.
    free, many
        Bytes that each rank may take, and ranks that the memory is told for.
    """
    where = source if isinstance(source, Objective) else source.pattern
    n, comm = where.n, where.comm
    wanted = _wanted(arguments, n)
    with ExitStack() as stack:
        try:
            matrix = stack.enter_context(_operator(source, arguments.seed))
        except InputError as error:
            if arguments.products is not None:
                raise
            return None, None, f"advice       none: {error}"
        found = _looked(arguments, matrix, wanted, pattern is None, comm)
    nnz = None if pattern is None else pattern.nnz
    if isinstance(source, Objective) and found.row is not None:
        row = max(1, round(found.row))
        needed = cost_model.estimate_memory(None, n, n * row, wanted.k or n, min(n, row), True)
        probed = arguments.points * cost_model.count_probes(n, row)
        calls = cost_model.count_calls(
            source, arguments.derivative, min(n, row), not arguments.no_verify, probed=probed
        )
    per = 1 if calls is None or calls.scheme == "product" else 2
    given = method_advice.advise(found, wanted, n, calls, needed, many, free, per)
    told = "\n".join(method_advice.advice_lines(found, given, n, nnz))
    return found, given, told


@contextmanager
def _operator(source: Objective | StoredMatrix, seed: int) -> Iterator[MatrixFree | PETSc.Mat]:
    """Yield what takes products: the matrix of a file, or a problem's Hessian, not assembled. Collective."""
    if isinstance(source, Objective):
        with MatrixFree(source, seed=seed, verify=False) as shell:
            yield shell
        return
    largest = source.pattern.comm.allreduce(float(np.abs(source.values).max(initial=0.0)), MPI.MAX)
    if largest and abs(np.log2(largest)) > _EXTREME:
        raise InputError(f"entries are about 2^{np.log2(largest):.0f}, and the squares of such numbers are none")
    matrix = source.to_mat()
    try:
        yield matrix
    finally:
        destroy(matrix)


def _wanted(arguments: argparse.Namespace, n: int) -> method_advice.SolveRequest:
    """Return what is to be solved."""
    if arguments.interval is not None or (arguments.which == "negative" and arguments.k is None):
        return method_advice.SolveRequest(None, None, arguments.tol)
    k = min(6 if arguments.k is None else arguments.k, n)
    ends = arguments.target is None and arguments.which != "negative"
    return method_advice.SolveRequest(k, arguments.which if ends else None, arguments.tol)


def _read_mass(arguments: argparse.Namespace, comm: MPI.Comm) -> PETSc.Mat:
    """Return the mass matrix of --mass. Collective."""
    stored = matrix_files.read_matrix(arguments.mass, comm, one_triangle=arguments.one_triangle)
    try:
        return stored.to_mat()
    finally:
        stored.pattern.free()


def _looked(
    arguments: argparse.Namespace,
    matrix: MatrixFree | PETSc.Mat,
    wanted: method_advice.SolveRequest,
    unknown: bool,
    comm: MPI.Comm,
) -> method_advice.SpectrumProbe:
    """Return what a few products say. Collective."""
    mass = None if arguments.mass is None else _read_mass(arguments, comm)
    try:
        return method_advice.probe_spectrum(
            matrix,
            arguments.products or _PRODUCTS,
            top=wanted.end in ("largest", "magnitude"),
            columns=unknown,
            mass=mass,
            seed=arguments.seed,
        )
    finally:
        runtime.destroy(mass)
