"""A diagonal and a symmetric matrix of low rank: made, changed, compressed and multiplied by."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.operator import Operator
from sparsehess.operators.tall_skinny_qr import (
    inner_products,
    local_array,
    small_eigh,
    sum_over_ranks,
    tall_qr,
)
from sparsehess.runtime import PETSc, agreement, communicator
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.validation import reals, whole_number

_EPS = float(np.finfo(float).eps)

# Rows below this part of others lose all digits in a problem that is judged as a whole.
_GRADED = 1e-12


class LowRankMatrix(Operator):
    """D + U C Uᵀ as it is stored. *Collective* to make and to use; see `LowRankDiagonal` for the parameters."""

    def __init__(
        self,
        D: PETSc.Vec | np.ndarray | float,
        U: np.ndarray,
        C: np.ndarray | None = None,
        *,
        window: int | None = None,
        comm: MPI.Comm | None = None,
    ):
        comm = communicator(D.comm if isinstance(D, PETSc.Vec) else comm)
        with agreement(comm):
            U = reals(U, "U")
            if U.ndim != 2:
                raise InputError(f"U must be (n_local, r), not {U.shape}")
        layout = Layout.from_local(len(U), comm)
        self.d = local_array(D if isinstance(D, PETSc.Vec) or np.ndim(D) else np.full(len(U), D), layout, "D")
        self.U = local_array(U, layout, "U")
        r = U.shape[1]
        with agreement(comm):
            self.C = np.eye(r) if C is None else np.array(reals(C, "C"))
            if self.d.ndim != 1:
                raise InputError(f"D must be a diagonal, not {self.d.shape}")
            if self.C.shape != (r, r) or not np.isfinite(self.C).all():
                raise InputError(f"C must be ({r}, {r}) and finite; it is {self.C.shape}")
            if np.abs(self.C - self.C.T).max(initial=0.0) > 1e-12 * np.abs(self.C).max(initial=0.0):
                raise InputError("C must be symmetric")
            if window is not None and not window >= max(1, r):
                raise InputError(f"a window of {window} columns does not hold the {r} of U")
        if len(set(comm.allgather(r))) > 1:
            raise InputError("U must have as many columns on every rank")
        self.window = window
        self._make_shell(layout)
        low = comm.allreduce(float(self.d.min(initial=np.inf)), op=MPI.MIN)
        self._ends = low, comm.allreduce(float(self.d.max(initial=-np.inf)), op=MPI.MAX)
        self._changed()

    # --- changes ---

    def append(self, u: PETSc.Vec | np.ndarray, weight: float = 1.0) -> None:
        """Add weight · u uᵀ; with a full window the oldest column leaves first.

        Collective. One rank-one update is one new column: nothing is computed before something is asked.

        Parameters
        ----------
        u
            Vec or (n_local,).
        """
        column = local_array(u, self.layout, "u")
        if column.ndim != 1 or not np.isfinite(reals(weight, "the weight")):
            raise InputError("a rank-one update is a vector u and a finite weight")
        leave = self.window is not None and self.U.shape[1] == self.window
        U, C = (self.U[:, 1:], self.C[1:, 1:]) if leave else (self.U, self.C)
        self.U = np.concatenate([U, column[:, None]], axis=1)
        self.C = np.pad(C, (0, 1))
        self.C[-1, -1] = weight
        self._changed()

    def compress(self, error: float = 0.0, *, rank: int | None = None, norm: str = "spectral") -> float:
        """Make U orthonormal and C diagonal, of the least rank that an error allows; return the error made.

        Collective. Columns come in order of their weight, the lightest first, so that a window loses least.

        Parameters
        ----------
        error
            By which H may change, absolutely: no eigenvalue moves farther (Weyl 1912), or in the Frobenius norm
            their distances together (Hoffman, Wielandt 1953).
        rank
            Keep at most so many columns, whatever the error.
        norm
            `spectral` or `frobenius`.
        """
        if norm not in ("spectral", "frobenius"):
            raise InputError(f"norm={norm!r} is neither spectral nor frobenius")
        if not reals(error, "error") >= 0:
            raise InputError("the error must not be negative")
        if rank is not None:
            whole_number(rank, "rank", 0)
        Q, lam = self._core
        order = np.argsort(np.abs(lam))
        size = np.abs(lam[order])
        made = np.maximum.accumulate(size) if norm == "spectral" else np.sqrt(np.cumsum(size**2))
        drop = int(np.searchsorted(made, error, side="right"))
        if rank is not None:
            drop = max(drop, len(lam) - rank)
        self.U, self.C = np.ascontiguousarray(Q[:, order[drop:]]), np.diag(lam[order[drop:]])
        self._changed()
        return float(made[drop - 1]) if drop else 0.0

    def _changed(self) -> None:
        """Forget what was made of D, U and C before they changed. Collective."""
        self._forget()
        self._kept_core: tuple[np.ndarray, np.ndarray] | None = None
        self._kept_graded: tuple[bool, float] | None = None

    @property
    def _graded(self) -> bool:
        """Whether some rows are so small beside others that a problem judged as a whole has no digit of them."""
        if self._kept_graded is None:
            rows = self._row_sizes()
            rows = rows[rows > 0]
            own = np.array([rows.max(initial=0.0), -rows.min(initial=np.inf)])
            self.comm.Allreduce(MPI.IN_PLACE, own, op=MPI.MAX)
            self._kept_graded = bool(own[0] * _GRADED > -own[1]), float(-own[1])
        return self._kept_graded[0]

    @property
    def _uniform(self) -> bool:
        """Whether D is a multiple of the identity, beside rows that are not of all too different sizes."""
        return self._ends[0] == self._ends[1] and not self._graded

    @property
    def _core(self) -> tuple[np.ndarray, np.ndarray]:
        """(Q, λ) with U C Uᵀ = Q diag(λ) Qᵀ and Q orthonormal; what is zero to rounding is left out."""
        if self._kept_core is None:
            Q, R = tall_qr(self.comm, self.U)
            lam, Z = small_eigh(self.comm, R @ self.C @ R.T)
            # Beside what cancels in the product, not beside the result: that may be all rounding.
            size = np.linalg.norm(R, 2) ** 2 * np.linalg.norm(self.C, 2) if R.size else 0.0
            keep = np.abs(lam) > _EPS * max(4, len(lam)) * size
            self._kept_core = Q @ Z[:, keep], lam[keep]
        return self._kept_core

    # --- entries ---

    def product(self, vector: np.ndarray) -> np.ndarray:
        """Return H v (n_local,).

        Collective: one reduction of r numbers.
        """
        return self.d * vector + self.U @ (self.C @ sum_over_ranks(self.comm, self.U.T @ vector))

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (n_local,).

        Collective.
        """
        return self.d + np.einsum("ij,ij->i", self.U @ self.C, self.U)

    def diagonal_rounding(self) -> np.ndarray:
        """Return (n_local,) how far rounding may have moved `diagonal`.

        Not collective.
        """
        return _EPS * (2 + self.U.shape[1]) * self._row_sizes()

    def powers(self, most: int) -> np.ndarray:
        """Return (most + 1,) traces of powers of H from 0 on.

        Collective. By Hᵏ = D Hᵏ⁻¹ + U C (Hᵏ⁻¹ U)ᵀ, over and over.
        """
        by_d, by_h = [self.U], [self.U]
        for _ in range(most - 1):
            by_d.append(self.d[:, None] * by_d[-1])
            inner = inner_products(self.comm, self.U, by_h[-1])
            by_h.append(self.d[:, None] * by_h[-1] + self.U @ (self.C @ inner))
        own = np.array([np.sum(self.d**power) for power in range(most + 1)])
        for power in range(1, most + 1):
            for j in range(power):
                own[power] += np.sum((by_d[j] @ self.C) * by_h[power - 1 - j])
        return sum_over_ranks(self.comm, own)

    def _row_sizes(self) -> np.ndarray:
        """Return (n_local,) what entries on the diagonal are made of. Not collective."""
        size: np.ndarray = np.abs(self.d) + np.einsum("ij,ij->i", np.abs(self.U) @ np.abs(self.C), np.abs(self.U))
        return size
