"""SR1 and L-BFGS in compact form: a Hessian from how the gradient changed along some steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.low_rank import LowRankDiagonal
from sparsehess.operators.tall_skinny_qr import inner_products, local_array, tall_qr
from sparsehess.runtime import PETSc, agreement, communicator, on_root
from sparsehess.runtime.citations import cite
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from typing import TypeAlias

    from mpi4py import MPI

    Columns: TypeAlias = np.ndarray | Sequence[PETSc.Vec | np.ndarray]
    Diagonal: TypeAlias = PETSc.Vec | np.ndarray | float

# A pair is left out where its denominator is below this part of the product of its two lengths, which is how
# far rounding spoils it (Nocedal, Wright 2006, equation 6.26).
_LEAST = 1e-8

_EPS = float(np.finfo(float).eps)


def sr1(
    S: Columns, Y: Columns, D: Diagonal = 1.0, *, memory: int | None = None, comm: MPI.Comm | None = None
) -> LowRankDiagonal:
    """Return the Hessian that symmetric rank-one updates give.

    *Collective.* B = D + Ψ N⁻¹ Ψᵀ with Ψ = Y - D S and N the lower triangle of SᵀΨ, mirrored. Of a quadratic
    function n independent steps give the Hessian itself.

    Parameters
    ----------
    S, Y
        (n_local, m) steps and changes of the gradient along them, the oldest first; lists of Vecs or
        (n_local,) arrays are taken too.
    D
        Diagonal to start from: Vec, (n_local,) array or number.
    memory
        Take so many pairs, the newest; default all.
    comm
        Communicator, where nothing given is a Vec; default this process alone.

    Returns
    -------
    LowRankDiagonal
        The caller closes it.

    Raises
    ------
    InputError
        Shapes that do not fit, or other numbers of steps on some ranks.

    Notes
    -----
    Pairs whose update is not defined to rounding are left out, in their order (Nocedal and Wright 2006, equation
    6.26): the result is what the updates one after the other would give.

    References
    ----------
    Byrd, Nocedal, Schnabel 1994, "Representations of quasi-Newton matrices and their use in limited memory
    methods", theorem 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> H = np.diag([3.0, 1.0, 1.0])
    >>> steps = np.array([[1.0], [1.0], [0.0]])
    >>> with sh.sr1(steps, H @ steps) as B:
    ...     print(B.spectrum(3).round(6))
    [1. 1. 3.]
    """
    layout, S, Y, d = _taken(S, Y, D, memory, comm)
    Psi = Y - d[:, None] * S
    # One QR for both: lengths within a common small space, without the cancellation of Gram matrices.
    _, R = tall_qr(layout.comm, np.concatenate([S, Psi], axis=1))
    m = S.shape[1]
    reference = np.linalg.norm(tall_qr(layout.comm, Y)[1], axis=0)
    kept, C = on_root(layout.comm, _sr1_small, R[:, :m], R[:, m:], reference)
    return LowRankDiagonal(d, Psi[:, kept], C, comm=layout.comm)


def _sr1_small(S: np.ndarray, Psi: np.ndarray, reference: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Return which pairs are kept and the inverse of N, from coordinates in a common basis.

    An update that is rounding beside the change of the gradient is none: the pair fits already.
    """
    N = np.tril(S.T @ Psi)
    N = N + np.tril(N, -1).T
    kept: list[int] = []
    for j in range(S.shape[1]):
        t = np.linalg.solve(N[np.ix_(kept, kept)], N[kept, j]) if kept else np.empty(0)
        v = Psi[:, j] - Psi[:, kept] @ t
        # How much of v is rounding: of what it is the difference of.
        size = np.linalg.norm(Psi[:, j]) + np.linalg.norm(Psi[:, kept], axis=0) @ np.abs(t) + reference[j]
        step = np.linalg.norm(S[:, j])
        fits = np.linalg.norm(v) <= 1e2 * _EPS * size
        if not fits and abs(v @ S[:, j]) > _LEAST * np.linalg.norm(v) * step:
            kept.append(j)
    C = np.linalg.inv(N[np.ix_(kept, kept)]) if kept else np.zeros((0, 0))
    return kept, (C + C.T) / 2


