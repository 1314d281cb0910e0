"""PETSc matrices of a caller as those that all methods work with: stored by rows, or shells that fail together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from sparsehess.errors import EvaluationError, InputError, SparseHessError, words_of
from sparsehess.runtime import (
    UNSUPPORTED,
    PETSc,
    agreement,
    called_back,
    communicator,
    error_code,
    guard_of,
    raises_together,
)

# What has products alone, or whose entries only products tell.
_SHELLS = (
    "shell", "python", "mffd", "normal", "normalh", "transpose", "hermitiantranspose", "lrc", "composite",
    "scatter", "submatrix", "localref", "schurcomplement", "lmvm", "dummy",
)  # fmt: skip


def usable(matrix: PETSc.Mat, owned: list, name: str) -> PETSc.Mat:
    """Return an assembled Mat of a caller as AIJ, or as a shell whose products raise on all ranks or on none.

    Collective. One that is AIJ already, or a shell of this package, is returned as it is.

    Parameters
    ----------
    owned
        Gets the Mat if it is made here.
    name
        Of the matrix, for messages.

    Raises
    ------
    InputError
        A kind of matrix that PETSc does not make an AIJ of.
    """
    kind = re.sub("^(seq|mpi)", "", matrix.getType())
    if kind.startswith("aij"):
        return matrix
    if kind == "python" and raises_together(matrix.getPythonContext()):
        return matrix
    if kind.startswith(_SHELLS):
        of_blocks = kind == "python" and hasattr(matrix.getPythonContext(), "matmat")
        context = (_BlockShell if of_blocks else _Shell)(matrix, name)
        result = PETSc.Mat().createPython(matrix.getSizes(), context, comm=matrix.comm)
        result.setOption(PETSc.Mat.Option.HERMITIAN, True)
        result.setUp()
    else:
        try:
            result = matrix.convert("aij", PETSc.Mat())
        except (PETSc.Error, SystemError) as error:  # on all ranks alike
            code = error_code(error)
            if code is None:
                raise
            raise InputError(
                f"{name} is a PETSc matrix of type {matrix.getType()}, of which PETSc makes no AIJ (its error "
                f"{code}): give it as AIJ, or as a shell"
            ) from error
    owned.append(result)
    return result


class _Shell:
    """What PETSc calls for the products of a caller's shell."""

    def __init__(self, matrix: PETSc.Mat, name: str) -> None:
        self._matrix, self._name, self._comm = matrix, name, communicator(matrix.comm)

    @called_back
    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Set y to the product with x. Collective."""
        with agreement(self._comm), self.explained():
            self._matrix.mult(x, y)

    multTranspose = mult  # the name is PETSc's

    @called_back
    def getDiagonal(self, mat: PETSc.Mat, out: PETSc.Vec) -> None:
        """Set a vector to the diagonal, if the shell tells it. Collective."""
        lacking = 0  # PETSc's code, on all ranks alike
        with agreement(self._comm), self.explained():
            try:
                self._matrix.getDiagonal(out)
            except (PETSc.Error, SystemError) as error:
                lacking = error_code(error) or 0
                if lacking not in UNSUPPORTED:
                    raise
        if lacking:
            raise PETSc.Error(lacking)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Make what a function of the caller raises an EvaluationError."""
        try:
            with guard_of(self._comm).watch_call(f"a product of {self._name}, a shell"):
                yield
        except (SparseHessError, KeyboardInterrupt):
            raise
        except BaseException as error:
            code = error_code(error)
            cause = error.__cause__ if isinstance(error, SystemError) and error.__cause__ else error
            what = type(cause).__name__ if code is None else f"error {code} of PETSc"
            raise EvaluationError(
                f"{self._name}, a shell, raised {what} on rank {self._comm.rank}: {words_of(cause)}"
            ) from error


class _BlockShell(_Shell):
    """What is called of a caller's shell that multiplies with blocks."""

    def matmat(self, X: np.ndarray) -> np.ndarray:
        """Return the image (n_local, k) of a block. Collective."""
        with agreement(self._comm), self.explained():
            image = np.asarray(self._matrix.getPythonContext().matmat(X))
            if image.shape != X.shape:
                raise ValueError(f"matmat has returned an array of shape {image.shape} for one of {X.shape}")
        return image
