"""Rooms too small for a file of their own: steps, random vectors, units, options, problems."""

import io
import subprocess
import sys
from types import SimpleNamespace

from mpi4py import MPI

import numpy as np
import pytest

import sparsehess as sh
from sparsehess import errors
from sparsehess.commands import problem_files
from sparsehess.commands.petsc_words import split_petsc
from sparsehess.derivatives.finite_differences import lengths, scheme_of, steps
from sparsehess.derivatives.gradient_noise import Noise
from sparsehess.derivatives.units import Units
from sparsehess.errors import InputError, StackError
from sparsehess.runtime import (
    PETSc,
    aij,
    child,
    communicator,
    has_package,
    inserted_options,
    option_was_used,
    random_numbers,
)
from sparsehess.runtime import progress as report

EXACT = Noise(np.zeros(3), np.full(3, np.finfo(float).eps), 1.0, True)
FREE = np.full(3, -np.inf), np.full(3, np.inf)


def taken(x, length, noise, scheme, limits=FREE, given=False):
    return steps(np.asarray(x, float), np.asarray(length, float), noise, scheme, limits, given).taken


def test_steps_follow_the_scale():
    layout = sh.Layout.from_size(3, None)
    assert np.array_equal(lengths(np.zeros(3), None, layout), np.ones(3))
    assert lengths(np.full(3, 1e-9), None, layout) == pytest.approx(np.full(3, 1e-9))
    assert np.array_equal(lengths(np.full(3, 50.0), None, layout), np.ones(3))
    lengths_ = [1.0, 1e3, 1e-3]
    assert taken(np.zeros(3), lengths_, EXACT, "central") == pytest.approx(1.75e-5 * np.array(lengths_), rel=1e-2)
    assert taken(np.zeros(3), lengths_, EXACT, "forward") == pytest.approx(2.98e-8 * np.array(lengths_), rel=1e-2)


def test_steps_follow_the_noise_and_the_bend():
    noisy, bent = (Noise(np.zeros(3), np.full(3, e), b, True) for e, b in ((1e-8, 1.0), (1e-8, 0.1)))
    assert taken(np.zeros(3), np.ones(3), noisy, "central") == pytest.approx(np.full(3, 6.2e-3), rel=1e-2)
    assert taken(np.zeros(3), np.ones(3), bent, "central") == pytest.approx(np.full(3, 1.34e-3), rel=1e-2)
    far = Noise(np.zeros(3), np.full(3, 1e-8), 8.0, True)
    told = taken(np.zeros(3), np.ones(3), far, "central", given=True)
    assert told == pytest.approx(taken(np.zeros(3), np.ones(3), noisy, "central"))


@pytest.mark.parametrize("scheme", ["forward", "central", "extrapolated"])
def test_steps_do_not_cross_bounds_and_differentiate_polynomials(scheme):
    """At, near and away from a bound; exact to the order of the scheme, one-sided as well."""
    noise = Noise(np.zeros(3), np.full(3, 1e-6), 1.0, True)
    x, lower, upper = np.array([0.0, 1e-4, 0.5]), np.zeros(3), np.array([1.0, 1.0, 0.5 + 1e-5])
    made = steps(x, np.ones(3), noise, scheme, (lower, upper), False)
    points = [x if values is None else values for values, _ in made.nodes]
    weights = [weight for _, weight in made.nodes]
    for point in points:
        assert ((lower <= point) & (point <= upper)).all()
    for order, exact in ((1, np.ones(3)), (2, 2 * x)):
        slope = sum(w * p**order for w, p in zip(weights, points, strict=True)) / made.taken
        tolerance = 1e-9 if order == 1 or scheme == "extrapolated" else 1e-2
        assert slope == pytest.approx(exact, abs=tolerance)


def test_schemes():
    problem = SimpleNamespace(gradient=abs, hvp=None, hvps=None, energy=None, name="p")
    assert scheme_of("auto", problem) == "central"
    assert scheme_of("auto", SimpleNamespace(**{**vars(problem), "hvps": abs})) == "product"
    with pytest.raises(InputError, match="needs a Hessian-vector product"):
        scheme_of("ad", problem)
    with pytest.raises(InputError, match="none of"):
        scheme_of("exact", problem)


def test_random_vectors_are_of_their_row_alone():
    def layout(rank, starts):
        return sh.Layout(SimpleNamespace(rank=rank, size=len(starts) - 1), np.array(starts))

    one, two = layout(0, [0, 300, 1000]), layout(1, [0, 300, 1000])
    whole = layout(0, [0, 1000])
    joined = np.concatenate([random_numbers.uniform(one, 5), random_numbers.uniform(two, 5)])
    values = random_numbers.uniform(whole, 5)
    assert np.array_equal(joined, values)
    assert -1 < values.min() < -0.98 and 0.98 < values.max() < 1
    assert abs(values.mean()) < 0.05 and np.var(values) == pytest.approx(1 / 3, rel=0.1)
    assert abs(np.corrcoef(values, random_numbers.uniform(whole, 6))[0, 1]) < 0.1
    assert np.abs(random_numbers.signed(whole, 1)).min() >= 0.5


