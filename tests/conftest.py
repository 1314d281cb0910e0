"""Tests run as they are on any number of ranks: a failure on one rank is a failure on all."""

import contextlib
import gc
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
    """Leave out what is slow, unless `-m` speaks of it or the test is named with its function."""
    if "slow" in config.option.markexpr or any("::" in word for word in config.args):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


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
