"""Objectives of CasADi functions: exact gradients and products, patterns from their graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError
from sparsehess.runtime import optional
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    import casadi


def from_casadi(
    function: casadi.Function,
    x: ArrayLike,
    *,
    parameters: Mapping[str, ArrayLike] | Sequence[ArrayLike] = (),
    **more: Any,
) -> Objective:
    """Return the objective of a scalar CasADi function.

    Collective, as `Objective` is. Gradients and Hessian-vector products are CasADi's, exact.

    Parameters
    ----------
    function
        A `casadi.Function`, of SX or MX, of one dense (n, 1) vector to one number; further inputs are parameters.
    x
        (n,) where the Hessian is taken.
    parameters
        Values of the further inputs: by name, or those after the first in their order.
    more
        Other arguments of `Objective`. Without a pattern, CasADi tells it where one is needed.

    Returns
    -------
    Objective
        Of the function at x, named as the function is.

    Raises
    ------
    InputError
        Not such a function, or x of another length.
    StackError
        CasADi is not installed.

    Examples
    --------
    >>> import casadi
    >>> import sparsehess as sh
    >>> x = casadi.SX.sym("x", 4)
    >>> energy = casadi.Function("chain", [x], [casadi.sumsqr(x[1:] - x[:-1]) / 2])
    >>> with sh.assemble(sh.from_casadi(energy, [0.0, 1.0, 2.0, 3.0])) as hessian:
    ...     print(hessian.mat[:, :].round(12) + 0.0)
    [[ 1. -1.  0.  0.]
     [-1.  2. -1.  0.]
     [ 0. -1.  2. -1.]
     [ 0.  0. -1.  1.]]
    """
    casadi = optional("casadi", "from_casadi", "casadi")
    if not isinstance(function, casadi.Function):
        raise InputError(f"from_casadi takes a casadi.Function, not {type(function).__name__}")
    given = _by_number(function, parameters)
    free = [number for number in range(function.n_in()) if number not in given]
    if len(free) > 1:
        names = [function.name_in(number) for number in free]
        raise InputError(
            f"{function} has the inputs {', '.join(names)}: give the values of those that are parameters, as "
            f"from_casadi(function, x, parameters={{{names[-1]!r}: ...}})"
        )
    takes = [function.sparsity_in(number) for number in free]
    gives = [function.size_out(number) for number in range(function.n_out())]
    if takes != [casadi.Sparsity.dense(np.size(x), 1)] or gives != [(1, 1)]:
        raise InputError(f"{function} is no function of one dense vector of {np.size(x)} numbers to one number")
    if given:
        function = _bind(function, free[0], given)
    argument, value = function.name_in(0), function.name_out(0)
    gradient = function.factory("gradient", [argument], [f"grad:{value}:{argument}"])
    product = gradient.factory("product", [argument, f"fwd:{argument}"], [f"fwd:{gradient.name_out(0)}"])
    return Objective(
        x=x,
        gradient=lambda at: gradient(at).full().ravel(),
        energy=lambda at: float(function(at)),
        hvp=lambda at, direction: product(at, direction).full().ravel(),
        trace=lambda: hessian_sparsity(gradient),
        **{"name": function.name(), **more},
    )


def _by_number(
    function: casadi.Function, parameters: Mapping[str, ArrayLike] | Sequence[ArrayLike]
) -> dict[int, np.ndarray]:
    """Return the values of parameters by the numbers of their inputs. Not collective."""
    names = function.name_in()
    if not isinstance(parameters, Mapping):
        if not isinstance(parameters, (list, tuple)) or len(parameters) not in (0, len(names) - 1):
            raise InputError(
                f"parameters must be a list of {max(len(names) - 1, 0)} values, or values by name: {function} has "
                f"the inputs {', '.join(names)}"
            )
        parameters = dict(zip(names[1:], parameters, strict=False))
    out = {}
    for name, value in parameters.items():
        if name not in names:
            raise InputError(f"parameters: {function} has no input {name!r}, but {', '.join(names)}")
        number = names.index(name)
        values, shape = reals(value, f"parameter {name}"), function.size_in(number)
        if values.size not in (1, shape[0] * shape[1]) or (values.ndim == 2 and values.shape != shape):
            raise InputError(
                f"parameter {name} must be {shape[0]} x {shape[1]} numbers, not of shape {values.shape}"
            )
        out[number] = values if values.ndim == 2 or values.size == 1 else values.reshape(shape, order="F")
    return out


def _bind(function: casadi.Function, number: int, given: dict[int, np.ndarray]) -> casadi.Function:
    """Return the function of its one free input, the others having these values. Not collective."""
    import casadi

    free = casadi.MX.sym(function.name_in(number), function.sparsity_in(number))
    arguments = [free if other == number else casadi.DM(given[other]) for other in range(function.n_in())]
    names = [function.name_in(number)], [function.name_out(0)]
    return casadi.Function(function.name(), [free], [function(*arguments)], *names)


def hessian_sparsity(gradient: casadi.Function) -> scipy.sparse.csc_matrix:
    """Return the (n, n) sparsity of the Hessian, from the function of its gradient.

    Not collective. It holds at every x: of branches that depend on x all are counted.
    """
    found = gradient.jac_sparsity(0, 0)
    starts, rows = found.colind(), found.row()
    return scipy.sparse.csc_matrix((np.ones(len(rows), np.int8), rows, starts), found.shape)