def lbfgs(
    S: Columns, Y: Columns, D: Diagonal | None = None, *, memory: int | None = None, comm: MPI.Comm | None = None
) -> LowRankDiagonal:
    """Return the positive definite Hessian that BFGS updates give.

    *Collective.* B = D - [D S, Y] M⁻¹ [D S, Y]ᵀ with M = [[SᵀD S, L], [Lᵀ, -E]], where L is the part of SᵀY
    strictly below its diagonal E.

    Parameters
    ----------
    S, Y, memory, comm
        As for `sr1`.
    D
        Positive diagonal to start from; default yᵀy / sᵀy of the newest pair (Nocedal, Wright 2006, section 7.2).

    Returns
    -------
    LowRankDiagonal
        The caller closes it.

    Raises
    ------
    InputError
        D is not positive; else as `sr1`.

    Notes
    -----
    Pairs along which the curvature is not positive are left out, as they would not leave B positive definite.

    References
    ----------
    Byrd, Nocedal, Schnabel 1994, "Representations of quasi-Newton matrices and their use in limited memory
    methods", theorem 2.3.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> H = np.diag([3.0, 1.0, 1.0])
    >>> steps = np.array([[1.0], [1.0], [0.0]])
    >>> with sh.lbfgs(steps, H @ steps) as B:
    ...     print(B.inertia().definite, np.allclose(B.product(steps[:, 0]), H @ steps[:, 0]))
    positive definite True
    """
    layout, S, Y, d = _taken(S, Y, 1.0 if D is None else D, memory, comm)
    with agreement(layout.comm):
        if not (d > 0).all():
            raise InputError("the diagonal that BFGS starts from must be positive")
    pairs = np.concatenate([S, Y], axis=1)
    m = S.shape[1]
    gram = inner_products(layout.comm, pairs, pairs)
    lengths = np.sqrt(np.diag(gram))
    kept = layout.comm.bcast([j for j in range(m) if gram[j, m + j] > _LEAST * lengths[j] * lengths[m + j]])
    if D is None and kept:
        last = kept[-1]
        d = np.full(layout.n_local, gram[m + last, m + last] / gram[last, m + last])
    S, Y = S[:, kept], Y[:, kept]
    # Steps and changes of one length: M is then no worse conditioned than the pairs themselves.
    SY, SDS = gram[kept][:, [m + j for j in kept]], inner_products(layout.comm, S, d[:, None] * S)
    C = on_root(layout.comm, _bfgs_small, SY, SDS)
    return LowRankDiagonal(d, np.concatenate([d[:, None] * S, Y], axis=1), C, comm=layout.comm)


def _bfgs_small(SY: np.ndarray, SDS: np.ndarray) -> np.ndarray:
    """Return -M⁻¹, from a matrix that is scaled to a diagonal of ones."""
    L = np.tril(SY, -1)
    M = np.block([[(SDS + SDS.T) / 2, L], [L.T, -np.diag(np.diag(SY))]])
    scale = 1 / np.sqrt(np.abs(np.diag(M)))
    C = -scale[:, None] * np.linalg.inv(scale[:, None] * M * scale) * scale
    return (C + C.T) / 2


def _taken(
    S: Columns, Y: Columns, D: Diagonal, memory: int | None, comm: MPI.Comm | None
) -> tuple[Layout, np.ndarray, np.ndarray, np.ndarray]:
    """Return (layout, S, Y, d) as local arrays."""
    cite("quasi-newton")
    vecs = [item for item in (*_listed(S), *_listed(Y), D) if isinstance(item, PETSc.Vec)]
    comm = communicator(vecs[0].comm if vecs else comm)
    with agreement(comm):
        S, Y = _columns(S), _columns(Y)
        if S.shape != Y.shape or S.ndim != 2:
            raise InputError(f"steps {S.shape} and changes {Y.shape} must be (n_local, m) both")
        if memory is not None and memory < 1:
            raise InputError(f"memory={memory} must be at least one pair")
        if memory is not None:
            S, Y = S[:, -memory:], Y[:, -memory:]
    if len(set(comm.allgather(S.shape[1]))) > 1:
        raise InputError("there must be as many steps on every rank")
    layout = Layout.from_local(len(S), comm)
    S, Y = local_array(S, layout, "S"), local_array(Y, layout, "Y")
    d = local_array(D if isinstance(D, PETSc.Vec) or np.ndim(D) else np.full(len(S), float(D)), layout, "D")
    return layout, S, Y, d


def _listed(columns: Columns) -> list:
    return list(columns) if isinstance(columns, (list, tuple)) else []


def _columns(columns: Columns) -> np.ndarray:
    if isinstance(columns, (list, tuple)):
        columns = [v.getArray(readonly=True) if isinstance(v, PETSc.Vec) else v for v in columns]
        return reals(columns, "steps and changes").T
    return reals(columns, "steps and changes")
