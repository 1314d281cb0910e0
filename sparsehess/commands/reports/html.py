"""Pieces of HTML. All text is escaped here; what is HTML already says so in its name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def section(title: str, *html: str) -> str:
    """Return a section of pieces that are HTML. Not collective."""
    return f"<section><h2>{escape(title)}</h2>{''.join(html)}</section>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph. Not collective."""
    return f"<p{_kind(kind)}>{escape(text)}</p>"


def figure(html: str, caption: str, kind: str = "") -> str:
    """Return a figure with a caption. Not collective."""
    return f"<figure{_kind(kind)}>{html}<figcaption>{escape(caption)}</figcaption></figure>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str, numbers: Sequence[int] = ()) -> str:
    """Return a table with heads of columns, the first cell of a row its head.

    Not collective.

    Parameters
    ----------
    numbers
        Columns that are numbers, set to the right.
    """
    kinds = [' class="number"' if column in numbers else "" for column in range(len(heads))]
    top = "".join(f'<th scope="col"{kind}>{escape(head)}</th>' for head, kind in zip(heads, kinds, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row"{kind}>{escape(cell)}</th>' if column == 0 else f"<td{kind}>{escape(cell)}</td>"
            for column, (cell, kind) in enumerate(zip(row, kinds, strict=True))
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def figures(rows: Iterable[tuple[str, str]]) -> str:
    """Return names and what they are, side by side. Not collective."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(told)}</dd></div>" for name, told in rows)
    return f'<dl class="figures">{items}</dl>' if items else ""


def details(title: str, html: str) -> str:
    """Return what is opened by a click; on paper it is left out. Not collective."""
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
