"""What is done between the iterations of a solve of SLEPc: progress, and an end before its time.

An error inside of a callback would leave SLEPc's work vectors behind: it ends the solve, and is raised afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from sparsehess.runtime import PETSc, SLEPc


class Watch:
    """Monitor and stopping test of one solve. Collective in use.

    Parameters
    ----------
    on_progress
        Called as on_progress(converged, wanted); what it raises, on all ranks or on none, ends the solve.
    on_restart
        Called as on_restart(basis), where basis() copies the vectors of SLEPc's basis; an error that it returns
        ends the solve. None for nothing.
    k
        How many are wanted.

    Attributes
    ----------
    error
        The error that ends the solve, for `settle`.
    """

    def __init__(self, on_progress, on_restart: Callable[[Callable[[], list]], Exception | None] | None, k: int):
        self.on_progress, self.on_restart, self.k = on_progress, on_restart, k
        self.error: Exception | None = None

    def set_on(self, eps: SLEPc.EPS) -> None:
        """Watch a solver from now on. Logically collective."""
        eps.setMonitor(self.monitor)
        eps.setStoppingTest(self.stop)

    def monitor(self, eps, iterations, converged, values, errors):
        """Tell how far the solver is. Collective."""
        if self.error is not None:
            return
        try:
            self.on_progress(min(converged, self.k), self.k)
        except Exception as error:
            # Frames of its traceback hold the EPS, which would live on with them.
            self.error = error.with_traceback(None)
            return
        if self.on_restart is not None:
            self.error = self.on_restart(lambda: self.basis(eps, converged))

    def basis(self, eps, converged: int) -> list[PETSc.Vec]:
        """Return copies of the vectors of the basis that are in use. Collective."""
        return columns(eps.getBV(), eps.getBV().getActiveColumns()[1])

    def stop(self, eps, iterations, most, converged, wanted):
        """Return SLEPc's reason to end, as its own test does, or that an error does it. Not collective."""
        reason = SLEPc.EPS.ConvergedReason
        if self.error is not None:
            return reason.CONVERGED_USER
        if converged >= wanted:
            return reason.CONVERGED_TOL
        return reason.DIVERGED_ITS if iterations >= most else reason.CONVERGED_ITERATING

    def settle(self) -> None:
        """Raise the error that has ended the solve. Collective."""
        if self.error is not None:
            raise self.error


def columns(basis: SLEPc.BV, count: int) -> list[PETSc.Vec]:
    """Return copies of the first columns of a basis.

    Collective. The caller destroys them.
    """
    found = []
    for number in range(count):
        column = basis.getColumn(number)
        found.append(column.copy())
        basis.restoreColumn(number, column)
    return found