def test_units_give_textbook_frequencies():
    # H35Cl: force constant 516 N/m, reduced mass 0.9797 amu: 2990 cm^-1
    units = Units.of("J", "m", "amu", "cm^-1")
    assert units.of_eigenvalues(np.array([516 / 0.9797]))[0] == pytest.approx(2990, rel=2e-3)
    assert units.of_eigenvalues(np.array([-1.0]))[0] < 0
    hertz = Units.of("J", "m", "kg", "Hz")
    assert hertz.of_eigenvalues(np.array([(2 * np.pi * 50) ** 2]))[0] == pytest.approx(50)
    with pytest.raises(InputError, match="furlong"):
        Units.of("J", "furlong", "kg")


def test_options_are_there_for_the_block_only():
    ends = np.array([-1e-3, 1 / 3])
    with inserted_options("t_", {"alpha": 3, "beta": 0.25, "flag": None, "end": ends[1], "ends": tuple(ends)}):
        assert PETSc.Options().getInt("t_alpha") == 3
        assert PETSc.Options().getReal("t_beta") == 0.25
        assert PETSc.Options().getReal("t_end") == ends[1]
        assert np.array_equal(np.fromstring(PETSc.Options().getString("t_ends"), sep=","), ends)
        assert option_was_used("t_alpha") and not option_was_used("t_flag")
    assert not PETSc.Options().hasName("t_alpha")


@pytest.mark.parametrize(
    ("package", "solver"), [("mumps", "mumps"), ("suitesparse", "cholmod"), ("superlu_dist", "superlu_dist")]
)
def test_a_package_is_there_where_it_factorizes(package, solver):
    matrix = aij(sh.Layout.from_size(3, MPI.COMM_SELF), np.arange(4), np.arange(3), np.full(3, 2.0))
    there = True
    pc = PETSc.PC().create(MPI.COMM_SELF)
    pc.setType("lu" if solver == "superlu_dist" else "cholesky")
    pc.setOperators(matrix)
    pc.setFactorSolverType(solver)
    try:
        pc.setUp()
    except PETSc.Error as error:
        assert error.ierr == 92  # no such factorization
        there = False
    assert has_package(package) == there
    pc.destroy()
    matrix.destroy()


def test_what_is_derived_from_a_communicator_is_freed_with_it(comm):
    theirs = comm.Dup()
    ours = communicator(theirs)
    inner = child(ours, "half", lambda: ours.Split(0, ours.rank))
    assert child(ours, "half", lambda: pytest.fail("it is there")) is inner and communicator(inner) != inner
    theirs.Free()
    assert inner == MPI.COMM_NULL


@pytest.mark.parametrize("error, kind", [(OSError(28, "No space left"), InputError), (MemoryError(), StackError)])
def test_a_full_disk_or_memory_is_no_bug(error, kind):
    told = errors.rebuild(*errors.describe(error, 3))
    assert isinstance(told, kind) and told.status == 2 and str(told).startswith(f"rank 3: {type(error).__name__}")


def test_petsc_arguments_are_told_apart():
    solver, rest, names = split_petsc(["-eps_ncv", "40", "-log_view", "-mat_mumps_icntl_14", "-5", "-eps_monitor"])
    assert solver == {"eps_ncv": "40", "st_mat_mumps_icntl_14": "-5", "eps_monitor": None}
    assert rest == ["-log_view"] and names == ["log_view"]
    with pytest.raises(InputError, match="expected a PETSc option"):
        split_petsc(["eps_ncv", "4"])


def test_settings_are_literals_or_text():
    assert problem_files.settings(["a=3", "b=[1, 2]", "c=file.pdb", "d="]) == {
        "a": 3,
        "b": [1, 2],
        "c": "file.pdb",
        "d": "",
    }
    with pytest.raises(InputError, match="key=value"):
        problem_files.settings(["nonsense"])
    assert problem_files.is_problem("a/b.py:f") and problem_files.is_problem("p.m:f")
    assert not problem_files.is_problem("m.npz") and not problem_files.is_problem("dir:with/colon.npz")


def test_progress_shows_on_a_terminal_after_two_seconds(monkeypatch, comm):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    clock = [0.0]
    monkeypatch.setattr("sparsehess.runtime.progress.time.monotonic", lambda: clock[0])
    for stream, quiet, shows in (
        (Terminal(), False, True),
        (Terminal(), True, False),
        (io.StringIO(), False, False),
    ):
        monkeypatch.setattr("sys.stderr", stream)
        clock[0] = 0.0
        progress = report.Progress("colours", comm, quiet)
        progress(1, 10)
        assert stream.getvalue() == ""  # too early
        clock[0] = 4.0
        progress(4, 10)
        progress.finish()
        assert ("colours: 4 of 10, 6 s left" in stream.getvalue()) == shows


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_starts_nothing():
    names = "('mpi4py', 'petsc4py', 'slepc4py', 'numpy')"
    code = f"import sys, sparsehess; print([m for m in sys.modules if m.split('.')[0] in {names}])"
    assert run(code).strip() == "[]"


def test_importing_what_a_solve_needs_loads_nothing_heavy():
    heavy = ["matplotlib", "h5py", "jax", "torch", "networkx", "skfem", "rich", "scipy.stats", "scipy.optimize"]
    code = (
        "import sys, sparsehess as sh;"
        "other = ('sparsehess.eigen.estimates', 'sparsehess.networks',"
        " 'sparsehess.eigen.certificates.sparsification');"
        "[getattr(sh, n) for n in sh.__all__ if sh._HOME.get(n) not in other];"
        "import sparsehess.commands.eigenpairs, sparsehess.commands.hessians;"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    assert run(code).strip() == "[]"
