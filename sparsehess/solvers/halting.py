"""Solves of SLEPc that a callback may end: an error inside of one would leave SLEPc's work vectors behind."""

from __future__ import annotations

from collections.abc import Callable

from sparsehess.runtime import SLEPc


class Halting:
    """Reports the progress of an EPS; what the report raises ends the solve, and is raised once it has ended.

    Collective in use: the report raises on all ranks or on none.

    Parameters
    ----------
    report
        Called as report(eigenpairs converged) at every iteration.
    """

    def __init__(self, report: Callable[[int], None]):
        self._report = report
        self.error: Exception | None = None

    def watch(self, eps) -> None:
        """Report what this EPS does from now on. Logically collective."""
        eps.setMonitor(self.monitor)
        eps.setStoppingTest(self.stop)

    def monitor(self, eps, iterations, converged, *rest) -> None:
        """Tell how many pairs have converged. Collective."""
        if self.error is not None:
            return
        try:
            self._report(converged)
        except Exception as error:  # raised again by `settle`
            # Frames of its traceback hold the EPS, which would live on with them.
            self.error = error.with_traceback(None)

    def stop(self, eps, iterations, most, converged, wanted):
        """Return why to stop, as SLEPc's own test does, and where the report has asked for it. Not collective."""
        reason = SLEPc.EPS.ConvergedReason
        if self.error is not None:
            return reason.CONVERGED_USER
        if converged >= wanted:
            return reason.CONVERGED_TOL
        return reason.DIVERGED_ITS if iterations >= most else reason.CONVERGED_ITERATING

    def settle(self) -> None:
        """Raise what the report has raised. Collective."""
        if self.error is not None:
            raise self.error
