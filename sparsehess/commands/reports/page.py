"""The page of a report: one HTML file that needs nothing else, on screen and on paper."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sparsehess.commands.reports import sections
from sparsehess.commands.reports.charts import bar_rows
from sparsehess.commands.reports.html import details, figures, paragraph, section, table
from sparsehess.commands.reports.records import Record
from sparsehess.commands.reports.structure_figure import structure_section
from sparsehess.storage.json_files import write_text

SUFFIXES = (".html",)

_HERE = Path(__file__).parent

# Nothing is fetched from anywhere, whatever stands in the page.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_TASKS = {
    "eigs": "Eigenpairs",
    "spectrum": "Eigenpairs",
    "density": "Spectral density",
    "color": "Colouring",
    "assemble": "Hessian",
}


def write_page(path: str | os.PathLike[str], record: Record) -> None:
    """Write the page of a record.

    Not collective: rank 0 calls it.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    write_text(path, page_of(record))


def page_of(record: Record) -> str:
    """Return the page of a record as HTML. Not collective."""
    facts = record.facts
    run = facts.get("run") or {}
    name = str(run.get("name") or f"n = {facts['n']}")
    structure = structure_section(record)
    body = [
        _head(facts, name),
        *sections.TASKS[facts["task"]](record, structure),
        _work(facts),
        _reproduce(record),
        _answer(record),
        _lacks(record.lacks),
    ]
    script = f"<script>{(_HERE / 'structure.js').read_text()}</script>" if structure else ""
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(name)}: {_TASKS[facts['task']]}</title>",
            f"<style>{(_HERE / 'page.css').read_text()}</style></head>\n<body><main>",
            "\n".join(part for part in body if part),
            f"</main>{script}<script>document.documentElement.dataset.report = 'ready'</script></body></html>\n",
        ]
    )


def _head(facts: dict[str, Any], name: str) -> str:
    run = facts.get("run") or {}
    made = f"{_TASKS[facts['task']]} by sparsehess"
    if (facts.get("versions") or {}).get("sparsehess"):
        made += f" {facts['versions']['sparsehess']}"
    if run.get("date"):
        made += f", {str(run['date'])[:10]}"
    return f'<header><h1>{escape(name)}</h1><p class="made">{escape(made)}</p></header>'


def _work(facts: dict[str, Any]) -> str:
    """Return the stages, and what they took."""
    spent = facts.get("timings") or {}
    total = spent.get("total", sum(spent.values()))
    rows = [(stage, seconds, f"{seconds:.3g} s") for stage, seconds in spent.items() if stage != "total"]
    shown = [row for row in rows if row[1] >= 1e-3 * total or row[1] >= 0.005]
    rest = total - sum(row[1] for row in rows)
    if shown and rest > 0.01 * total:
        shown.append(("all else", rest, f"{rest:.3g} s"))
    told = [("in all", f"{total:.3g} s")] if spent else []
    mpi = facts.get("mpi") or {}
    if mpi:
        told.append(("ranks", f"{mpi['size']}, {mpi['threads']} thread{'s' if mpi['threads'] != 1 else ''} each"))
    if facts.get("memory"):
        told.append(("memory", f"{facts['memory'] / 2**20:.0f} MiB at most, all ranks together"))
    told += [(kind, f"{many} evaluations") for kind, many in (facts.get("evaluations") or {}).items() if many]
    if not (told or shown):
        return ""
    bars = bar_rows(shown, "Seconds of the stages") if shown else ""
    return section("Stages and memory", figures(told), bars)


def _reproduce(record: Record) -> str:
    facts = record.facts
    run, parts = facts.get("run") or {}, []
    if run.get("command"):
        ranks = (facts.get("mpi") or {}).get("size", 1)
        words = ["sparsehess", *map(str, run["command"])]
        line = shlex.join([*(["mpiexec", "-n", str(ranks)] if ranks > 1 else []), *words])
        parts.append(paragraph("The same command again:"))
        parts.append(f'<pre class="command">{escape(line)}</pre>')
        parts.append(paragraph(f"Random vectors come from the seed {run['seed']}, on any number of ranks."))
    inputs = facts.get("inputs") or {}
    files = [
        [what, str(told["path"]), str(told.get("digest") or "")]
        for what, told in inputs.items()
        if isinstance(told, dict) and told.get("path")
    ]
    if files:
        parts.append(table(["file", "path", "digest"], files, "Files that were read"))
    options = facts.get("options") or {}
    if options:
        rows = [[f"-{key}", "" if value is None else str(value)] for key, value in options.items()]
        parts.append(details("Options of the solver", table(["option", "value"], rows, "Options of the solver")))
    if facts.get("versions"):
        rows = [[key, str(value)] for key, value in facts["versions"].items()]
        parts.append(table(["package", "version"], rows, "Versions"))
    return section("How to reproduce", *parts) if parts else ""


def _answer(record: Record) -> str:
    if not record.answer:
        return ""
    return section("The answer as text", f'<pre class="answer">{escape(record.answer)}</pre>')


def _lacks(lacks: Sequence[str]) -> str:
    return section("What the file does not tell", _items(lacks)) if lacks else ""


def _items(sentences: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in sentences)}</ul>"
