"""Several users on one machine: what a function does in the name of another, and folders that others can reach.

Only root can be others. Each function runs in a process of its own, which gives up all rights first.
"""

import os
import pickle
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest

# The service's user, two who submit, and one who may not where a group is let in; the group.
SERVICE, ANNE, BERT, DORA = 12341, 12342, 12343, 12344
GROUP = 12399

# Hosts that tests before have imported may have threads: what a child does here takes none of their locks.
forks = pytest.mark.filterwarnings("ignore:os.fork")
only_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="other users: for root, with setpriv"
)


class Denied(Exception):
    """The other user could not do it."""


def as_user(user, function, *arguments, groups=(), seconds=30, home=None):
    """Return what a function returns in a process of another user; raise what it raises as text.

    An OSError is raised as `Denied`. A process that takes longer than some seconds is killed.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of MPI; this child starts none
        child = os.fork()
    if not child:
        os.close(reader)
        answer = _answered(user, function, arguments, groups, seconds, home)
        with os.fdopen(writer, "wb") as stream:
            pickle.dump(answer, stream)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    if not said:
        raise AssertionError(f"the process of user {user} has ended with {status}: it has hung, or was killed")
    kind, value = pickle.loads(said)
    if kind == "denied":
        raise Denied(value)
    if kind == "failed":
        raise AssertionError(value)
    return value


def _answered(user, function, arguments, groups, seconds, home):
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        os.setgroups(groups)
        os.setgid(user)
        os.setuid(user)
        os.umask(0o077)  # nothing may depend on it
        if home is not None:
            os.environ["SPARSEHESS_JOBS"] = str(home)
        return "done", function(*arguments)
    except OSError as error:
        return "denied", str(error)
    except BaseException:
        return "failed", traceback.format_exc()


def can(user, function, *arguments, **more):
    """Return whether a user can do something: a function that raises an OSError where he cannot."""
    try:
        as_user(user, function, *arguments, **more)
    except Denied:
        return False
    return True


def as_words(user, words, groups=()):
    """Return a command line that runs as another user."""
    more = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return ["setpriv", f"--reuid={user}", f"--regid={user}", more, "--", *map(str, words)]


def can_run_here(user):
    """Return whether another user can start the project: its folder may be root's alone."""
    test = os.spawnvp(os.P_WAIT, "setpriv", as_words(user, [sys.executable, "-c", "import sparsehess, mpi4py"]))
    return test == 0


@contextmanager
def open_place(kind="disk"):
    """Yield a new folder that all users can reach, on a disk or in memory."""
    above = {"disk": "/tmp", "memory": "/dev/shm"}[kind]
    place = Path(tempfile.mkdtemp(prefix="sparsehess-", dir=above))
    try:
        place.chmod(0o755)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def own_folder(place, name, user, mode=0o700):
    """Return a new folder of a user."""
    folder = place / name
    folder.mkdir()
    folder.chmod(mode)
    os.chown(folder, user, user)
    return folder
