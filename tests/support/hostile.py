"""Jobs that do what no job should, between honest ones: what becomes of either, and of the service."""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from sparsehess.service.batch import local_scheduler
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.clients import WholeSpool
from sparsehess.service.spool.spool import Spool
from support import ROOT, answers
from support.cases import laplacian, second_difference

N = 40

# What is told where the processes of a job end by themselves; where they are killed from outside again and again.
_WITHOUT = r"ended .*without an answer|raised|rank|MPI|memory"
_GIVEN_UP = "given up"

# {kind: what its outcome tells}; None where it may be done as well, for what it does is of no consequence to it.
KINDS: dict[str, str | None] = {
    "patch-numpy": r"patched",
    "patch-sine": None,
    "patch-files": _WITHOUT + "|patched",
    "patch-clock": None,
    "patch-mpi": None,
    "patch-package": _WITHOUT + "|patched",
    "patch-builtins": _WITHOUT + "|patched",
    "no-modules": None,
    "limit-file-size": _WITHOUT + "|written",
    "limit-descriptors": None,
    "limit-address-space": None,
    "limit-processor": r"ended",
    "limit-processes": None,
    "close-descriptors": _WITHOUT,
    "close-output": None,
    "close-input": None,
    "change-folder": None,
    "forbid-files": None,
    "ignore-signals": None,
    "change-environment": None,
    "change-locale": None,
    "trap-arithmetic": "arithmetic fault",
    "numpy-errors": None,
    "low-priority": None,
    "loop-in-python": "over its time limit",
    "loop-in-c": "over its time limit",
    "stop-itself": "stopped|over its time limit",
    "stop-launcher": "stopped|over its time limit",
    "wait-for-nobody": "over its time limit",
    "hang-at-exit": None,
    "leave-threads": None,
    "leave-child": None,
    "leave-hidden-child": None,
    "leave-many": None,
    "leave-fleeing": None,
    "leave-objects": None,
    "leave-options": None,
    "fill-log": "its log is over|over its time limit",
    "exit-quietly": "without an answer",
    "exit-loudly": "status 9",
    "exit-in-python": "SystemExit",
    "exit-later": None,
    "interrupt": "KeyboardInterrupt",
    "raise-odd": r"Odd|no text|ended",
    "raise-long": "long long",
    "raise-leaving": None,
    "abort": "an abort",
    "segmentation-fault": "a segmentation fault",
    "recursion": "segmentation fault|ended|Recursion|SystemError|over its time limit",
    "take-memory": "memory|allocate",
    "finalize": _WITHOUT,
    "abort-all": "status 7",
    "remove-folder": "was removed",
    "move-folder": "was removed",
    "forbid-folder": None,
    "pipes": None,
    "links": None,
    "folders": None,
    "false-outcome": "status 3",
    "odd-ending": "status 3",
}

# Those that take long: they are killed again and again, or only some time after their limits.
SLOW: dict[str, str | None] = {
    "kill-itself": _GIVEN_UP,
    "end-itself": _GIVEN_UP,
    "kill-launcher": _GIVEN_UP,
    "kill-keeper": _GIVEN_UP,
    "stop-keeper": "status 3|stopped|" + _GIVEN_UP,
    "false-ending": _GIVEN_UP,
    "loop-unwatched": "over its time limit",
}

# Those that need a second rank.
TOGETHER: dict[str, str | None] = {
    "barrier-on-one": "over its time limit",
    "raise-on-one": "here alone",
}

# Those that end the service, or stop it.
FATAL: dict[str, str | None] = {"kill-service": _GIVEN_UP, "stop-service": None}

_TOLD = {**KINDS, **SLOW, **TOGETHER, **FATAL}


