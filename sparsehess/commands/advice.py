"""The look of `plan`: a few products with what will be solved, and the noise of its gradient as a run has it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess import runtime
from sparsehess.commands.method_advice import SolveRequest
from sparsehess.commands.planned_calls import Measured
from sparsehess.commands.planned_products import Question
from sparsehess.commands.spectrum_probe import SpectrumProbe, probe_spectrum
from sparsehess.derivatives.consistency import check_consistency
from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.finite_differences import DIFFERENCES, scheme_of
from sparsehess.derivatives.gradient_noise import Noise, estimate_noise
from sparsehess.derivatives.objective import Objective
from sparsehess.derivatives.scales import Scales
from sparsehess.errors import InputError
from sparsehess.hessian.matrix_free import MatrixFree
from sparsehess.runtime import destroy
from sparsehess.storage import matrix_files
from sparsehess.storage.matrix_files import StoredMatrix

if TYPE_CHECKING:
    from petsc4py import PETSc

# Entries beyond two to this power, or below its inverse, are not multiplied with.
_EXTREME = 200

# Products that are made where nothing is said.
PRODUCTS = 12


def request_of(question: Question, n: int) -> SolveRequest:
    """Return the eigenpairs that are asked for. Not collective."""
    spec = question.spec
    if spec is None:
        return SolveRequest(None, None, question.tol or 1e-8)
    if spec.takes_all:
        return SolveRequest(None, None, spec.tol)
    k = min(spec.k or 6, n)
    ends = spec.target is None and spec.which != "negative"
    return SolveRequest(k, spec.which if ends else None, spec.tol)


def look(
    arguments: argparse.Namespace, source: Objective | StoredMatrix, wanted: SolveRequest, unknown: bool
) -> tuple[SpectrumProbe, Measured | None]:
    """Return what a few products say, and what was measured of a problem before.

    Collective.

    Parameters
    ----------
    unknown
        Whether the pattern is not known: then entries of rows are counted, too.

    Raises
    ------
    InputError
        There are no products to look at, or a run would refuse them.
    CheckError
        A run would fail: functions that contradict each other, products that are lost in noise.
    """
    comm = source.comm if isinstance(source, Objective) else source.pattern.comm
    with _operator(arguments, source) as matrix:
        mass = None if arguments.mass is None else _read_mass(arguments, comm, source)
        try:
            found = probe_spectrum(
                matrix,
                arguments.products or PRODUCTS,
                top=wanted.end in ("largest", "magnitude"),
                columns=unknown,
                mass=mass,
                tol=wanted.tol,
                seed=arguments.seed,
                sized=arguments.shell,
            )
        finally:
            runtime.destroy(mass)
        if not isinstance(source, Objective) or not isinstance(matrix, MatrixFree):
            return found, None
        noise, calls = matrix.noise, matrix.evaluations["noise"]
        return found, _measured(arguments, source, noise, calls, matrix.evaluations["verification"])


def measure(arguments: argparse.Namespace, objective: Objective) -> Measured:
    """Return what a run measures of a problem before it takes derivatives, without products.

    Collective.

    Raises
    ------
    CheckError
        A run would fail.
    """
    compared = 0 if arguments.no_verify else check_consistency(objective, objective.x, seed=arguments.seed)
    return _measured(arguments, objective, None, 0, compared)


def _measured(
    arguments: argparse.Namespace, objective: Objective, noise: Noise | None, calls: int, compared: int
) -> Measured:
    """Return what is measured, the noise where derivatives are differences and it is not known yet. Collective."""
    here = Evaluations(objective, objective.x)
    scales = Scales.of(here)
    if noise is None and scheme_of("auto" if arguments.shell else arguments.derivative, objective) in DIFFERENCES:
        noise = estimate_noise(here, scales)
        calls = sum(here.counts.values())
    return Measured(noise, scales if noise is None else replace(scales, length=noise.length), calls, compared)


@contextmanager
def _operator(arguments: argparse.Namespace, source: Objective | StoredMatrix) -> Iterator[MatrixFree | PETSc.Mat]:
    """Yield what takes products: the matrix of a file, or a problem's Hessian, not assembled. Collective."""
    if isinstance(source, Objective):
        verify = not arguments.no_verify
        with MatrixFree(source, seed=arguments.seed, precision=arguments.precision, verify=verify) as shell:
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


def _read_mass(arguments: argparse.Namespace, comm: MPI.Comm, source: Objective | StoredMatrix) -> PETSc.Mat:
    """Return the mass matrix of --mass. Collective."""
    beside = source if isinstance(source, StoredMatrix) else None
    doubled = beside is not None and beside.origin.doubled
    stored = matrix_files.read_matrix(
        arguments.mass,
        comm,
        one_triangle=arguments.one_triangle,
        beside=None if doubled else beside,
        hermitian=doubled,
    )
    try:
        return stored.to_mat(doubled=doubled)
    finally:
        stored.pattern.free()
