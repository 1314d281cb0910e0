"""Docstrings as the package writes them: |x| is a size, and `Name` leads to the page of that name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.utils import unescape
from sphinx.addnodes import pending_xref

import sparsehess

if TYPE_CHECKING:
    from docutils.parsers.rst.states import Inliner
    from sphinx.application import Sphinx

LITERAL = re.compile(r"(`+.*?`+)")
WORDS = {"color", "diagonal", "rank", "trace"}  # names of arguments too


def _escape_bars(app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """Keep docutils from taking |x| for something to substitute, in prose."""
    example = False
    for number, line in enumerate(lines):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if "|" in line and not example:
            parts = LITERAL.split(line)
            parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
            lines[number] = "".join(parts)


def _name(
    role: str, raw: str, text: str, line: int, inliner: Inliner, options: Any = None, content: Any = None
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Return what stands between single backticks: code, with a link where it is a public name."""
    text = unescape(text)
    shown = nodes.literal(raw, text, classes=["py"])
    if text not in sparsehess.__all__ or text in WORDS:
        return [shown], []
    target = {"refdomain": "py", "reftype": "obj", "reftarget": f"sparsehess.{text}", "refexplicit": True}
    document = inliner.document.settings.env.docname
    return [pending_xref(raw, shown, refdoc=document, refwarn=True, **target)], []


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx of both."""
    app.connect("autodoc-process-docstring", _escape_bars, priority=400)  # before numpydoc
    app.add_role("name", _name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
