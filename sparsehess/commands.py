"""The commands behind the command line, one function each: arguments in, exit status out.

All are collective and return the same status on every rank.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import closing

from sparsehess import errors, export, matrices, problems, report, runtime
from sparsehess.certificate import judge, recount
from sparsehess.coloring import save, verify
from sparsehess.errors import CheckError, InputError
from sparsehess.operands import asked_coloring, assembled, known_vectors, operand
from sparsehess.recovery import plan
from sparsehess.results import read_result
from sparsehess.runtime import agreement
from sparsehess.signs import count_signs
from sparsehess.solvers import EigenProblem, SolveSpec
from sparsehess.solvers.backends import check_backend
from sparsehess.solvers.choice import choose
from sparsehess.solvers.eigs import completed, shortfall, solve
from sparsehess.stack import stack_facts, stack_text
from sparsehess.telling import (
    SCHEMA,
    check_lines,
    color_lines,
    coloring_facts,
    count_facts,
    derivative_facts,
    eigs_facts,
    eigs_lines,
    hessian_lines,
    inertia_lines,
)


def run_eigs(arguments, options, comm) -> int:
    """Eigenpairs of a matrix file or of a problem."""
    began = time.perf_counter()
    export.check_writable(arguments.out, export.RESULTS, comm)
    export.check_writable(arguments.plot, (".png", ".pdf", ".svg"), comm)
    spec = SolveSpec(
        k=arguments.k,
        which=arguments.which,
        interval=None if arguments.interval is None else tuple(arguments.interval),
        target=arguments.target,
        tol=arguments.tol,
        options=options,
        count=arguments.count,
        seed=arguments.seed,
        method=arguments.method,
        groups=arguments.groups,
        backend=arguments.backend,
    )
    check_backend(spec.backend)
    with closing(operand(arguments, comm, shell=arguments.shell)) as given:
        known = known_vectors(arguments, given, comm)
        with EigenProblem.of(
            given.matrix,
            mass=given.mass,
            nullspace=known.null,
            near_null=known.near_null,
            guess=None if arguments.guess is None else matrices.read_vectors(arguments.guess, given.n, comm),
            preconditioner=given.preconditioner,
            relative_error=given.relative_error,
        ) as problem:
            if arguments.explain:
                return _explain(arguments, problem, spec, comm)
            spec = completed(problem, spec)
            progress = report.Progress("eigenpairs converged", comm, arguments.quiet)
            spectrum = solve(problem, spec, progress)
            progress.finish()
            timings = {**given.timings, **spectrum.timings, "total": time.perf_counter() - began}
            facts = eigs_facts(given, spec, spectrum, problem, timings)
            if arguments.out is not None:
                arrays = {"eigenvalues": spectrum.eigenvalues, "residuals": spectrum.residuals}
                export.write_results(arguments.out, facts, arrays, spectrum.vectors, comm)
            drawn = arguments.plot is not None and given.pattern is not None
            picture = report.pattern_picture(given.pattern) if drawn else None
            lines = eigs_lines(given, facts, spectrum, problem, known.names)
            with agreement(comm):
                if comm.rank == 0:
                    if arguments.plot is not None:
                        report.plot(arguments.plot, spectrum, problem.units, picture, given.n, given.name)
                    if _prints(arguments):
                        print(lines)
                    _write_json(arguments, facts)
            error = shortfall(spectrum)
            spectrum.close()
    comm.Barrier()
    if error is not None:
        raise error
    return errors.DONE


def _explain(arguments, problem: EigenProblem, spec: SolveSpec, comm) -> int:
    choice = choose(problem, completed(problem, spec))
    facts = {"schema": SCHEMA, "task": "explain", "n": problem.n, **dataclasses.asdict(choice)}
    with agreement(comm):
        if comm.rank == 0:
            if _prints(arguments):
                print(f"method       {choice.method}\nbecause      {choice.reason}")
            _write_json(arguments, facts)
    return errors.DONE


def run_inertia(arguments, options, comm) -> int:
    """How many eigenvalues are negative, zero, positive."""
    began = time.perf_counter()
    with closing(operand(arguments, comm)) as given:
        with EigenProblem.of(
            given.matrix, mass=given.mass, nullspace=[], relative_error=given.relative_error
        ) as problem:
            signs = count_signs(problem, arguments.zero, options)
        facts = {
            "schema": SCHEMA,
            "task": "inertia",
            "n": given.n,
            "nnz": given.nnz,
            **dataclasses.asdict(signs),
            "definite": signs.definite,
            **({} if given.derived is None else derivative_facts(given.derived)),
            "timings": {**given.timings, "total": time.perf_counter() - began},
            "memory": comm.allreduce(runtime.peak_memory()),
            "mpi": {"size": comm.size, "threads": runtime.threads()},
            "versions": runtime.versions(),
        }
        with agreement(comm):
            if comm.rank == 0:
                if _prints(arguments):
                    if given.derived is not None:
                        print(hessian_lines(given.derived, facts))
                    print(inertia_lines(signs))
                _write_json(arguments, facts)
    comm.Barrier()
    if not signs.certified:
        raise CheckError(
            f"the counts are not certain: {signs.doubt}; eigenvalues lie near ±{signs.threshold:.1e}, "
            "give another --zero"
        )
    return errors.DONE


def run_check(arguments, options, comm) -> int:
    """A stored result, verified from the files alone."""
    began = time.perf_counter()
    _no_solver(options)
    with closing(operand(arguments, comm)) as given:
        known = known_vectors(arguments, given, comm)
        with EigenProblem.of(
            given.matrix, mass=given.mass, nullspace=known.null, relative_error=given.relative_error
        ) as problem:
            result = read_result(arguments.result, problem.layout)
            tol = max(arguments.tol, 10 * problem.relative_error)
            count, wanted = recount(problem, completed(problem, result.spec), result.eigenvalues)
            found = judge(problem, result.eigenvalues, result.vectors, count, tol)
            runtime.destroy(*result.vectors)
    passed = found.passed and len(result.eigenvalues) >= wanted
    facts = {
        "schema": SCHEMA,
        "task": "check",
        "result": arguments.result,
        "n": given.n,
        "k": len(result.eigenvalues),
        "wanted": wanted,
        "residual": found.residual,
        "rayleigh": found.rayleigh,
        "orthogonality": found.orthogonality,
        "tol": tol,
        "count": count_facts(count),
        "passed": passed,
        "timings": {**given.timings, "total": time.perf_counter() - began},
        "mpi": {"size": comm.size, "threads": runtime.threads()},
    }
    with agreement(comm):
        if comm.rank == 0:
            if _prints(arguments):
                print(check_lines(facts))
            _write_json(arguments, facts)
    comm.Barrier()
    if not passed:
        raise CheckError(f"{arguments.result} does not hold for {arguments.input}: see the report")
    return errors.DONE


def run_assemble(arguments, options, comm) -> int:
    """The Hessian of a problem, to a file."""
    began = time.perf_counter()
    _no_solver(options)
    export.check_writable(arguments.out, export.MATRICES, comm)
    if not problems.is_problem(arguments.input):
        raise InputError(f"{arguments.input}: assemble needs a problem, file.py:name or package.module:name")
    with assembled(arguments, comm) as hessian:
        export.write_matrix(arguments.out, hessian.mat)
        facts = {
            "schema": SCHEMA,
            "task": "assemble",
            "n": hessian.pattern.n,
            "nnz": hessian.pattern.nnz,
            **derivative_facts(hessian),
            "error": hessian.error,
            "repaired": hessian.repaired,
            "timings": {**hessian.timings, "total": time.perf_counter() - began},
        }
        with agreement(comm):
            if comm.rank == 0:
                if _prints(arguments):
                    print(hessian_lines(hessian, facts))
                    print(f"written      {arguments.out}")
                _write_json(arguments, facts)
        hessian.pattern.free()
    return errors.DONE


def run_color(arguments, options, comm) -> int:
    """A colouring of a pattern, verified."""
    _no_solver(options)
    export.check_writable(arguments.out, export.RESULTS, comm)
    export.check_writable(arguments.plot, (), comm)
    pattern = matrices.read_pattern(arguments.input, comm, block=arguments.blocks, diagonal=arguments.diagonal)
    coloring = asked_coloring(arguments, pattern)
    broken = verify(pattern, coloring)
    facts = {
        "schema": SCHEMA,
        "task": "color",
        "n": pattern.n,
        "nnz": pattern.nnz,
        **coloring_facts(coloring, valid=broken is None),
        "seconds": coloring.seconds,
        "amplification": plan(pattern, coloring).amplification if broken is None else None,
        "attempts": [dataclasses.asdict(attempt) for attempt in coloring.attempts],
        "traffic": dataclasses.asdict(coloring.traffic),
        "memory": comm.allreduce(runtime.peak_memory()),
        "mpi": {"size": comm.size, "threads": runtime.threads()},
    }
    if arguments.out is not None:
        save(arguments.out, pattern, coloring, facts)
    picture = report.colored_picture(pattern, coloring) if arguments.plot is not None else None
    with agreement(comm):
        if comm.rank == 0:
            if arguments.plot is not None:
                report.plot_coloring(arguments.plot, picture, pattern.n, coloring, arguments.input)
            if _prints(arguments):
                print(color_lines(facts, broken, arguments.verbose))
            _write_json(arguments, facts)
    pattern.free()
    if broken is not None:
        raise CheckError(f"the colouring breaks its definition at entry {broken}")
    return errors.DONE


def run_info(arguments, options, comm) -> int:
    """The stack, and what is missing of it."""
    _no_solver(options)
    facts = stack_facts(comm)
    with agreement(comm):
        if comm.rank == 0:
            if _prints(arguments):
                print(stack_text(facts))
            _write_json(arguments, facts)
    return errors.DONE


COMMANDS = {
    "eigs": run_eigs,
    "inertia": run_inertia,
    "check": run_check,
    "assemble": run_assemble,
    "color": run_color,
    "info": run_info,
}


def _no_solver(options: dict) -> None:
    if options:
        raise InputError(f"-{next(iter(options))}: this command solves no eigenproblem")


def _prints(arguments) -> bool:
    return not arguments.quiet and arguments.json != "-"


def _write_json(arguments, facts: dict) -> None:
    if arguments.json is not None:
        export.write_json(arguments.json, facts)
