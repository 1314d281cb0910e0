"""Tests run on the numbers of ranks of their mark `parallel`, without one on one rank alone.

A failure on one rank is a failure on all. With SPARSEHESS_CI=1 nothing may be skipped: what is missing fails.
SPARSEHESS_PASSED is a file of numbers of ranks and tests: those have passed on so many and do not run on as many
again. What passes is added.
"""

import contextlib
import gc
import operator
import os
import sys
from pathlib import Path

import pytest

# The compiler of dolfinx 0.5 mixes numpy.distutils with the distutils that newer setuptools puts in the place of
# the standard library's, and that lacks modules.
if sys.version_info < (3, 12):
    os.environ["SETUPTOOLS_USE_DISTUTILS"] = "stdlib"
    with contextlib.suppress(ImportError):
        import _distutils_hack

        _distutils_hack.remove_shim()

# Before dolfinx, whose libraries bring the distribution's HDF5: after it h5py's own does not work.
with contextlib.suppress(ImportError):
    import h5py  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "drivers"))


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return  # runs no tests; MPI would leave its marks in the environment of the processes that do
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank > 0:
        config.pluginmanager.unregister(name="terminalreporter")


def pytest_collection_modifyitems(config, items):
    """Leave out tests for other numbers of ranks, and slow ones unless `-m` or a function's name asks for them."""
    from mpi4py import MPI

    asked = "slow" in config.option.markexpr or any("::" in word for word in config.args)
    before = _passed_before(MPI.COMM_WORLD.size)
    out = [
        item
        for item in items
        if MPI.COMM_WORLD.size not in _ranks(item)
        or (item.get_closest_marker("slow") and not asked)
        or item.nodeid in before
    ]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in set(out)]


def _ranks(item):
    """Return the numbers of ranks on which a test runs: the innermost mark says it."""
    for node in reversed(item.listchain()):
        marks = [mark for mark in node.own_markers if mark.name == "parallel"]
        if marks:  # of a function those of its parameters come last
            try:
                (ranks,) = marks[-1].args
                return frozenset(map(operator.index, ranks))
            except (TypeError, ValueError):
                raise pytest.UsageError(
                    f"{item.nodeid}: the mark is parallel([1, 2, ...]), the numbers of ranks"
                ) from None
    return frozenset({1})


def _passed_before(ranks):
    """Return the names of the tests that need not run again on so many ranks."""
    path = os.environ.get("SPARSEHESS_PASSED")
    lines = Path(path).read_text().splitlines() if path and Path(path).exists() else []
    return frozenset(name for number, name in (line.split(" ", 1) for line in lines) if number == str(ranks))


def pytest_terminal_summary(terminalreporter, config):
    """Add the tests that have passed; where others run them, the one who tells of them does."""
    path, ranks = os.environ.get("SPARSEHESS_PASSED"), os.environ.get("OMPI_COMM_WORLD_SIZE", "1")
    if path:
        names = {report.nodeid for report in terminalreporter.stats.get("passed", ())} - _passed_before(ranks)
        with Path(path).open("a") as file:
            file.writelines(f"{ranks} {name}\n" for name in sorted(names))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _not_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _not_skipped((yield))


def _not_skipped(report):
    """Return the report, as a failure where it is a skip and nothing may be missing."""
    if report.skipped and os.environ.get("SPARSEHESS_CI") == "1":
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"{reason}; with SPARSEHESS_CI=1 nothing may be skipped"
    return report


def pytest_collection_finish(session):
    """Leave what the hosts have imported out of the collections after each test: 300,000 objects that stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def comm():
    from mpi4py import MPI

    return MPI.COMM_WORLD


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    from mpi4py import MPI

    world, error, result = MPI.COMM_WORLD, None, None
    try:
        result = yield
    except BaseException as caught:  # skips are outcomes too, and the same on all ranks
        error = caught
    gc.collect()  # a stray collective destructor shows in its own test
    failed = isinstance(error, Exception)
    where = world.allgather(failed)
    if error is not None:
        raise error
    if any(where):
        pytest.fail(f"failed on rank {where.index(True)}")
    return result


@pytest.fixture
def folder(tmp_path_factory, comm):
    """A folder that all ranks see."""
    path = tmp_path_factory.mktemp("shared") if comm.rank == 0 else None
    return comm.bcast(path)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    os.environ.setdefault("OMP_NUM_THREADS", "1")
