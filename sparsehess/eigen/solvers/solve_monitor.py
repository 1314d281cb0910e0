"""What is done between the iterations of a solve: progress, saving, an end before its time.

An error inside of a callback would leave SLEPc's work vectors behind: it ends the solve, and is raised afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI

from sparsehess.runtime import PETSc, SLEPc, agreement, forget_frames, has_failed

# Called on every rank as on_progress(converged, wanted).
OnProgress = Callable[[int, int], None]

# Called between iterations as on_restart(basis), where basis() copies the vectors that the solver searches in. The
# error that it returns ends the solve.
OnRestart = Callable[[Callable[[], list[PETSc.Vec]]], BaseException | None]


def ignore_progress(converged: int, wanted: int) -> None:
    """Do nothing. Not collective."""


class AgreedProgress:
    """Progress that is told to a caller's function on every rank: what it raises on one is raised on all.

    Parameters
    ----------
    comm
        The ranks.
    tell
        The function.
    """

    def __init__(self, comm: MPI.Comm, tell: OnProgress) -> None:
        self._comm, self._tell = comm, tell

    def __call__(self, converged: int, wanted: int) -> None:
        """Tell how many of the wanted have converged. Collective."""
        with agreement(self._comm):
            self._tell(converged, wanted)


def ignore_restart(basis: Callable[[], list[PETSc.Vec]]) -> None:
    """Save nothing, and go on. Not collective."""


class SolveMonitor:
    """Monitor and stopping test of one solve by SLEPc. Collective in use.

    Parameters
    ----------
    on_progress
        What it raises, on all ranks or on none, ends the solve.
    on_restart
        The error that it returns ends the solve.
    k
        How many pairs are wanted.

    Attributes
    ----------
    error
        The error that ends the solve, for `raise_error`.
    """

    def __init__(self, on_progress: OnProgress, on_restart: OnRestart, k: int):
        self.on_progress, self.on_restart, self.k = on_progress, on_restart, k
        self.error: BaseException | None = None

    def attach(self, eps: SLEPc.EPS) -> None:
        """Monitor a solver from now on. Logically collective."""
        eps.setMonitor(self.monitor)
        eps.setStoppingTest(self.stop)

    def monitor(self, eps: SLEPc.EPS, iterations: int, converged: int, values: list, errors: list) -> None:
        """Report how far the solver is. Collective."""
        if self.error is not None or has_failed():
            return
        try:
            self.on_progress(min(converged, self.k), self.k)
        except BaseException as error:
            # Frames of its traceback hold the EPS, which would live on with them.
            self.error = forget_frames(error)
            return
        self.error = self.on_restart(lambda: self.basis(eps, converged))

    def basis(self, eps: SLEPc.EPS, converged: int) -> list[PETSc.Vec]:
        """Return copies of the vectors of the basis that are in use. Collective."""
        return copy_columns(eps.getBV(), eps.getBV().getActiveColumns()[1])

    def stop(self, eps: SLEPc.EPS, iterations: int, most: int, converged: int, wanted: int) -> int:
        """Return SLEPc's reason to end, as its own test does, or that an error does it. Not collective."""
        reason = SLEPc.EPS.ConvergedReason
        if self.error is not None or has_failed():
            return reason.CONVERGED_USER
        if converged >= wanted:
            return reason.CONVERGED_TOL
        return reason.DIVERGED_ITS if iterations >= most else reason.CONVERGED_ITERATING

    def raise_error(self) -> None:
        """Raise the error that has ended the solve, if one has. Collective."""
        if self.error is not None:
            raise self.error


def copy_columns(basis: SLEPc.BV, count: int) -> list[PETSc.Vec]:
    """Return copies of the first columns of a basis.

    Collective. The caller destroys them.
    """
    found = []
    for number in range(count):
        column = basis.getColumn(number)
        found.append(column.copy())
        basis.restoreColumn(number, column)
    return found