@dataclass
class Report:
    """What became of jobs.

    Attributes
    ----------
    rows
        (kind, state, what is told, seconds) of the hostile ones.
    wrong
        What is not as it should be, a line for each.
    left
        Processes that are still there after the service has ended.
    status
        Of the service.
    """

    rows: list[tuple[str, str, str, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    status: int | None = None


def processes(mark: str) -> list[int]:
    """Return the processes that were born with this in their environment, but for this one."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            alive = (place / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if alive and mark.encode() in (place / "environ").read_bytes() and int(place.name) != os.getpid():
                found.append(int(place.name))
    return found


class Folders:
    """A spool, a folder with problems, and one with a matrix; for jobs of any user where they are theirs."""

    def __init__(self, place: Path):
        self.place, self._code, self._data = place, place / "code", place / "data"
        self._code.mkdir()
        self._data.mkdir()
        (self._code / "problem.py").write_text((Path(__file__).parent / "hostile_problem.py").read_text())
        sp.save_npz(self._data / "chain.npz", second_difference(N))
        self._client = WholeSpool(Spool.open_or_create(place / "spool"))

    def put(self, text: str) -> str:
        """Put a job of this text into the spool; return its id."""
        draft = self._client.make_draft()
        (draft / "job.toml").write_text(text)
        return self._client.enqueue([draft])[0]

    def give(self, user: int) -> None:
        """Make all of it another user's."""
        (self.place / "scratch").mkdir()
        for folder, _, names in os.walk(self.place):
            for name in (".", *names):
                os.chown(os.path.join(folder, name), user, user)

    def honest(self) -> tuple[str, str]:
        """Return job files of a matrix and of code."""
        return (
            f'command = "eigs"\ninput = "{self._data}/chain.npz"\nk = 3\n',
            f'command = "eigs"\ninput = "{self._code}/problem.py:honest"\nk = 3\n',
        )

    def hostile(self, kind: str, seconds: int) -> str:
        """Return the job file of a kind, with a time limit."""
        alone = "true" if kind in TOGETHER else "false"
        return (
            f'command = "eigs"\ninput = "{self._code}/problem.py:hostile"\nk = 3\n'
            f'set = {{ how = "{kind}", alone = {alone} }}\n[submit]\nname = "{kind}"\n'
            f'time = "00:00:{seconds:02}"\nmemory = "300M"\n'
        )


def run_between(
    folder: Path,
    kinds: Iterable[str],
    ranks: int,
    *flags: str,
    seconds: int = 5,
    patience: float = 600.0,
    user: int = 0,
) -> Report:
    """Run jobs of these kinds, each of them so many seconds, between honest ones; tell what became of them.

    Honest are jobs of a matrix, which the ranks of the service run, and of code, in turn.
    """
    spool = Folders(folder)
    honest = spool.honest()
    put = spool.put
    good, bad = [put(honest[0]), put(honest[1])], {}
    for number, kind in enumerate(kinds):
        bad[put(spool.hostile(kind, seconds))] = kind
        good.append(put(honest[number % 2]))
    mark = f"SPARSEHESS_MARK={secrets.token_hex(8)}"
    report = Report()
    began = time.monotonic()
    report.status = serve(folder, ranks, flags, mark, patience)
    if report.status != 0:
        report.wrong.append(
            f"the service has ended with status {report.status} ({time.monotonic() - began:.0f} s)"
        )
    for identity, kind in bad.items():
        _judge(folder, identity, kind, _TOLD[kind], report)
    wanted = [_eigenvalues(folder, identity) for identity in good[:2]]
    if wanted[0] is None or not np.allclose(wanted[0], laplacian(N)[1][:3], rtol=1e-9, atol=0):
        report.wrong.append(f"the first honest job: {wanted[0]}")
    for number, identity in enumerate(good):
        which = number if number < 2 else number % 2
        if (found := _eigenvalues(folder, identity)) is None or found != wanted[which]:
            report.wrong.append(
                f"honest job {number}: {found}, not {wanted[which]}: {outcome_of(folder, identity)}"
            )
    report.left = processes(mark)
    for process in report.left:
        os.kill(process, signal.SIGKILL)
    if report.left:
        report.wrong.append(f"left behind: {len(report.left)} processes")
    return report


@contextlib.contextmanager
def serving(
    folder: Path, ranks: int, flags: tuple[str, ...], mark: str, user: int = 0
) -> Iterator[subprocess.Popen]:
    """Start a service in its folders; all that is left of it is killed in the end."""
    words = [sys.executable, "-m", "sparsehess", "serve", str(folder / "spool"), "-q", "--grace", "1"]
    words += ["--allow-code", str(folder / "code"), "--allow-data", str(folder / "data"), "--cache", "0"]
    if "--ranks" not in flags:
        words = ["mpiexec", "-n", str(ranks), *words]
    if user:
        words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *words]
    name, _, value = mark.partition("=")
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    environment = {**local_scheduler.job_environment(), "PYTHONPATH": str(ROOT), name: value}
    with open(folder / "service.log", "ab") as record:
        service = subprocess.Popen(
            [*words, *flags],
            cwd=folder,
            env={**environment, "TMPDIR": str(scratch)},
            stdout=record,
            stderr=record,
            start_new_session=True,
        )
        try:
            yield service
        finally:
            if service.poll() is None:
                for process in processes(mark):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                service.wait()


def serve(
    folder: Path, ranks: int, flags: tuple[str, ...], mark: str, patience: float, user: int = 0
) -> int | None:
    """Serve until no job is left; return the status of the service, None where it had to be killed."""
    with serving(folder, ranks, ("--once", *flags), mark, user) as service:
        try:
            return service.wait(patience)
        except subprocess.TimeoutExpired:
            return None


def until(true: Callable[[], bool], within: float = 120.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def outcome_of(folder: Path, identity: str) -> dict | None:
    for state in ("done", "failed"):
        found = job_outcomes.read_outcome(folder / "spool" / state / identity)
        if found is not None:
            return found
    return None


def _judge(folder: Path, identity: str, kind: str, told: str | None, report: Report) -> None:
    outcome = outcome_of(folder, identity)
    if outcome is None:
        report.rows.append((kind, "lost", "", 0.0))
        report.wrong.append(f"{kind}: no outcome")
        return
    state, said = outcome["state"], outcome["error"] or ""
    report.rows.append((kind, state, said, outcome.get("seconds", 0.0)))
    if state == "failed" and (not said or "\n" in said):
        report.wrong.append(f"{kind}: failed, and not told why: {said[:300]!r}")
    if told is not None and (state != "failed" or not re.search(told, said)):
        report.wrong.append(f"{kind}: {state}, {said[:300]!r}, and not {told!r}")


def _eigenvalues(folder: Path, identity: str) -> list[float] | None:
    try:
        text = (folder / "spool" / "done" / identity / "result.json").read_text()
    except OSError:
        return None
    return answers.parse(text)["eigenvalues"]


def table(report: Report) -> str:
    """Return the rows as text."""
    lines = [f"{kind:20} {state:9} {seconds:5.1f} s  {said[:100]}" for kind, state, said, seconds in report.rows]
    return "\n".join(lines)


def dump(report: Report) -> str:
    """Return all of a report, for a failed test."""
    return json.dumps([report.wrong, report.rows], indent=1)
