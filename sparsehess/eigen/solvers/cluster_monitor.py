"""A monitor of Krylov-Schur that ends a solve whose shift is too far from a cluster."""

from __future__ import annotations

from sparsehess.eigen.solvers.solve_monitor import OnProgress, OnRestart, SolveMonitor, copy_columns
from sparsehess.runtime import PETSc, SLEPc

# So many times the width of a cluster away, a shift is too far from it.
_FAR = 20.0


class ClusterMonitor(SolveMonitor):
    """A monitor that can end a solve for a shift nearer to a cluster; see `KrylovSchur.solve`.

    Attributes
    ----------
    cluster
        Where it has ended the solve: estimates of the lowest and of the last wanted eigenvalue.
    products, reach
        Products of a solve, and least and largest Ritz value, where the monitor knows; see `ProductMonitor`.
    """

    products = 0
    reach: tuple[float, float] | None = None

    def __init__(
        self,
        on_progress: OnProgress,
        on_restart: OnRestart,
        k: int,
        shift: float | None,
        cluster_after: int | None,
    ):
        super().__init__(on_progress, on_restart, k)
        self.shift, self.cluster_after = shift or 0.0, cluster_after
        self.cluster: tuple[float, float] | None = None
        self._transformed: list[float] = []

    def monitor(self, eps: SLEPc.EPS, restarts: int, converged: int, values: list, errors: list) -> None:
        """Note what the transformed eigenvalues are estimated to be. Collective."""
        self._transformed = [complex(value).real for value in values[: self.k]]
        super().monitor(eps, restarts, converged, values, errors)

    def basis(self, eps: SLEPc.EPS, converged: int) -> list[PETSc.Vec]:
        """Return copies of what converged and, of Krylov-Schur, of the Ritz vectors that it has begun anew with.

        Those are half of the others (Stewart 2001), the best of them first.
        """
        left = (eps.getDimensions()[1] - converged) // 2 if eps.getType() == "krylovschur" else 0
        return copy_columns(eps.getBV(), converged + min(left, max(self.k - converged, 0)))

    def stop(self, eps: SLEPc.EPS, restarts: int, most: int, converged: int, wanted: int) -> int:
        """Return why to stop, for a cluster among others. Collective."""
        reason = SLEPc.EPS.ConvergedReason
        said = super().stop(eps, restarts, most, converged, wanted)
        if said != reason.CONVERGED_ITERATING:
            return said
        seen = self._transformed  # 1 / (eigenvalue - shift) is what the solver sees
        tried = self.cluster_after is not None and restarts >= self.cluster_after
        if tried and len(seen) == self.k and (min(seen) > 0 or max(seen) < 0):
            away = sorted(1 / value for value in seen)
            if min(abs(away[0]), abs(away[-1])) > _FAR * (away[-1] - away[0]):
                self.cluster = (self.shift + away[0], self.shift + away[-1])
                return reason.CONVERGED_USER
        return said
