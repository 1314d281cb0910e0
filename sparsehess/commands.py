"""The commands behind the command line, one function each: arguments in, exit status out.

All are collective and return the same status on every rank.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import time

import numpy as np

from sparsehess import errors, export, matrices, problems, report, runtime
from sparsehess.assembly import Hessian, assemble
from sparsehess.coloring import color, load, save, verify
from sparsehess.detection import detect
from sparsehess.errors import CheckError, InputError
from sparsehess.recovery import plan
from sparsehess.runtime import agreement
from sparsehess.signs import Signs, count_signs
from sparsehess.solvers import EigenProblem, SolveSpec, Spectrum
from sparsehess.solvers.eigs import shortfall, solve

SCHEMA = 1


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
    )
    matrix, mass, hessian, stored, pattern, timings = _operands(arguments, comm)
    null = None if arguments.nullspace is None else matrices.read_vectors(arguments.nullspace, pattern.n, comm)
    progress = report.Progress("eigenpairs converged", comm, arguments.quiet)
    relative = stored.asymmetry if stored is not None else 0.0
    with EigenProblem.of(matrix, mass=mass, nullspace=null, relative_error=relative) as problem:
        spectrum = solve(problem, spec, progress)
        zero, units, deflated = problem.zero, problem.units, len(problem.null)
        nnz = pattern.nnz
    progress.finish()
    timings.update(spectrum.timings)
    timings["total"] = time.perf_counter() - began
    facts = _eigs_facts(arguments, spec, spectrum, hessian, pattern.n, nnz, timings, comm)
    facts["deflated"] = deflated
    facts["frequencies"] = (
        {"unit": units.frequency, "values": units.of_eigenvalues(spectrum.eigenvalues).tolist()} if units else None
    )
    if arguments.out is not None:
        arrays = {"eigenvalues": spectrum.eigenvalues, "residuals": spectrum.residuals}
        export.write_results(arguments.out, facts, arrays, spectrum.vectors, comm)
    picture = report.pattern_picture(pattern) if arguments.plot is not None else None
    with agreement(comm):
        if comm.rank == 0:
            if arguments.plot is not None:
                title = hessian.objective.name if hessian is not None else arguments.input
                report.plot(arguments.plot, spectrum, units, picture, pattern.n, title)
            _print_eigs(arguments, facts, spectrum, units, zero, hessian)
            _write_json(arguments, facts)
    error = shortfall(spectrum)
    spectrum.close()
    _release(matrix, mass, hessian, pattern)
    comm.Barrier()
    if error is not None:
        raise error
    return errors.DONE


def run_inertia(arguments, options, comm) -> int:
    """How many eigenvalues are negative, zero, positive."""
    began = time.perf_counter()
    matrix, mass, hessian, stored, pattern, timings = _operands(arguments, comm)
    relative = stored.asymmetry if stored is not None else 0.0
    with EigenProblem.of(matrix, mass=mass, nullspace=[], relative_error=relative) as problem:
        signs = count_signs(problem, arguments.zero, options)
    timings["total"] = time.perf_counter() - began
    facts = {
        "schema": SCHEMA,
        "task": "inertia",
        "n": pattern.n,
        "nnz": pattern.nnz,
        **dataclasses.asdict(signs),
        "definite": signs.definite,
        **({} if hessian is None else _derivative_facts(hessian)),
        "timings": timings,
        "memory": comm.allreduce(runtime.peak_memory()),
        "mpi": {"size": comm.size, "threads": runtime.threads()},
        "versions": runtime.versions(),
    }
    with agreement(comm):
        if comm.rank == 0:
            if _prints(arguments):
                if hessian is not None:
                    print(_hessian_lines(hessian, facts))
                print(_inertia_lines(signs))
            _write_json(arguments, facts)
    _release(matrix, mass, hessian, pattern)
    comm.Barrier()
    if not signs.certified:
        raise CheckError(
            f"the counts are not certain: {signs.doubt}; eigenvalues lie near ±{signs.threshold:.1e}, "
            "give another --zero"
        )
    return errors.DONE


def run_assemble(arguments, options, comm) -> int:
    """The Hessian of a problem, to a file."""
    began = time.perf_counter()
    _no_solver(options)
    export.check_writable(arguments.out, export.MATRICES, comm)
    if not problems.is_problem(arguments.input):
        raise InputError(f"{arguments.input}: assemble needs a problem, file.py:name or package.module:name")
    with _assemble(arguments, comm) as hessian:
        export.write_matrix(arguments.out, hessian.mat)
        facts = {
            "schema": SCHEMA,
            "task": "assemble",
            "n": hessian.pattern.n,
            "nnz": hessian.pattern.nnz,
            "coloring": _hessian_coloring(hessian),
            "evaluations": hessian.evaluations,
            "verification": _verification_facts(hessian),
            "error": hessian.error,
            "repaired": hessian.repaired,
            "timings": {**hessian.timings, "total": time.perf_counter() - began},
        }
        with agreement(comm):
            if comm.rank == 0:
                if _prints(arguments):
                    print(_hessian_lines(hessian, facts))
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
    coloring = _coloring(arguments, pattern)
    broken = verify(pattern, coloring)
    facts = {
        "schema": SCHEMA,
        "task": "color",
        "n": pattern.n,
        "nnz": pattern.nnz,
        **_coloring_facts(coloring, valid=broken is None),
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
                print(_color_lines(facts, broken, arguments.verbose))
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
                print(_info_text(facts))
            _write_json(arguments, facts)
    return errors.DONE


COMMANDS = {
    "eigs": run_eigs,
    "inertia": run_inertia,
    "assemble": run_assemble,
    "color": run_color,
    "info": run_info,
}


# --- shared parts ----------------------------------------------------------------------


def _operands(arguments, comm):
    """Return (matrix or Hessian, mass, Hessian, stored matrix, pattern, timings) of INPUT and --mass."""
    began = time.perf_counter()
    timings = dict.fromkeys(("pattern", "coloring", "derivatives", "assembly"), 0.0)
    hessian, stored, mass = None, None, None
    if problems.is_problem(arguments.input):
        hessian = _assemble(arguments, comm)
        timings.update(hessian.timings)
        matrix, pattern = hessian, hessian.pattern
    else:
        _no_derivatives(arguments)
        stored = matrices.read_matrix(arguments.input, comm)
        matrix, pattern = stored.to_mat(), stored.pattern
        timings["assembly"] = time.perf_counter() - began
    if arguments.mass is not None:
        mass = matrices.read_matrix(arguments.mass, comm).to_mat()
    return matrix, mass, hessian, stored, pattern, timings


def _release(matrix, mass, hessian, pattern) -> None:
    if hessian is not None:
        hessian.close()
    else:
        matrix.destroy()
    runtime.destroy(mass)
    pattern.free()


def _assemble(arguments, comm) -> Hessian:
    began = time.perf_counter()
    objective = problems.load(arguments.input, problems.settings(arguments.settings), comm)
    pattern, calls = objective.pattern, {}
    if arguments.points != 1 and arguments.pattern != "detect":
        raise InputError(f"--points {arguments.points}: only --pattern detect probes points")
    if arguments.pattern == "detect":
        pattern = detect(objective, seed=arguments.seed, points=arguments.points, counts=calls)
    elif arguments.pattern != "given":
        pattern = matrices.read_pattern(arguments.pattern, comm, block=arguments.blocks)
    elif pattern is not None:
        pattern = pattern.in_blocks(arguments.blocks)
    given = time.perf_counter() - began
    by_element = objective.elements is not None and arguments.coloring is None
    progress = report.Progress("colours evaluated", comm, arguments.quiet)
    hessian = assemble(
        objective,
        pattern=pattern,
        derivative=arguments.derivative,
        coloring=None if by_element or pattern is None else _coloring(arguments, pattern),
        verify=not arguments.no_verify,
        repair=not arguments.no_repair,
        budget=arguments.budget,
        seed=arguments.seed,
        progress=progress,
    )
    progress.finish()
    hessian.timings["pattern"] += given
    hessian.evaluations["pattern"] += sum(calls.values())
    return hessian


def _no_derivatives(arguments) -> None:
    if arguments.settings:
        raise InputError(
            f"--set {arguments.settings[0]}: {arguments.input} is a matrix file and takes no settings"
        )
    asked = arguments.pattern != "given" or arguments.derivative != "auto"
    if asked or arguments.no_verify or arguments.no_repair or arguments.points != 1:
        raise InputError(
            f"{arguments.input} is a matrix file: --derivative, --pattern, --points, --no-verify and "
            "--no-repair are for problems"
        )


def _no_solver(options: dict) -> None:
    if options:
        raise InputError(f"-{next(iter(options))}: this command solves no eigenproblem")


def _prints(arguments) -> bool:
    return not arguments.quiet and arguments.json != "-"


def _write_json(arguments, facts: dict) -> None:
    if arguments.json is not None:
        export.write_json(arguments.json, facts)


def _coloring(arguments, pattern):
    """Return the colouring that is asked for, or the stored one."""
    if (arguments.coloring or "").endswith((".npz", ".h5")):
        return load(arguments.coloring, pattern)
    lattice = getattr(arguments, "lattice", None)
    if lattice is not None:
        groups = pattern if pattern.quotient is None else pattern.quotient
        lattice = matrices.read_coordinates(lattice, groups.layout)
    return color(
        pattern,
        kind=arguments.coloring or "star",
        order=arguments.order,
        rule=arguments.rule,
        seed=arguments.seed,
        budget=arguments.budget,
        lattice=lattice,
    )


def _coloring_facts(coloring, valid: bool) -> dict:
    return {
        "kind": coloring.kind,
        "order": coloring.order,
        "rule": coloring.rule,
        "colors": coloring.count,
        "lower_bound": coloring.lower_bound,
        "optimal": coloring.optimal,
        "valid": valid,
    }


def _gap(facts: dict) -> str:
    return "proven least" if facts["optimal"] else f"no fewer than {facts['lower_bound']}"


def _color_lines(facts: dict, broken, verbose: bool) -> str:
    lines = [
        f"pattern      {facts['n']} variables, {facts['nnz']} entries",
        f"coloring     {facts['colors']} colors ({facts['kind']}, {facts['order']}; {_gap(facts)}), "
        f"{facts['seconds']:.3f} s",
        f"made by      {facts['rule']}",
        f"definition   {'holds' if broken is None else f'broken at entry {broken}'}",
    ]
    if (facts["amplification"] or 1) > 1:
        lines.append(
            f"recovery     by substitution, errors up to {facts['amplification']:.0f} times those of differences"
        )
    attempts = facts["attempts"]
    if len(attempts) > 1:
        lines.append(f"attempts     {len(attempts)}")
        best = min(attempt["count"] for attempt in attempts)
        shown = attempts if verbose else [one for one in attempts if "restart" not in one["name"]][:12]
        lines += [
            f"  {one['count']:6d}  {one['name']}, {one['seconds']:.3f} s{'  *' if one['count'] == best else ''}"
            for one in shown
        ]
        if len(shown) < len(attempts):
            lines.append(f"          {len(attempts) - len(shown)} more, shown with -v")
    traffic = facts["traffic"]
    if traffic["rounds"]:
        lines.append(
            f"ranks        agreed in {traffic['rounds']} rounds, {traffic['messages']} messages, "
            f"{traffic['bytes']} bytes"
        )
    if facts["colors"] == facts["n"] > 1:
        lines.append("note         as many colors as variables: no gain over one step per variable")
    return "\n".join(lines)


def _hessian_coloring(hessian: Hessian) -> dict | None:
    if hessian.coloring is None:
        return None
    valid = verify(hessian.pattern, hessian.coloring) is None
    return {**_coloring_facts(hessian.coloring, valid), "amplification": hessian.amplification}


def _coloring_told(facts: dict | None) -> str:
    if facts is None:
        return "none: the Hessians of the elements are summed"
    return f"{facts['colors']} colors ({facts['kind']}, {facts['order']}; {_gap(facts)})"


def _derivative_facts(hessian: Hessian) -> dict:
    """Return what is told of derivatives. Collective."""
    return {
        "coloring": _hessian_coloring(hessian),
        "evaluations": hessian.evaluations,
        "verification": _verification_facts(hessian),
    }


def _inertia_lines(signs: Signs) -> str:
    lines = [
        f"inertia      {signs.negative} negative, {signs.zero} zero, {signs.positive} positive"
        + (f", {signs.infinite} infinite" if signs.infinite else ""),
        f"verdict      {signs.definite}",
        f"zero         |λ| <= {signs.threshold:.1e}",
        f"certified    {'two factorizations agree at either side' if signs.certified else 'no: ' + signs.doubt}",
    ]
    return "\n".join(lines)


def _verification_facts(hessian: Hessian) -> dict | None:
    return None if hessian.verification is None else dataclasses.asdict(hessian.verification)


def _end(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _which(spec: SolveSpec) -> str:
    if spec.interval is not None:
        return "interval"
    return spec.which if spec.target is None else "target"


def _eigs_facts(arguments, spec: SolveSpec, spectrum: Spectrum, hessian, n, nnz, timings, comm) -> dict:
    count = spectrum.count
    return {
        "schema": SCHEMA,
        "task": "eigs",
        "n": n,
        "nnz": nnz,
        "k": spectrum.asked if spec.k is None else spec.k,
        "which": _which(spec),
        "interval": None if spec.interval is None else [_end(end) for end in spec.interval],
        "target": spec.target,
        "method": spectrum.method,
        "converged": spectrum.converged,
        "eigenvalues": spectrum.eigenvalues.tolist(),
        "residuals": spectrum.residuals.tolist(),
        "orthogonality": spectrum.orthogonality,
        "count": None
        if count is None
        else {
            "interval": [_end(end) for end in count.interval],
            "inertia": count.inertia,
            "found": count.found,
            "certified": count.certified,
            "repairs": count.repairs,
            "unresolved": [list(piece) for piece in count.unresolved],
        },
        "zeros": spectrum.zeros,
        "iterations": spectrum.iterations,
        "coloring": None if hessian is None else _hessian_coloring(hessian),
        "evaluations": hessian.evaluations if hessian is not None else {"gradient": 0, "hvp": 0, "energy": 0},
        "verification": None if hessian is None else _verification_facts(hessian),
        "timings": timings,
        "memory": comm.allreduce(runtime.peak_memory()),
        "mpi": {"size": comm.size, "threads": runtime.threads()},
        "backend": "cpu",
        "versions": runtime.versions(),
        "options": {key: value for key, value in spectrum.options.items()},
    }


def _hessian_lines(hessian: Hessian, facts: dict) -> str:
    coloring, calls = hessian.coloring, facts["evaluations"]
    lines = [
        f"problem      {hessian.objective.name}",
        f"pattern      {facts['n']} variables, {facts['nnz']} entries ({hessian.pattern.source})",
        f"coloring     {_coloring_told(facts['coloring'])}",
        f"derivatives  {hessian.scheme}: {calls['gradient']} gradients, {calls['hvp']} products, "
        f"{calls['noise']} for their noise, {calls['verification']} to verify",
    ]
    if calls["pattern"]:
        lines[-1] += f", {calls['pattern']} to find the pattern"
    if hessian.repaired:
        lines.append(f"repaired     the pattern missed {hessian.repaired} entries: they were found and added")
    if coloring is not None and coloring.count == facts["n"] > 1:
        lines.append("note         as many colors as variables: no gain over one step per variable")
    if hessian.verification is not None:
        found = hessian.verification
        lines.append(f"verified     random product to {found.hvp_error:.1e}, symmetric to {found.asymmetry:.1e}")
    else:
        lines.append("verified     no: --no-verify")
    lines.append(f"error        about {hessian.error:.1e} of the matrix")
    return "\n".join(lines)


def _print_eigs(arguments, facts: dict, spectrum: Spectrum, units, zero: float, hessian) -> None:
    if not _prints(arguments):
        return
    if hessian is not None:
        print(_hessian_lines(hessian, facts))
    else:
        print(f"matrix       {arguments.input}: {facts['n']} rows, {facts['nnz']} entries")
    print(f"solver       {spectrum.method} ({spectrum.reason})")
    if facts["deflated"]:
        names = hessian.objective.null_names if hessian is not None and arguments.nullspace is None else ()
        print(f"deflated     {facts['deflated']} null vectors" + (f": {', '.join(names)}" if names else ""))
    print()
    print(report.spectrum_table(spectrum, units, zero))
    print()
    if spectrum.zeros:
        print(f"zero modes   {spectrum.zeros} (|λ| <= {zero:.1e}, the accuracy of the matrix)")
    print(f"count        {report.count_line(spectrum)}")
    print(f"orthogonal   to {spectrum.orthogonality:.1e}")
    spent = ", ".join(f"{name} {seconds:.2f}" for name, seconds in facts["timings"].items() if seconds >= 0.005)
    print(f"seconds      {spent}")
    print(f"ranks        {facts['mpi']['size']}, {facts['memory'] / 2**20:.0f} MiB in all")


# --- info ------------------------------------------------------------------------------

_PACKAGES = {
    "mumps": "no shift-and-invert and no inertia counts: smallest, target and certificates need it",
    "superlu_dist": "no second parallel direct solver",
    "hypre": "no BoomerAMG preconditioner",
    "ml": "no ML preconditioner",
    "suitesparse": "no CHOLMOD or UMFPACK on one rank",
    "scalapack": "no parallel dense solver",
    "ptscotch": "no parallel ordering for MUMPS",
    "hdf5": "no parallel HDF5 files from PETSc",
    "cuda": "no NVIDIA GPU",
    "hip": "no AMD GPU",
    "kokkos": "no portable GPU back end",
}
_EXTRAS = {
    "h5py": "no .h5 files (pip install sparsehess[hdf5])",
    "matplotlib": "no --plot (pip install sparsehess[plot])",
    "skfem": "the cantilever driver does not run (pip install sparsehess[fem])",
    "networkx": "no patterns from graphs (pip install networkx)",
}


def stack_facts(comm) -> dict:
    """Return what the stack is made of. Collective."""
    from mpi4py import MPI

    petsc = runtime.PETSc
    return {
        "schema": SCHEMA,
        "task": "info",
        "versions": runtime.versions(),
        "scalar": str(np.dtype(petsc.ScalarType)),
        "index_bits": 8 * np.dtype(petsc.IntType).itemsize,
        "packages": {name: runtime.has_package(name) for name in _PACKAGES},
        "extras": {name: importlib.util.find_spec(name) is not None for name in _EXTRAS},
        "coo_assembly": hasattr(petsc.Mat, "setPreallocationCOO"),
        "mpi": {
            "size": comm.size,
            "threads": runtime.threads(),
            "library": MPI.Get_library_version().splitlines()[0].split(",")[0].strip("\x00"),
        },
        "missing": [
            {"name": name, "costs": cost}
            for name, cost in {**_PACKAGES, **_EXTRAS}.items()
            if not (runtime.has_package(name) if name in _PACKAGES else importlib.util.find_spec(name))
        ],
    }


def _info_text(facts: dict) -> str:
    versions = facts["versions"]
    lines = [f"{name:12s} {version}" for name, version in versions.items()]
    numpy_major, petsc4py = int(versions["numpy"].split(".")[0]), versions["petsc4py"]
    if versions["petsc"].rsplit(".", 1)[0] != petsc4py.rsplit(".", 1)[0]:
        lines.append(f"note         petsc4py {petsc4py} over PETSc {versions['petsc']}: not made for each other")
    lines += [
        f"numbers      {facts['scalar']}, {facts['index_bits']}-bit indices, numpy {numpy_major} ABI",
        f"MPI          {facts['mpi']['library']}, {facts['mpi']['size']} rank(s), "
        f"{facts['mpi']['threads']} thread(s) each",
        f"packages     {', '.join(name for name, there in facts['packages'].items() if there)}",
        f"extras       {', '.join(name for name, there in facts['extras'].items() if there)}",
        "missing, and what that costs",
    ]
    lines += [f"  {item['name']:12s} {item['costs']}" for item in facts["missing"]]
    return "\n".join(lines)
