"""Texts of others as they may be printed: what could move a cursor, recolour or reorder is shown by its code."""

from __future__ import annotations

import unicodedata

# Blanks of all widths move nothing but what follows.
_BLANK = "Zs"


def printable(text: str, kept: str = "\n\t") -> str:
    r"""Return a text whose control characters stand there as escapes, such as `\x1b`.

    Not collective. Codes that a terminal obeys, marks that turn the direction of writing, and bytes that were no
    text are among them; letters of all languages are kept.

    Parameters
    ----------
    text
        From a file of a user's, a name of one, or another process.
    kept
        Control characters that are kept; none for what must stay in one line.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in kept or unicodedata.category(one) == _BLANK else _escaped(one)
        for one in text
    )


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
