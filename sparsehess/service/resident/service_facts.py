"""What a resident service says of itself when it starts: a line for who has started it, a file for all others."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence

from sparsehess.runtime.printable import printable
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.access import read_access
from sparsehess.service.spool.spool import Spool
from sparsehess.storage.atomic_files import explain_write_errors


def write_service(
    spool: Spool,
    *,
    ranks: int,
    groups: int,
    seconds: float | None,
    memory: int | None,
    code: Sequence[str],
    data: Sequence[str],
) -> dict[str, object]:
    """Write `service.json`, and return what it says.

    Not collective: on the first rank.

    Raises
    ------
    InputError
        It cannot be written.
    """
    facts: dict[str, object] = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "ranks": ranks,
        "groups": groups,
        "began": time.time(),
        "time": seconds,
        "memory": memory,
        "code": list(code),
        "data": list(data),
        "access": read_access(spool.path),
    }
    with explain_write_errors(spool.path):
        job_outcomes.write_json(spool.path / "service.json", facts)
    return facts


def describe_service(spool: Spool, facts: dict) -> str:
    """Return the facts of a service as a line. Not collective."""
    ranks, groups = facts["ranks"], facts["groups"]
    parts = [
        f"{ranks} rank{'s' * (ranks > 1)} in {groups} group{'s' * (groups > 1)}",
        f"jobs of {facts['access']}",
        f"code of {', '.join(facts['code']) or 'no folder'}",
        f"data of {', '.join(facts['data']) or 'no folder but the job'}",
        f"a job gets {_limits(facts['time'], facts['memory'])}",
        f"`touch {spool.path / 'stop'}`, or SIGTERM to process {facts['process']}, ends it",
    ]
    return printable(f"serving {spool.path}: {'; '.join(parts)}", "")


def _limits(seconds: float | None, memory: int | None) -> str:
    time_limit = "any time" if seconds is None else f"{seconds:g} s"
    return f"{time_limit}, {'any memory' if memory is None else f'{memory / 2**20:,.0f} MiB a rank'}"
