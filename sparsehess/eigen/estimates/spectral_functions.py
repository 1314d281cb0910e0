"""Functions of a matrix by name, and error bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sparsehess.errors import EvaluationError, InputError, none_of, raised
from sparsehess.runtime.validation import positive_number, reals

Number = TypeVar("Number", float, np.ndarray)

NAMES = ("identity", "logdet", "inverse", "heat", "effective dimension")


@dataclass(frozen=True)
class Function:
    """A function of eigenvalues.

    Attributes
    ----------
    name
        One of `NAMES`, or that of the callable.
    call
        (m,) to (m,).
    above
        Eigenvalues must be greater than this.
    why
        What an eigenvalue that is not means.
    resolvent
        (a, b, shift) of a function a + b / (λ + shift), else None.
    """

    name: str
    call: Callable[[np.ndarray], np.ndarray]
    above: float = -np.inf
    why: str = ""
    resolvent: tuple[float, float, float] | None = None

    @property
    def linear(self) -> bool:
        """Whether it is the identity, for which no Lanczos is needed."""
        return self.name == "identity"

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the values of the function, checked.

        Not collective; every rank has the same eigenvalues.
        """
        values = np.asarray(values, np.float64)
        if len(values) and not values.min() > self.above:
            raise InputError(f"{self.name}: an eigenvalue is at or below {values.min():.6g}; {self.why}")
        with np.errstate(all="ignore"):  # what is not finite is refused below, and named
            try:
                result = self.call(values)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # the caller's function may raise anything
                raise EvaluationError(raised(self.name, error)) from error
        result = reals(result, self.name)
        if result.shape != values.shape:
            raise InputError(f"{self.name} must return as many values as it is given, not shape {result.shape}")
        if not np.isfinite(result).all():
            where = values[~np.isfinite(result)][0]
            raise InputError(f"{self.name} is not finite at {where:.6g}, within the spectrum")
        return result

    def of_atoms(self, atoms: Sequence[tuple[float, int]]) -> float:
        """Return the sum over deflated eigenvalues; those outside the domain, such as log 0, are left out.

        Not collective. Without them the log-determinant is the pseudo-log-determinant, and the inverse the
        pseudoinverse.
        """
        inside = [(value, times) for value, times in atoms if value > self.above]
        if not inside:
            return 0.0
        return float(self(np.array([value for value, _ in inside])) @ np.array([times for _, times in inside]))


def resolve_function(
    function: str | Callable[[np.ndarray], np.ndarray] | None, gamma: float | None, time: float | None
) -> Function:
    """Return the function that a caller means.

    Not collective.

    Raises
    ------
    InputError
        Unknown, or a parameter missing, of no use, or not positive.
    """
    if function is None:
        function = "identity"
    for key, value, user in (("gamma", gamma, "effective dimension"), ("time", time, "heat")):
        if (value is not None) != (function == user):
            mended = "give it" if value is None else "leave it out"
            raise InputError(f"{key} is for function {user!r}, which needs it: {mended}")
        if value is not None:
            positive_number(value, key)
    if callable(function):
        return Function(getattr(function, "__name__", "function"), function)
    ridge, duration = gamma or 0.0, time or 0.0
    definite = "it needs a positive definite matrix; deflate the null space where there is one"
    known = {
        "identity": Function("identity", lambda x: x),
        "logdet": Function("logdet", np.log, 0.0, definite),
        "inverse": Function("inverse", lambda x: 1 / x, 0.0, definite, (0.0, 1.0, 0.0)),
        "heat": Function("heat", lambda x: np.exp(-duration * x)),
        "effective dimension": Function(
            "effective dimension",
            lambda x: x / (x + ridge),
            -ridge,
            "take a greater gamma",
            (1.0, -ridge, ridge),
        ),
    }
    if function not in known:
        raise none_of(f"function {function!r}", function, NAMES, ", nor callable")
    return known[function]


def half_width(stderr: Number, freedom: int, level: float) -> Number:
    """Return half the width of error bars that cover with probability `level`, by Student's t.

    Not collective.
    """
    from scipy.special import stdtrit  # 60 ms on every rank, and seldom needed

    if not 0 < level < 1:
        raise InputError(f"level={level} must be between 0 and 1")
    return stderr * float(stdtrit(max(freedom, 1), 0.5 + 0.5 * level))
