"""Names of matrices: a file, or one of the matrices of a file, as `model.mat:K`."""

from __future__ import annotations

import os
from pathlib import Path

# Formats by suffix: those of ours and of libraries, and those of finite-element codes and of MATLAB.
_OWN = (".mtx", ".mtx.gz", ".npz", ".npy", ".petsc", ".h5")
CALCULIX = (".sti", ".mas", ".str", ".con", ".sph")
CARDS, LINES = (".pch", ".dmig", ".bdf"), (".txt", ".out", ".dat")
OF_CODES = (".mat", *CALCULIX, *CARDS, ".op4", ".op2", *LINES)
SUFFIXES = (*_OWN, *OF_CODES)

# Files of several matrices, of which one is named behind a colon.
_NAMED = (".mat", ".op4", ".op2", *CARDS)


def suffix_of(path: str | os.PathLike[str]) -> str | None:
    """Return the suffix of a matrix file, or None if it is none of `SUFFIXES`.

    Not collective.
    """
    name = split_name(path)[0].name.lower()
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(suffix)), None)


def split_name(path: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """Return the file, and the name of the matrix in it behind a colon, None where none is given.

    Not collective.

    Examples
    --------
    >>> from sparsehess.storage.matrix_address import split_name
    >>> split_name("model.mat:K")
    (PosixPath('model.mat'), 'K')
    >>> split_name("model.mat")
    (PosixPath('model.mat'), None)
    """
    place, colon, name = os.fspath(path).rpartition(":")
    if colon and name and place.lower().endswith(_NAMED):
        return Path(place), name
    return Path(path), None


def is_named_matrix(text: str) -> bool:
    """Return whether a text names one of the matrices of a file, rather than a problem. Not collective."""
    return split_name(text)[1] is not None


def files_of(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return the files that a matrix is read from: CalculiX has dofs in a file of their own.

    Not collective.
    """
    file = split_name(path)[0]
    return (file, file.with_suffix(".dof")) if suffix_of(file) in CALCULIX else (file,)
