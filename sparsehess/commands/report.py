"""Pages of stored results."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sparsehess import errors
from sparsehess.commands.output import SCHEMA, answer, refuse_solver_options
from sparsehess.commands.reports import page
from sparsehess.commands.reports.records import page_record
from sparsehess.runtime import on_root
from sparsehess.storage import writers

if TYPE_CHECKING:
    from sparsehess.commands.call import Call


def run_report(call: Call) -> int:
    """Write the page of a stored result. Collective; rank 0 reads and writes."""
    arguments, comm = call.arguments, call.comm
    refuse_solver_options(call.options)
    writers.check_writable(arguments.out, page.SUFFIXES, comm)
    task, size, lacks = on_root(comm, _write, arguments.result, arguments.out)
    told = {"result": arguments.result, "of": task, "out": arguments.out, "bytes": size, "lacks": lacks}
    facts = {"schema": SCHEMA, "task": "report", **told}
    lines = [f"written      {arguments.out}, {size / 1000:.0f} kB", *(f"not told     {one}" for one in lacks)]
    answer(call, facts, "\n".join(lines))
    return errors.DONE


def _write(result: str, out: str) -> tuple[str, int, list[str]]:
    """Write the page of a result; return its task, the bytes of the page, and what is not known."""
    with page_record(result) as record:
        page.write_page(out, record)
    return record.facts["task"], os.path.getsize(out), list(record.lacks)
