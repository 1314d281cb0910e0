"""Errors that are kept: without what the frames of their tracebacks hold.

A frame that one rank keeps longer than the others keeps its references to parts of a solver, and the solver is
then destroyed on some ranks alone: they wait for a rank that never comes.
"""

from __future__ import annotations

import traceback
from typing import TypeVar

Error = TypeVar("Error", bound=BaseException)


def forget_frames(error: Error) -> Error:
    """Empty the frames of an error that have ended, and of those that it follows from; return it.

    Not collective. Its traceback still tells files and lines.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        left += [one.__cause__, one.__context__]
    return error
