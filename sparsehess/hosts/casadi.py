"""Objectives of CasADi functions: exact gradients and products, patterns from their graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError
from sparsehess.runtime import optional

if TYPE_CHECKING:
    import casadi


def from_casadi(function: casadi.Function, x: ArrayLike, **more: Any) -> Objective:
    """Return the objective of a scalar CasADi function.

    Collective, as `Objective` is. Gradients and Hessian-vector products are CasADi's, exact.

    Parameters
    ----------
    function
        A `casadi.Function`, of SX or MX, of one dense (n, 1) vector to one number.
    x
        (n,) where the Hessian is taken.
    more
        Other arguments of `Objective`. Without a pattern, CasADi tells it where one is to be detected.

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
    >>> with sh.assemble(sh.from_casadi(energy, [0.0, 1.0, 2.0, 3.0]), pattern="detect") as hessian:
    ...     print(hessian.mat[:, :].round(12) + 0.0)
    [[ 1. -1.  0.  0.]
     [-1.  2. -1.  0.]
     [ 0. -1.  2. -1.]
     [ 0.  0. -1.  1.]]
    """
    casadi = optional("casadi", "from_casadi", "casadi")
    if not isinstance(function, casadi.Function):
        raise InputError(f"from_casadi takes a casadi.Function, not {type(function).__name__}")
    takes = [function.sparsity_in(i) for i in range(function.n_in())]
    gives = [function.size_out(i) for i in range(function.n_out())]
    if takes != [casadi.Sparsity.dense(np.size(x), 1)] or gives != [(1, 1)]:
        raise InputError(f"{function} is no function of one dense vector of {np.size(x)} numbers to one number")
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


def hessian_sparsity(gradient: casadi.Function) -> scipy.sparse.csc_matrix:
    """Return the (n, n) sparsity of the Hessian, from the function of its gradient.

    Not collective. It holds at every x: of branches that depend on x all are counted.
    """
    found = gradient.jac_sparsity(0, 0)
    starts, rows = found.colind(), found.row()
    return scipy.sparse.csc_matrix((np.ones(len(rows), np.int8), rows, starts), found.shape)
