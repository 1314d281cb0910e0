"""Solves with parts of low rank beside an assembled matrix, or beside a structure that solves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.low_rank import LowRankDiagonal
from sparsehess.operators.operator import Operator
from sparsehess.operators.plain_solver import PlainSolver
from sparsehess.operators.tall_skinny_qr import inner_products, small_eigh
from sparsehess.runtime import PETSc, destroy, has_package
from sparsehess.runtime.petsc_matrices import is_assembled
from sparsehess.runtime.row_layout import Layout

Solve: TypeAlias = Callable[[np.ndarray, float], np.ndarray]
Part: TypeAlias = tuple[float, object, PETSc.Mat]  # weight, what the caller gave, its matrix


class LowRankUpdate:
    """Solves with S + Q diag(λ) Qᵀ + shift I by those with S, by Woodbury's formula (Woodbury 1950).

    Collective to use; `close()` destroys what it owns. S⁻¹Q is kept for the last shift.

    Parameters
    ----------
    comm
        The ranks.
    base
        Solves with S + shift I, as base(b, shift) for b (n_local, m).
    Q, lam
        (n_local, r) and (r,).
    owned
        What is closed or destroyed with this, in this order.
    """

    def __init__(
        self, comm: MPI.Comm, base: Solve, Q: np.ndarray, lam: np.ndarray, owned: Sequence[PlainSolver | PETSc.Mat]
    ):
        self._comm, self._base, self._owned = comm, base, list(owned)
        self._U, self._signs = Q * np.sqrt(np.abs(lam)), np.where(lam < 0, -1.0, 1.0)
        self._kept: tuple[float, np.ndarray, np.ndarray, np.ndarray] | None = None

    def solve(self, b: np.ndarray, shift: float) -> np.ndarray:
        """Return x (n_local, m), neither refined nor judged.

        Collective. Not finite, or of no use, where S + shift I is singular, even if the whole is not.
        """
        with np.errstate(all="ignore"):
            try:
                if self._kept is None or self._kept[0] != shift:
                    Z = self._base(self._U, shift)
                    inner = inner_products(self._comm, self._U, Z)
                    if not np.isfinite(inner).all():
                        return np.full_like(b, np.nan)
                    self._kept = shift, Z, *small_eigh(self._comm, np.diag(self._signs) + (inner + inner.T) / 2)
                _, Z, values, V = self._kept
                y = self._base(b, shift)
            except InputError:  # a singular factor, on all ranks
                return np.full_like(b, np.nan)
            part = V.T @ inner_products(self._comm, self._U, y)
            return y - Z @ (V @ (part / values[:, None]))

    def close(self) -> None:
        """Destroy what it owns. Collective."""
        for one in self._owned:
            if isinstance(one, PlainSolver):
                one.close()
            else:
                destroy(one)
        self._owned, self._kept = [], None


def low_rank_update(parts: Sequence[Part], shift: float, layout: Layout) -> list[LowRankUpdate]:
    """Return what solves with Σ a H + shift I, one item, where some H are of low rank beside what solves.

    Collective. None where no part is of low rank, or the others take iterations: they are factorized where all are
    assembled, and solve by themselves where there is one and the diagonals are a multiple of the identity. The
    caller closes it.
    """
    low = [(a, H) for a, H, _ in parts if isinstance(H, LowRankDiagonal)]
    others = [part for part in parts if not isinstance(part[1], LowRankDiagonal)]
    if not low or not others:
        return []
    d = np.sum([a * H.d for a, H in low], axis=0) + shift
    base, owned = _assembled_base(others, d, layout) if has_package("mumps") else (None, [])
    if base is None:
        base = _structured_base(others, d, layout.comm)
    if base is None:
        return []
    cores = [(a, *H._core) for a, H in low]
    Q = np.concatenate([Q for _, Q, _ in cores], axis=1)
    lam = np.concatenate([a * values for a, _, values in cores])
    return [LowRankUpdate(layout.comm, base, Q, lam, owned)]


def _assembled_base(
    others: Sequence[Part], d: np.ndarray, layout: Layout
) -> tuple[Solve | None, list[PlainSolver | PETSc.Mat]]:
    """Return what solves with the sum of assembled matrices and a diagonal, and what it owns. Collective."""
    if not all(is_assembled(mat) for _, _, mat in others):
        return None, []
    (weight, _, first), *rest = others
    matrix = first.duplicate(copy=True)
    matrix.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
    matrix.scale(weight)
    for a, _, mat in rest:
        matrix.axpy(a, mat, structure=PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
    diagonal = matrix.createVecRight()
    diagonal.setArray(d)
    matrix.setDiagonal(diagonal, addv=PETSc.InsertMode.ADD_VALUES)
    destroy(diagonal)
    plain = PlainSolver(matrix, layout, lambda *_: np.inf)
    return plain.solve, [plain, matrix]


def _structured_base(others: Sequence[Part], d: np.ndarray, comm: MPI.Comm) -> Solve | None:
    """Return what solves with one structure and a multiple of the identity. Collective."""
    low = comm.allreduce(float(d.min(initial=np.inf)), op=MPI.MIN)
    high = comm.allreduce(float(d.max(initial=-np.inf)), op=MPI.MAX)
    a, H, _ = others[0]
    if len(others) > 1 or low != high or a == 0 or not isinstance(H, Operator) or not H.applies_inverse:
        return None
    return lambda b, shift: H.apply_inverse(b, (shift + low) / a) / a
