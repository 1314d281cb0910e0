"""The command `serve`: what a resident service is started with."""

from __future__ import annotations

import argparse
import logging
import os
import resource
from typing import TYPE_CHECKING

from sparsehess.commands import flag_groups
from sparsehess.commands.arguments import CommandLine
from sparsehess.commands.quantities import parse_time
from sparsehess.errors import InputError
from sparsehess.service.spool.access import Access, choose_access, find_closed_folders
from sparsehess.service.spool.spool import Spool

if TYPE_CHECKING:
    from mpi4py import MPI

log = logging.getLogger("sparsehess")


def run_serve(arguments: argparse.Namespace, line: CommandLine, comm: MPI.Comm | None) -> int:
    """Take jobs from a spool until told to leave. Collective."""
    flag_groups.refuse_flags(arguments, {"json": None}, "each job has a result.json of its own")
    if arguments.ranks is not None:
        from sparsehess.service.resident.supervisor import supervise

        if arguments.ranks < 1:
            raise InputError(f"--ranks {arguments.ranks}: at least 1")
        return supervise(arguments)
    if comm is None:
        raise ValueError("a service without --ranks runs on a communicator")
    if not arguments.allow_code:
        flag_groups.refuse_flags(
            arguments, {"launcher": "mpiexec"}, "it is for --ranks, and for jobs of --allow-code"
        )
    from sparsehess.runtime import memory, on_root
    from sparsehess.service.resident import limits
    from sparsehess.service.resident.admission import Allowance
    from sparsehess.service.resident.service import ServiceSettings, serve_spool
    from sparsehess.service.resident.supervisor import split_launcher

    if not 1 <= arguments.groups <= comm.size:
        raise InputError(f"--groups {arguments.groups}: from 1 to the number of ranks, {comm.size}")
    for flag in ("grace", "idle"):
        value = getattr(arguments, flag)
        if value is not None and not 0 <= value < 10**8:
            raise InputError(f"--{flag} {value:g}: seconds, not negative")
    free = int(0.9 * memory.free_memory(comm))
    most = limits.Limits(
        None if arguments.time is None else parse_time(arguments.time),
        free if arguments.memory is None else limits.parse_size(arguments.memory),
    )
    settings = ServiceSettings(
        allowance=Allowance(
            code=on_root(comm, _real, arguments.allow_code, "--allow-code"),
            data=on_root(comm, _real, arguments.allow_data, "--allow-data"),
            most=most,
        ),
        groups=arguments.groups,
        cache=0 if arguments.cache == "0" else limits.parse_size(arguments.cache, "--cache"),
        grace=arguments.grace,
        once=arguments.once,
        idle=arguments.idle,
        launcher=tuple(on_root(comm, split_launcher, arguments.launcher) if arguments.allow_code else ()),
        quiet=arguments.quiet,
    )
    spool = on_root(comm, _opened, arguments.spool, choose_access(arguments.shared, arguments.group))
    _write_no_memory()
    return serve_spool(spool, settings, line, comm)


def _opened(place: str, access: Access) -> Spool:
    spool = Spool.open_or_create(place, access)
    for folder in find_closed_folders(spool.path, access):
        log.warning("%s lets nobody through to the spool: chmod o+x", folder)
    return spool


def _write_no_memory() -> None:
    """Leave no core file: it would lie in the folder of one job, with matrices of others in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _real(folders: list[str], flag: str) -> tuple[str, ...]:
    for folder in folders:
        if not os.path.isdir(folder):
            raise InputError(f"{flag} {folder}: no such folder; make it first")
    return tuple(os.path.realpath(folder) for folder in folders)
