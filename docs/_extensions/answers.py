"""The tables of reference/json: made of the JSON Schema that the package ships, when the pages are built."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sparsehess.commands.answer_schema import schema_text

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_PAGE, _MARK = "reference/json", "<!-- answers -->"

# Of colourings, of batch jobs and of a spool.
_FILES = ("stored_coloring", "batch_job", "outcome", "progress", "service", "group")


def tables() -> str:
    """Return the tables as Markdown: answers, their parts, small files."""
    definitions = json.loads(schema_text())["$defs"]
    answers = [name for name, one in definitions.items() if "task" in one.get("properties", ())]
    parts = [name for name in definitions if name not in (*answers, *_FILES)]
    lines: list[str] = []
    for head, names in (
        ("Answers", answers),
        ("Parts of answers", parts),
        ("Other small files", _FILES),
    ):
        lines += [f"## {head}", ""]
        for name in names:
            lines += _section(name, definitions[name])
    return "\n".join(lines)


def _section(name: str, definition: dict[str, Any]) -> list[str]:
    """Return the lines of one object."""
    title = definition.get("title", name)
    lines = [f"(answer-{name})=", f"### `{title}`", "", definition["description"], ""]
    lines += ["| Field | Type, unit | Meaning |", "|---|---|---|"]
    for field, said in definition["properties"].items():
        cells = (f"`{field}`", _kind(said) + (f", {said['x-unit']}" if "x-unit" in said else ""), _meaning(said))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _kind(said: dict[str, Any]) -> str:
    """Return the type of a field, in words."""
    if "const" in said:
        return f"`{json.dumps(said['const'])}`"
    if "$ref" in said:
        name = said["$ref"].rpartition("/")[2]
        return f"[{name}](#answer-{name})"
    if "anyOf" in said:
        return " or ".join(_kind(one) for one in said["anyOf"])
    if "enum" in said:
        return ", ".join("null" if one is None else f"`{one}`" for one in said["enum"])
    types = said["type"] if isinstance(said["type"], list) else [said["type"]]
    words = []
    for one in types:
        if one == "array" and "items" in said:
            of = _kind(said["items"])
            words.append(f"list of ({of})" if " or " in of else f"list of {of}")
        elif one == "array":
            words.append(f"list ({'; '.join(_kind(part) for part in said['prefixItems'])})")
        elif one == "object" and isinstance(said.get("additionalProperties"), dict):
            words.append(f"names to {_kind(said['additionalProperties'])}")
        else:
            words.append(one)
    return " or ".join(words)


def _meaning(said: dict[str, Any]) -> str:
    """Return what a field means, when it is null, and when it is there."""
    text = said.get("description", "")
    if "x-null" in said:
        text += f" *Null:* {said['x-null']}."
    if "x-when" in said:
        text += f" *There if* {said['x-when']}."
    return text.strip()


def _fill(app: Sphinx, page: str, source: list[str]) -> None:
    if page == _PAGE:
        source[0] = source[0].replace(_MARK, tables())


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx what is put in the place of the mark."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
