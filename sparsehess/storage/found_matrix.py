"""What a reader has found in a file of a finite-element code: the matrix, its rows, and words for both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.storage.dof_labels import Labels

# Names of a file that are told.
_TOLD = 12

# What ends the words of a matrix of which one triangle is stored.
_COMPLETED = "and completed"

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Found:
    """The matrix of a file, as it is stored or completed.

    Attributes
    ----------
    matrix
        Sparse or dense, (m, n) of any numbers.
    form
        What the file is, in words; empty for formats that are named by their suffix.
    said
        What is to be said of how it was read, a sentence each.
    labels
        Of the rows, None where the file has none.
    sized
        Whether the file says how many rows there are; else they reach to the last entry.
    text
        Whether its numbers were rounded to decimals when they were written.
    completed
        Whether one triangle is stored, and was taken for one of a symmetric matrix.
    """

    matrix: Any
    form: str = ""
    said: tuple[str, ...] = ()
    labels: Labels | None = None
    sized: bool = True
    text: bool = False
    completed: bool = False

    def told(self) -> tuple[str, ...]:
        """Return what was found, a sentence each. Not collective."""
        if not self.form:
            return self.said
        rows, columns = self.matrix.shape
        entries = self.matrix.nnz if scipy.sparse.issparse(self.matrix) else rows * columns
        order = "rows in the order of the file" if self.labels is None else self.labels.told()
        return (f"{self.form}: {rows} x {columns}, {entries} entries; {order}", *self.said)


def symmetric_of(path: Path, entries: scipy.sparse.coo_matrix) -> tuple[scipy.sparse.csr_matrix, str]:
    """Return a symmetric matrix of which one triangle or both are stored, and which.

    Not collective. Entries that stand in for one place are summed. What is stored of both stays as it is.

    Raises
    ------
    InputError
        It is not square.
    """
    if entries.shape[0] != entries.shape[1]:
        raise InputError(
            f"{path}: a stiffness or mass matrix is square; this one is {entries.shape[0]} x {entries.shape[1]}"
        )
    lower = bool(((entries.row > entries.col) & (entries.data != 0)).any())
    upper = bool(((entries.row < entries.col) & (entries.data != 0)).any())
    stored = entries.tocsr()
    if lower == upper:
        return stored, "both triangles stored" if lower else "a diagonal"
    beside = scipy.sparse.triu(stored, 1) if upper else scipy.sparse.tril(stored, -1)
    return (stored + beside.T).tocsr(), f"its {'upper' if upper else 'lower'} triangle stored, {_COMPLETED}"


def is_completed(words: str) -> bool:
    """Return whether words of a reader say that one triangle stands for a symmetric matrix. Not collective."""
    return words.endswith(_COMPLETED)


def choose_matrix(
    path: Path, held: Mapping[str, T], name: str | None, suffix: str, several: Collection[str] = ()
) -> tuple[str, T]:
    """Return the name and the value of the matrix that is asked for; without a name there must be one.

    Not collective.

    Raises
    ------
    InputError
        There is none of this name, or there are several, or this one stands in the file several times.
    """
    if not held:
        raise InputError(f"{path}: no matrix in it{suffix}")
    if name is None:
        if len(held) > 1:
            raise InputError(f"{path} holds {_listed(held)}: name one, as {path}:{next(iter(held))}")
        name = next(iter(held))
    same = {key.lower(): key for key in held}
    key = name if name in held else same.get(name.lower())
    if key is None:
        raise InputError(f"{path}: no matrix {name} in it; it holds {_listed(held)}")
    if key in several:
        raise InputError(f"{path}: {key} stands there several times: leave one")
    return key, held[key]


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_TOLD]) + (f" and {len(names) - _TOLD} more" if len(names) > _TOLD else "")


def in_range(path: Path, numbers: np.ndarray, first: int, last: int, what: str) -> None:
    """Raise InputError for whole numbers outside a range. Not collective."""
    if len(numbers) and (numbers.min() < first or numbers.max() > last):
        bad = numbers.min() if numbers.min() < first else numbers.max()
        raise InputError(f"{path}: {what} {bad} is outside {first} to {last}: damaged")
