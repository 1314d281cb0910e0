"""What a host reads of the last solve and of the last count: written to its memory, at addresses that it gives."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from sparsehess.errors import InputError
from sparsehess.hosts.capi.host_memory import array_at, write_at

if TYPE_CHECKING:
    from sparsehess.eigen.problem.spectrum import Spectrum
    from sparsehess.operators.eigenvalues import Inertia


class Answers:
    """The spectrum of the last solve, the last counts, and how often the host's functions were called."""

    def __init__(self) -> None:
        self._spectrum: Spectrum | None = None
        self._inertia: Inertia | None = None
        self._calls = {"gradient": 0, "hvp": 0}

    def _answer(self) -> Spectrum:
        if self._spectrum is None:
            raise InputError("there are no answers: no solve has ended with any")
        return self._spectrum

    def get_converged(self, address: int) -> None:
        """Write how many pairs there are. Not collective."""
        write_at(address, self._answer().converged, ctypes.c_int)

    def get_eigenvalues(self, address: int) -> None:
        """Write the eigenvalues. Not collective."""
        values = self._answer().eigenvalues
        array_at(address, len(values))[:] = values

    def get_residuals(self, address: int) -> None:
        """Write the backward errors. Not collective."""
        errors = self._answer().residuals
        array_at(address, len(errors))[:] = errors

    def get_vectors(self, first: int, many: int, address: int) -> None:
        """Write local pieces of vectors, one after another. Not collective."""
        vectors = self._answer().vectors
        if first < 0 or many < 0 or first + many > len(vectors):
            raise InputError(f"there are {len(vectors)} vectors, not {many} from number {first}")
        pieces = [vector.getArray(readonly=True) for vector in vectors[first : first + many]]
        out = array_at(address, sum(map(len, pieces))).reshape(many, len(pieces[0]) if pieces else 0)
        for row, piece in zip(out, pieces, strict=True):
            row[:] = piece

    def get_certified(self, address: int) -> None:
        """Write whether a count has confirmed the answers. Not collective."""
        count = self._answer().count
        write_at(address, int(count is not None and count.certified), ctypes.c_int)

    def get_count(self, inertia: int, found: int) -> None:
        """Write the count by inertia and what was found there, -1 for none. Not collective."""
        count = self._answer().count
        write_at(inertia, -1 if count is None else count.inertia, ctypes.c_int64)
        write_at(found, -1 if count is None else count.found, ctypes.c_int64)

    def get_evaluations(self, gradients: int, products: int) -> None:
        """Write how often the host's functions were called so far. Not collective."""
        write_at(gradients, self._calls["gradient"], ctypes.c_int64)
        write_at(products, self._calls["hvp"], ctypes.c_int64)

    def get_inertia(self, negative: int, zero: int, positive: int, infinite: int) -> None:
        """Write the counts of the last `count_inertia`. Not collective."""
        found = self._counted()
        for address, count in (
            (negative, found.negative),
            (zero, found.zero),
            (positive, found.positive),
            (infinite, found.infinite),
        ):
            write_at(address, count, ctypes.c_int64)

    def get_inertia_certified(self, address: int) -> None:
        """Write whether two factorizations agree on the counts of the last `count_inertia`. Not collective."""
        write_at(address, int(self._counted().certified), ctypes.c_int)

    def _counted(self) -> Inertia:
        if self._inertia is None:
            raise InputError("there are no counts: count_inertia comes first")
        return self._inertia

    def _forget_spectrum(self) -> None:
        if self._spectrum is not None:
            self._spectrum.close()
            self._spectrum = None
