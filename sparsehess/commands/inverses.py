"""The inverse of a Hessian: entries, samples of its normal law, and the Hessian on constraints."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from sparsehess import errors
from sparsehess.commands import flag_groups
from sparsehess.commands.estimates import answer_task, completed_facts, open_problem, told_lines
from sparsehess.commands.inputs import open_input
from sparsehess.commands.output import answer, refuse_solver_options
from sparsehess.eigen.inverses import gaussian_samples, reduced_hessian, selected_inverse
from sparsehess.eigen.inverses.places import Places
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import CheckError, InputError, NotConverged
from sparsehess.runtime import PETSc, destroy, on_root
from sparsehess.runtime.gathered_rows import rows_on_all
from sparsehess.runtime.row_layout import Layout
from sparsehess.storage import writers
from sparsehess.storage.array_files import load_array
from sparsehess.storage.matrix_address import suffix_of
from sparsehess.storage.matrix_formats import load_rows

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.commands.call import Call
    from sparsehess.commands.inputs import Input
    from sparsehess.eigen.inverses import ReducedHessian, SelectedInverse


def run_inverse(call: Call) -> int:
    """Tell entries of the inverse. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    refuse_solver_options(call.options)
    writers.check_writable(arguments.out, writers.RESULTS, comm)
    with open_problem(call) as (given, problem):
        found = selected_inverse(problem, _places(call, given), shift=arguments.shift)
        arrays = {name: _gathered(comm, getattr(found, name)) for name in ("rows", "columns", "values", "errors")}
        values = arrays["values"]
        facts = {
            "of": found.of,
            "at": arguments.at,
            "entries": len(values),
            "values": None if arguments.at in ("diagonal", "pattern") else values.tolist(),
            "least": float(values.min()) if len(values) else None,
            "largest": float(values.max()) if len(values) else None,
            "error": float(arrays["errors"].max(initial=0.0)),
            "negative": found.negative,
            "margin": found.margin,
            "how": found.how,
        }
        facts = completed_facts(call, given, facts, began)
        if arguments.out is not None:
            writers.write_results(arguments.out, facts, arrays, [], comm)
        answer_task(call, given, facts, _inverse_lines(found, facts))
    comm.Barrier()
    return errors.DONE


def _places(call: Call, given: Input) -> Places:
    """Return which entries are asked for. Collective."""
    at = call.arguments.at
    if at == "diagonal":
        return None
    if at == "pattern":
        if given.pattern is None:
            raise InputError("--at pattern: nothing is assembled, and there is no pattern")
        return given.pattern
    asked = on_root(call.comm, _read_numbers, at, "--at")
    if asked.ndim != 2 or asked.shape[1] != 2:
        raise InputError(f"--at {at}: an array (m, 2) of rows and columns is needed, not {asked.shape}")
    mine = asked if call.comm.rank == 0 else asked[:0]  # the first rank asks for all
    return mine[:, 0], mine[:, 1]


def _inverse_lines(found: SelectedInverse, facts: dict[str, Any]) -> str:
    """Return the answer of `inverse` for people. Not collective."""
    many = facts["entries"]
    ends = "" if not many else f", from {facts['least']:.6g} to {facts['largest']:.6g}"
    signs = "positive definite" if not found.negative else f"{found.negative} negative eigenvalues"
    return "\n".join(
        [
            f"inverse      of {found.of}: {many} entries ({facts['at']}){ends}",
            f"signs        {signs}; margin {found.margin:.1e}",
            f"error        up to {facts['error']:.1e}, by {found.how}",
        ]
    )


