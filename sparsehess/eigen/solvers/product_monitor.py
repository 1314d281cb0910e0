"""A monitor of Krylov-Schur by products alone: it ends a solve at the residuals that are asked for, and counts."""

from __future__ import annotations

from sparsehess.eigen.solvers.cluster_monitor import ClusterMonitor
from sparsehess.eigen.solvers.solve_monitor import OnProgress, OnRestart
from sparsehess.runtime import SLEPc

# What a solve by products is told; and one that ends at given residuals. It keeps three quarters of the vectors
# that have not converged, in a basis that has more of them: a restart is never far, and with it the next test.
# Nothing is locked: then all residuals lie along one vector, which `krylov_pairs` needs.
PLAIN = {"eps_type": "krylovschur"}
PRODUCTS = {"eps_type": "krylovschur", "eps_krylovschur_restart": 0.75, "eps_krylovschur_locking": 0}

# Part of the residual that is allowed at which a pair has converged: the size is seen from inside the spectrum.
_SHARE = 0.9


class ProductMonitor(ClusterMonitor):
    """A monitor that counts products, and knows how far the spectrum reaches; see `KrylovSchur.solve`.

    Parameters
    ----------
    held
        Backward error to which pairs are solved, None where SLEPc's own test decides. SLEPc's is relative to each
        eigenvalue, which costs products that nobody has asked for where it is small; it knows no norm of a matrix
        of which there are products alone. From the first restart on the largest Ritz value stands for it, which
        is no larger.

    Attributes
    ----------
    products
        Of a solve by Krylov-Schur.
    reach
        Least and largest Ritz value so far, None before the first restart.
    """

    def __init__(self, on_progress: OnProgress, on_restart: OnRestart, k: int, held: float | None):
        super().__init__(on_progress, on_restart, k, None, None)
        self.held, self.products = held, 0
        self.reach: tuple[float, float] | None = None
        self._kept = 0

    def monitor(self, eps: SLEPc.EPS, restarts: int, converged: int, values: list, errors: list) -> None:
        """Note what the basis has cost and what it shows, and how small residuals must become. Collective."""
        ritz = [complex(value).real for value in values]
        if ritz:
            low, high = self.reach or (ritz[0], ritz[0])
            self.reach = min(low, *ritz), max(high, *ritz)
        if eps.getType() == SLEPc.EPS.Type.KRYLOVSCHUR:
            self.products += len(ritz) - self._kept
            self._kept = converged + max(1, int((len(ritz) - converged) * eps.getKrylovSchurRestart()))
            if self.held is not None and self.reach is not None:
                hold_to(eps, self.held, self.reach)
        super().monitor(eps, restarts, converged, values, errors)


def basis_size(k: int, held: bool) -> int:
    """Return how many vectors a basis has for k pairs: SLEPc's own choice, or for `PRODUCTS` some more.

    Not collective.
    """
    if k >= 500:
        return k + 500
    return max(2 * k + 10, k + 20) if held else max(2 * k, k + 15)


def most_restarts(n: int, room: int) -> int:
    """Return after how many restarts a solve with `PRODUCTS` of n rows gives up, with a basis of so many vectors.

    Not collective. Twice as many as SLEPc's own: each brings half as many vectors.
    """
    return max(200, 4 * n // room)


def most_products(n: int, k: int, held: bool) -> int:
    """Return how many products a solve for k pairs of n rows takes at most, by `PRODUCTS` or as SLEPc does it.

    Not collective.
    """
    room = min(n, basis_size(k, held)) + 1
    if held:
        return room + most_restarts(n, room - 1) * (room // 4 + 1)
    return room + max(100, 2 * n // room) * (room // 2 + 1)


def hold_to(eps: SLEPc.EPS, held: float, reach: tuple[float, float]) -> None:
    """Have a solver end at residuals that are so small a part of the largest Ritz value. Collective."""
    size = max(map(abs, reach))
    eps.setConvergenceTest(SLEPc.EPS.Conv.ABS)
    eps.setTolerances(_SHARE * held * (size or 1.0), eps.getTolerances()[1])
