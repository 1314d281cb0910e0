"""Whether products along random directions are those of one symmetric matrix, as second derivatives are."""

from __future__ import annotations

from collections.abc import Sequence

from mpi4py import MPI

import numpy as np

from sparsehess.errors import CheckError
from sparsehess.hessian.assembled import TOLERANCE
from sparsehess.long_range.steps import FreshProduct

# What noise makes of it is no failure up to so many times what is expected.
_SIGMAS = 10.0


def check_symmetry(comm: MPI.Comm, name: str, products: Sequence[FreshProduct]) -> None:
    """Raise CheckError where products along normal directions are those of no symmetric matrix.

    Collective. For two independent normal directions, E (d·He − e·Hd)² = ‖H − Hᵀ‖² in the Frobenius norm.

    Parameters
    ----------
    name
        Of the function.
    """
    images, directions = (np.stack(some, axis=1) for some in zip(*(one[:2] for one in products), strict=True))
    table = comm.allreduce(directions.T @ images)
    apart = (table - table.T)[np.triu_indices(len(table), 1)]
    squares = comm.allreduce(np.einsum("ij,ij->j", images, images))
    noises = np.array([one.noise for one in products])
    uneven, noise, norm = (float(np.sqrt(np.mean(some))) for some in (apart**2, noises**2, squares))
    if not uneven <= TOLERANCE * norm + _SIGMAS * np.sqrt(2) * noise:
        raise CheckError(
            f"the derivatives of {name} are not symmetric: ‖H − Hᵀ‖ is about {uneven / norm:.1e} of ‖H‖, and "
            f"{noise / norm:.1e} would be noise: is it the gradient of one function, and the same at each call?"
        )