def run_samples(call: Call) -> int:
    """Draw samples of the normal law whose precision is a Hessian. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    refuse_solver_options(call.options)
    if arguments.out is None:
        raise InputError("give a file for the samples with -o")
    writers.check_writable(arguments.out, writers.RESULTS, comm)
    with open_problem(call) as (given, problem):
        found = gaussian_samples(
            problem, arguments.count, shift=arguments.shift, seed=arguments.seed, error=arguments.error
        )
        facts = {
            "of": found.of,
            "samples": arguments.count,
            "error": found.error,
            "factorizations": found.factorizations,
            "how": found.how,
        }
        facts = completed_facts(call, given, facts, began)
        vectors = _vectors(found.values, problem.layout)
        writers.write_results(arguments.out, facts, {}, vectors, comm)
        destroy(*vectors)
        lines = [
            f"samples      {arguments.count} of the normal law of precision {found.of}, in {arguments.out}",
            f"law          covariance to {2 * found.error:.1e} of itself, by {found.how}",
        ]
        answer_task(call, given, facts, "\n".join(lines))
    comm.Barrier()
    return errors.DONE


def run_reduced(call: Call) -> int:
    """Say whether a KKT point is a minimum, and tell covariances. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    refuse_solver_options(call.options)
    flag_groups.refuse_flags(arguments, {"mass": None}, "a mass plays no part on constraints")
    writers.check_writable(arguments.out, writers.RESULTS, comm)
    jacobian = None if arguments.jacobian is None else on_root(comm, _read_jacobian, arguments.jacobian)
    fixed = _chosen(comm, arguments.fixed, "--fixed")
    variables = _chosen(comm, arguments.covariance, "--covariance")
    with (
        closing(open_input(call, shell=arguments.shell)) as given,
        EigenProblem.of(**given.problem_arguments(), nullspace=[]) as problem,
        reduced_hessian(problem, jacobian, fixed=fixed, k=arguments.k) as found,
    ):
        wanted = len(variables) and found.verdict == "minimum"
        facts = {
            "constraints": 0 if jacobian is None else jacobian.shape[0],
            "redundant": found.redundant.tolist(),
            **{name: getattr(found, name) for name in ("held", "freedom", "negative", "zero", "positive")},
            **{name: getattr(found, name) for name in ("verdict", "certified", "margin")},
            "eigenvalues": found.eigenvalues.tolist(),
            "shortfall": found.shortfall or None,
            "variables": variables.tolist(),
            "covariance": found.covariance(variables).tolist() if wanted else None,
        }
        facts = completed_facts(call, given, facts, began)
        if arguments.out is not None:
            arrays = {"eigenvalues": found.eigenvalues}
            if found.verdict == "minimum":
                arrays["standard_deviations"] = rows_on_all(found.layout, found.standard_deviations())
            vectors = _vectors(found.directions, found.layout)
            writers.write_results(arguments.out, facts, arrays, vectors, comm)
            destroy(*vectors)
        answer(call, facts, told_lines(given, facts, _reduced_lines(found, facts)))
        certified, missing = found.certified, found.shortfall
    comm.Barrier()
    if not certified:
        raise CheckError("the verdict is not proven: the Hessian on the constraints is singular to rounding")
    if missing:
        raise NotConverged(missing)
    return errors.DONE


def _reduced_lines(found: ReducedHessian, facts: dict[str, Any]) -> str:
    """Return the answer of `reduced` for people. Not collective."""
    redundant = facts["redundant"]
    left_out = f", {len(redundant)} of them redundant: {', '.join(map(str, redundant[:10]))}" if redundant else ""
    lines = [
        f"constraints  {facts['constraints']}{left_out}; {found.held} variables held; "
        f"{found.freedom} of {found.n} free",
        f"signs        {found.negative} negative, {found.zero} zero, {found.positive} positive",
        f"verdict      {found.verdict}, {'certified' if found.certified else 'not certified'} "
        f"(margin {found.margin:.1e})",
    ]
    if len(found.eigenvalues):
        lines.append(f"eigenvalues  {'  '.join(f'{value:.6g}' for value in found.eigenvalues)}")
    if found.shortfall:
        lines.append(f"missing      {found.shortfall}")
    if facts["covariance"] is not None:
        rows = ["  ".join(f"{value:12.5g}" for value in row) for row in facts["covariance"]]
        lines += [
            "covariance   of variables " + ", ".join(map(str, facts["variables"])),
            *(f"  {row}" for row in rows),
        ]
    return "\n".join(lines)


def _vectors(columns: np.ndarray, layout: Layout) -> list[PETSc.Vec]:
    """Return columns (n_local, m) as Vecs. Collective."""
    size = (layout.n_local, layout.n)
    return [PETSc.Vec().createWithArray(column.copy(), size=size, comm=layout.comm) for column in columns.T]


def _gathered(comm: MPI.Comm, local: np.ndarray) -> np.ndarray:
    """Return the numbers of all ranks, one rank's after another's, on every rank. Collective."""
    return rows_on_all(Layout.from_local(len(local), comm), local)


def _chosen(comm: MPI.Comm, text: str | None, flag: str) -> np.ndarray:
    """Return numbers of variables that are written out, or in a file. Collective."""
    if text is None:
        return np.empty(0, np.int64)
    try:
        return np.array([int(word) for word in text.split(",")], np.int64)
    except (ValueError, OverflowError):
        return on_root(comm, _read_numbers, text, flag).ravel()


def _read_numbers(path: str, flag: str) -> np.ndarray:
    if not path.endswith(".npy"):
        raise InputError(f"{flag} {path}: neither numbers nor an .npy file of them")
    found = load_array(path)
    if found.dtype.kind not in "iu":
        raise InputError(f"{flag} {path}: an .npy array of whole numbers is needed")
    return found.astype(np.int64)


def _read_jacobian(path: str) -> scipy.sparse.csr_matrix:
    """Return the matrix (m, n) of a file; an array (n,) is one row. Not collective."""
    suffix = suffix_of(path)
    if suffix == ".npy":
        array = load_array(path)
        if array.ndim not in (1, 2) or array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            raise InputError(f"--jacobian {path}: finite real numbers (m, n) are needed")
        return scipy.sparse.csr_matrix(np.atleast_2d(array))
    if suffix not in (".mtx", ".mtx.gz", ".npz"):
        raise InputError(f"--jacobian {path}: its name ends with none of .mtx, .mtx.gz, .npz, .npy")
    return load_rows(Path(path), suffix)
