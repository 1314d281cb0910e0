"""What JAX and PyTorch say of functions that they cannot take, and what to do about it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sparsehess.errors import SparseHessError, words_of
from sparsehess.runtime.validation import explain_evaluation_errors

# What is kept of a message, and where it may be cut.
_LONGEST, _END = 240, re.compile(r" See https?://| The error occurred while| The problem arose")

# Expressions of messages, and what to do.
_REMEDIES = (
    (r"expected target dtype|indices must be of integer type", "targets that are classes must be whole numbers"),
    (
        r"derivative for .* is not implemented|differentiate twice|once_differentiable|double backward"
        r"|Pure callbacks do not support JVP|IO callbacks do not support JVP",
        "there is no second derivative of it; say products='differences', or to `assemble` derivative='central'",
    ),
    (
        r"forward-mode autodiff \(jvp\) to a custom_vjp",
        "define it by jax.custom_jvp, or take `hessian`, with products='differences' if it needs them",
    ),
    (
        r"but found (Float|Double|Half|BFloat16)|must have the same dtype|same dtype|but got (Float|Double|Half)",
        "all is evaluated in double precision (or as `products` says): cast tensors that a function holds by "
        "itself with `.to(outputs.dtype)`, or let them be buffers of a module",
    ),
    (r"in-place operation|inplace operation|do not support in-place", "write it without changing arrays in place"),
    (
        r"Can't call numpy\(\) on|TracerArrayConversion|__array__\(\) was called|concrete value is expected"
        r"|unexpected keyword argument '(axis|out|keepdims)'",
        "use operations of the library whose derivatives are asked for, not of NumPy, math or float()",
    ),
    (
        r"boolean conversion of traced|Array boolean indices must be concrete",
        "JAX traces functions without values: write `if` and masks of values by jnp.where or jax.lax.cond",
    ),
    (
        r"Reverse-mode differentiation does not work for lax.while_loop",
        "loops whose length depends on values have no gradient: take jax.lax.scan, or fori_loop with numbers",
    ),
    (
        r"scalar-output functions|real-valued outputs|not a valid value for jnp.array",
        "the function must return one real number: a sum or a mean, without anything beside it",
    ),
    (
        r"element 0 of tensors does not require grad",
        "let it return the loss, not differentiate it (`backward`), and depend on the parameters",
    ),
    (
        r"UnexpectedTracer",
        "the function keeps what it computed from call to call, such as a key of random numbers: let it return "
        "all, and switch off what is random (dropout)",
    ),
    (r"[Ss]parse(?!hess)", "take dense arrays, such as an embedding with sparse=False"),
    (
        r"CheckpointError|Checkpointing is not compatible|Recomputed values",
        "switch checkpoints off in the model: chunks of samples fit `memory` without them",
    ),
    (r"uninitialized parameter", "call the model once, so that its parameters have shapes"),
    (r"meta tensor", "give the parameters values: those on the device `meta` have none"),
    (r"PRNGKey dtype|extended dtype", "leave keys of random numbers out of the arrays"),
)

_Function = TypeVar("_Function", bound=Callable[..., Any])


def told(error: BaseException) -> str:
    """Return what an error says, shortened, and what to do about it if that is known. Not collective."""
    text = _END.split(words_of(error))[0]
    said = f"{type(error).__name__} {text}"
    remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, said)), "")
    short = text if len(text) <= _LONGEST else text[:_LONGEST].rsplit(" ", 1)[0] + " ..."
    return short.rstrip(".") + (f": {remedy}" if remedy else "")


def explain_host_errors(what: str) -> AbstractContextManager[None]:
    """Make an EvaluationError of what a function of the user raises in a block, and say what to do.

    Not collective. Errors of the package pass as they are.
    """
    return explain_evaluation_errors(what, told)


def advised(function: _Function) -> _Function:
    """Return a function whose errors say what to do, under their own names. Not collective."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (SparseHessError, KeyboardInterrupt):
            raise
        except BaseException as error:
            kind = type(type(error).__name__, (RuntimeError,), {})
            raise kind(told(error)) from error

    return call  # type: ignore[return-value]
