"""A service of one user, and commands of two others: real processes, and what all others see of them."""

import contextlib
import grp
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import scipy.io as sio

from sparsehess.service.batch import local_scheduler
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.layout import hide_secrets
from support import ROOT, answers, users
from support.cases import laplacian, second_difference
from support.users import ANNE, BERT, SERVICE

pytestmark = [users.only_root, users.forks]

N = 40

SLOW = """
import time
import numpy as np
import sparsehess as sh

def chain(comm, n=30, wait=0.0):
    def gradient(x):
        time.sleep(wait)
        g = 2 * x
        g[1:] -= x[:-1]
        g[:-1] -= x[1:]
        return g
    known = sh.Pattern.from_edges([[i, i + 1] for i in range(n - 1)], n, comm=comm)
    return sh.Objective(x=np.ones(n), gradient=gradient, pattern=known, comm=comm)
"""


MATRIX = """
command = "eigs"
input = "matrix.mtx"
k = 3
out = "modes.npz"
[submit]
name = "mine"
ranks = 8
"""

CHAIN = """
command = "eigs"
input = "{}/code/problems.py:chain"
k = 2
set = {{ wait = {}, n = 60 }}
[submit]
name = "{}"
"""


class Machine:
    """A spool for everybody in a folder that all can reach, and homes of its users."""

    def __init__(self, place):
        self.place, self._service = place, None
        for name, user in (("service", SERVICE), ("anne", ANNE), ("bert", BERT)):
            users.own_folder(place, name, user, 0o755 if user == SERVICE else 0o700)
        self.homes = {SERVICE: place / "service", ANNE: place / "anne", BERT: place / "bert"}
        self.spool = place / "service" / "spool"
        (place / "code").mkdir()
        (place / "code" / "problems.py").write_text(SLOW)
        for user in (ANNE, BERT):
            folder = self.homes[user]
            sio.mmwrite(folder / "matrix.mtx", second_difference(N), symmetry="symmetric")
            (folder / "matrix.toml").write_text(MATRIX)
            (folder / "slow.toml").write_text(CHAIN.format(place, 0.2, "slow"))
            (folder / "long.toml").write_text(CHAIN.format(place, 3.0, "long"))
            for path in folder.iterdir():
                os.chown(path, user, user)

    def environment(self, user):
        return {
            **local_scheduler.job_environment(),
            "HOME": str(self.homes[user]),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "SPARSEHESS_JOBS": str(self.homes[user] / "jobs"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def serve(self, *flags, access=("--shared",), launch=("mpiexec", "-n", "1"), groups=()):
        words = [*launch, sys.executable, "-m", "sparsehess", "serve", self.spool, *access, *flags]
        with open(self.place / "service.log", "ab") as record:
            service = subprocess.Popen(
                users.as_words(SERVICE, words, groups),
                cwd=self.homes[SERVICE],
                env=self.environment(SERVICE),
                stdout=record,
                stderr=record,
                start_new_session=True,
            )
        self._service = service
        self.until(lambda: service.poll() is not None or "serving" in self.told)
        return service

    def close(self):
        """End the service, if it still serves."""
        if self._service is not None and self._service.poll() is None:
            (self.spool / "stop").touch()
            self._service.wait(60)

    @property
    def told(self):
        return (self.place / "service.log").read_text()

    def until(self, true, within=60):
        deadline = time.monotonic() + within
        while not (found := true()):
            assert time.monotonic() < deadline, self.told
            time.sleep(0.02)
        return found

    def run(self, user, command, groups=()):
        """Return (status, output, errors) of a command of a user, in his home."""
        words = [sys.executable, "-m", "sparsehess", *command.split(), "--spool", self.spool]
        done = subprocess.run(
            users.as_words(user, words, groups),
            cwd=self.homes[user],
            env=self.environment(user),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def facts(self, user, command, status=0):
        code, out, err = self.run(user, f"{command} --json -")
        assert code == status, err
        return answers.parse(out)


@pytest.fixture
def machine():
    if not users.can_run_here(SERVICE):
        pytest.skip("this copy of the project is root's alone")
    with users.open_place() as place, contextlib.closing(Machine(place)) as machine:
        yield machine


class Peeper(threading.Thread):
    """Reads the words of all processes, as every user can, and remembers those with a secret in them."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen, self.looks, self.ends = set(), 0, threading.Event()

    def run(self):
        while not self.ends.is_set():
            self.looks += 1
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if hide_secrets(words) != words:
                    self.seen.add(words)

    def close(self):
        self.ends.set()
        self.join()


def test_a_service_and_two_who_submit(machine):
    service = machine.serve("--allow-code", machine.place / "code", "--idle", "60")
    assert machine.told.count("serving") == 1
    assert f"serving {machine.spool}: 1 rank in 1 group; jobs of everybody on this machine" in machine.told
    process = job_outcomes.read_json(machine.spool / "service.json")["process"]
    assert re.search(r"^Max core file size +0 ", Path(f"/proc/{process}/limits").read_text(), re.MULTILINE)
    status, out, err = machine.run(ANNE, "submit matrix.toml --wait")
    assert status == 0 and "none missed" in out, err
    assert "ranks in [submit]: for schedulers, passed over" in err and err.count("\n") == 1
    folder = Path(re.search(r"files +(\S+)", out)[1])
    assert users.can(ANNE, (folder / "modes.npz").read_bytes) and users.can(ANNE, os.listdir, folder)
    assert not users.can(BERT, os.listdir, folder.parent)
    result = machine.facts(ANNE, "result mine")
    assert result["eigenvalues"] == pytest.approx(laplacian(N)[1][:3], rel=1e-9)
    assert hide_secrets(json.dumps(result)) == json.dumps(result) and str(machine.spool) not in json.dumps(result)
    for command in ("result mine", "cancel mine", "status mine", f"result {folder.name[:29]}"):
        status, _, err = machine.run(BERT, command)
        assert status == 2 and "no job" in err, command
    assert machine.facts(BERT, "status")["jobs"] == []
    assert machine.facts(BERT, "status")["service"]["access"] == "everybody on this machine"
    (whole,) = machine.facts(SERVICE, "status")["jobs"]
    (own,) = machine.facts(ANNE, "status")["jobs"]
    assert own == whole and own["user"] == str(ANNE)
    assert own["name"] == "mine" and own["state"] == "done" and own["folder"] is None
    assert "user" not in machine.run(SERVICE, "status")[1]
    long = machine.facts(ANNE, "submit long.toml")["id"]
    machine.until(lambda: machine.facts(ANNE, f"status {long}")["jobs"][0]["progress"])
    waits = machine.facts(BERT, "submit matrix.toml")["id"]
    assert re.search(rf"{waits} +mine +{BERT} ", machine.run(SERVICE, "status")[1])
    assert machine.facts(BERT, "cancel mine")["jobs"][0]["cancelled"]
    machine.until(lambda: machine.facts(SERVICE, f"status {waits}")["jobs"][0]["exit"] is None)
    assert machine.facts(ANNE, "cancel long")["jobs"] == [{"id": long, "state": "cancelled", "cancelled": True}]
    machine.until(lambda: machine.facts(ANNE, "status long")["jobs"][0]["error"] == "cancelled")
    status, _, err = machine.run(BERT, "result mine")
    assert status == 2 and "was cancelled" in err
    os.kill(process, signal.SIGTERM)
    assert service.wait(60) == 0, machine.told
    assert machine.facts(BERT, "status")["service"] is None


def test_a_service_that_was_killed_is_told_from_one_that_serves(machine):
    service = machine.serve()
    assert machine.facts(ANNE, "status")["service"]["ranks"] == 1
    process = job_outcomes.read_json(machine.spool / "service.json")["process"]
    os.killpg(service.pid, signal.SIGKILL)
    os.kill(process, signal.SIGKILL)
    service.wait(20)
    assert (machine.spool / "service.json").exists()
    assert machine.until(lambda: machine.facts(ANNE, "status")["service"] is None)


def test_secrets_are_told_to_nobody(machine):
    h5py = pytest.importorskip("h5py")
    peeper = Peeper()
    peeper.start()
    machine.serve("--allow-code", machine.place / "code", "--verbose", "--idle", "30")
    matrix = second_difference(N).tocsr()
    with h5py.File(machine.homes[ANNE] / "matrix.h5", "w") as file:
        file["/data"], file["/indices"], file["/indptr"] = matrix.data, matrix.indices, matrix.indptr
        file["/shape"] = matrix.shape
    (machine.homes[ANNE] / "hdf5.toml").write_text('command = "eigs"\ninput = "matrix.h5"\nk = 2\n')
    for name in ("matrix.h5", "hdf5.toml"):
        os.chown(machine.homes[ANNE] / name, ANNE, ANNE)
    machine.run(ANNE, "submit hdf5.toml --wait")
    fails = machine.homes[ANNE] / "fails.toml"
    fails.write_text('command = "eigs"\ninput = "matrix.mtx"\nk = 300\n')
    os.chown(fails, ANNE, ANNE)
    status, out, err = machine.run(ANNE, "submit fails.toml --wait")
    assert status == 2 and (out + err).count("sparsehess: ") == 1  # told once
    assert machine.run(ANNE, "submit slow.toml --wait")[0] == 0
    waits = machine.facts(ANNE, "submit long.toml")["id"]
    machine.until(lambda: machine.facts(ANNE, f"status {waits}")["jobs"][0]["progress"])
    said = [machine.told, *(json.dumps(machine.facts(user, "status")) for user in (ANNE, BERT, SERVICE))]
    said += [path.read_text() for path in (*machine.spool.glob("*.json"), machine.spool / "lock")]
    machine.run(ANNE, f"cancel {waits}")
    peeper.close()
    assert peeper.looks > 5 and not peeper.seen
    for text in said:
        assert hide_secrets(text) == text


def test_a_group_is_served_by_a_service_that_is_looked_after(machine):
    """With two ranks, each a group of its own; started again where they are killed."""
    group = next(one for one in grp.getgrall() if one.gr_gid > 1)
    ours = (group.gr_gid,)
    flags = ("--ranks", "2", "--groups", "2", "--idle", "60")
    access = ("--group", group.gr_name)
    service = machine.serve(*flags, access=access, launch=(), groups=ours)
    facts = machine.until(lambda: job_outcomes.read_json(machine.spool / "service.json"))
    assert facts["access"] == f"members of the group {group.gr_name}" and facts["groups"] == 2
    assert machine.run(ANNE, "submit matrix.toml --wait", ours)[0] == 0
    status, _, err = machine.run(BERT, "submit matrix.toml")
    assert status == 2 and "lets you not in" in err.splitlines()[-1]
    os.kill(facts["process"], signal.SIGKILL)
    told = machine.spool / "service.json"
    machine.until(lambda: job_outcomes.read_json(told).get("process") not in (None, facts["process"]))
    assert machine.run(ANNE, "submit matrix.toml --wait", ours)[0] == 0
    jobs = answers.parse(machine.run(ANNE, "status --json -", ours)[1])["jobs"]
    assert [one["state"] for one in jobs] == ["done", "done"]
    (machine.spool / "stop").touch()
    assert service.wait(60) == 0, machine.told


def test_a_group_of_others_is_refused(machine):
    group = next(one for one in grp.getgrall() if one.gr_gid > 1)
    words = [sys.executable, "-m", "sparsehess", "serve", machine.spool, "--group"]
    for name, reason in ((group.gr_name, "none of its members"), ("no such group", "no such group here")):
        done = subprocess.run(
            users.as_words(SERVICE, [*words, name]),
            cwd=machine.homes[SERVICE],
            env=machine.environment(SERVICE),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2 and reason in done.stderr and done.stderr.count("\n") == 1
    assert not machine.spool.exists()
