"""What PETSc calls back: what fails there ends the call in order, and is raised behind it.

An error that passes through a solver leaves work vectors lent out, and nothing that holds them can be destroyed
afterwards. Within `held_errors` it is kept instead: the callback, and all that follow, answer as the identity
would, the solver comes to an end of its own, and the first error is raised. Outside of such a block it is raised
at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from sparsehess.runtime.kept_errors import forget_frames

Method = TypeVar("Method", bound=Callable[..., None])


class _Held:
    """The first error of the callbacks of a block."""

    def __init__(self) -> None:
        self.error: BaseException | None = None


_BLOCK: ContextVar[_Held | None] = ContextVar("errors of callbacks", default=None)


@contextmanager
def held_errors() -> Iterator[None]:
    """Hold what fails in callbacks of PETSc until the block is left; then raise the first of them.

    Not collective; the callbacks raise on all ranks or on none. What PETSc itself says afterwards follows from the
    first error, and is not told. Meant for one call of a solver, with nothing else in the block.
    """
    held = _Held()
    token = _BLOCK.set(held)
    try:
        yield
    except Exception:
        if held.error is None:
            raise
    finally:
        _BLOCK.reset(token)
    if held.error is not None:
        raise held.error


def has_failed() -> bool:
    """Return whether a callback of the innermost block has failed, and its solver is to end. Not collective."""
    held = _BLOCK.get()
    return held is not None and held.error is not None


def called_back(method: Method) -> Method:
    """Make a method one that PETSc calls, as method(self, object, …, out) or method(self, object, x, out).

    Not collective by itself. What it raises must be raised on all ranks: user's functions go through `agreement`.
    """

    @functools.wraps(method)
    def call(self: Any, *arguments: Any) -> None:
        held = _BLOCK.get()
        if held is None:
            method(self, *arguments)
            return
        if held.error is None:
            try:
                method(self, *arguments)
                return
            except BaseException as error:  # also an interrupt: no error may pass through a solver
                forget_frames(error)
                held.error = error
        _as_identity(*arguments[1:])

    call.called_back = True  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def _as_identity(*vectors: Any) -> None:
    """Set the last vector to the one before it, to zero if that has another size, to ones if there is none."""
    out = vectors[-1]
    if len(vectors) == 1:
        out.set(1.0)
    elif vectors[-2].getSizes() == out.getSizes():
        vectors[-2].copy(out)
    else:
        out.set(0.0)


def raises_together(context: object) -> bool:
    """Return whether the products of a shell's context are among those of `called_back`. Not collective."""
    return bool(getattr(getattr(type(context), "mult", None), "called_back", False))
