"""What the service keeps from one job for the next: matrices, colourings, symbolic factorizations, eigenvectors.

Nothing kept is an answer. A matrix is the same where every byte of its file is; a colouring where the whole
pattern is and it was asked for in the same words; a symbolic factorization where all nonzeros are in the same
places. Eigenvectors are only where a solve begins, and only where an inertia count proves what it finds: those of
the last matrix of the same pattern.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.coloring import Coloring, color
from sparsehess.commands.resources import Resources
from sparsehess.runtime import on_root
from sparsehess.service.resident.kept_solvers import KeptSolvers
from sparsehess.service.resident.kept_values import KeptValues
from sparsehess.storage.matrix_address import files_of
from sparsehess.storage.matrix_files import StoredMatrix, read_matrix
from sparsehess.storage.matrix_formats import complex_where_real

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.eigen.problem.solve_spec import SolveSpec
    from sparsehess.eigen.problem.solver_pool import SolverPool
    from sparsehess.eigen.problem.spectrum import Spectrum
    from sparsehess.pattern import Pattern

_PIECE = 2**20

# Seconds within which a file may be written again and keep its date.
_RECENT = 2.0

# Files whose digests are remembered.
_FILES = 1_000


class WarmResources(Resources):
    """Keeps what jobs have needed, on the ranks of one group.

    Collective in all it does.

    Parameters
    ----------
    comm
        Of the group.
    most
        Bytes over all its ranks; 0 keeps nothing.

    Attributes
    ----------
    kept
        What is kept, under keys that begin with `matrix`, `coloring`, `solver` or `vectors`.
    """

    def __init__(self, comm: MPI.Comm, most: int):
        self.kept = KeptValues(most)
        self._comm = comm
        self._digests: OrderedDict[tuple[str, int, int, int], bytes] = OrderedDict()

    def close(self) -> None:
        """Free what is kept. Collective."""
        self.kept.close()

    def begin_job(self) -> None:
        """Free what the last job was the last to use. Collective."""
        self.kept.free_dropped()

    def read_matrix(
        self, path: str | os.PathLike[str], comm: MPI.Comm, *, one_triangle: bool = False, hermitian: bool = False
    ) -> StoredMatrix:
        """Return the matrix of a file, read only if no file of the same bytes was. Collective."""
        place = os.fspath(path)
        digest = on_root(comm, self._digest, place) if self.kept.most else b""
        key = ("matrix", place.rpartition(".")[2], digest, one_triangle)  # with the name of a matrix in the file
        stored = self.kept.get(key)
        if stored is not None:
            if stored.is_complex and not hermitian:
                raise complex_where_real(place)
            return replace(stored, origin=replace(stored.origin, path=place))
        stored = read_matrix(path, comm, one_triangle=one_triangle, hermitian=hermitian)
        # What was written while it was read is not what its digest stands for.
        same = bool(self.kept.most) and key[2] == on_root(comm, self._digest, place)
        size = (16 + stored.values.itemsize) * stored.pattern.nnz + 32 * stored.pattern.n
        if not (same and self.kept.keep(key, stored, size, stored.pattern.free)):
            self.kept.free_later(stored.pattern.free)
        return stored

    def free_matrix(self, stored: StoredMatrix) -> None:
        """Do nothing: what is not kept is freed with the next job."""

    def color(self, pattern: Pattern, **wanted: Any) -> Coloring:
        """Return the colouring of a pattern, searched only if none was for the same. Collective."""
        if not self.kept.most or wanted.get("lattice") is not None or pattern.quotient is not None:
            return color(pattern, **wanted)
        words = tuple(sorted((name, str(value)) for name, value in wanted.items()))
        key = ("coloring", self._pattern_digest(pattern), words)
        found = self.kept.get(key)
        if found is None:
            found = color(pattern, **wanted)
            self.kept.keep(key, found, 8 * pattern.n + 4096)
        return found

    def solver_pool(self) -> SolverPool:
        """Return what lends one problem the solvers of others with the same nonzeros. Not collective."""
        return KeptSolvers(self.kept) if self.kept.most else super().solver_pool()

    def add_guess(self, problem: EigenProblem, stored: StoredMatrix, spec: SolveSpec) -> None:
        """Start a solve that will be counted from the last vectors of a matrix of this pattern. Collective."""
        key = self._vectors_key(stored, spec)
        if key is None or problem.guess or spec.count == "no" or spec.options:
            return
        for row in self.kept.get(key) or ():
            vector = problem.A.createVecRight()
            vector.setArray(row)
            problem.guess.append(vector)
            problem.owned.append(vector)

    def keep_vectors(self, stored: StoredMatrix, spec: SolveSpec, spectrum: Spectrum) -> None:
        """Keep vectors that a count has certified. Collective."""
        key = self._vectors_key(stored, spec)
        if key is None or spectrum.count is None or not spectrum.count.certified:
            return
        rows = [vector.getArray(readonly=True).copy() for vector in spectrum.vectors]
        self.kept.keep(key, rows, 8 * stored.pattern.n * len(rows))

    def _vectors_key(self, stored: StoredMatrix, spec: SolveSpec) -> tuple[Any, ...] | None:
        inverts = spec.interval is None and spec.method in ("auto", "krylovschur") and spec.which == "smallest"
        if not (self.kept.most and inverts):
            return None
        return ("vectors", self._pattern_digest(stored.pattern), spec.k, spec.target)

    def _pattern_digest(self, pattern: Pattern) -> bytes:
        """Return a digest of a whole pattern and its layout, the same on every rank. Collective."""
        mine = hashlib.blake2b(digest_size=24)
        for array in (pattern.indptr, pattern.indices, pattern.layout.starts):
            mine.update(np.ascontiguousarray(array).data)
        return hashlib.blake2b(b"".join(self._comm.allgather(mine.digest())), digest_size=24).digest()

    def _digest(self, address: str) -> bytes:
        """Return a digest of the bytes that a matrix is read from, on the first rank; none without a file."""
        first, *beside = files_of(address)
        found = self._digest_of_file(os.fspath(first))
        return found and found + b"".join(self._digest_of_file(os.fspath(file)) for file in beside)

    def _digest_of_file(self, path: str) -> bytes:
        """Return a digest of a file's bytes; read again only where its date has changed."""
        try:
            facts = os.stat(path)
            known = (os.path.realpath(path), facts.st_size, facts.st_mtime_ns, facts.st_ino)
            if known in self._digests:
                return self._digests[known]
            digest = hashlib.blake2b(digest_size=24)
            with open(path, "rb") as stream:
                while piece := stream.read(_PIECE):
                    digest.update(piece)
        except OSError:
            return b""  # the reader will say what is wrong, as nothing is kept under it
        if abs(time.time() - facts.st_mtime) < _RECENT:
            return digest.digest()
        self._digests[known] = digest.digest()
        while len(self._digests) > _FILES:
            self._digests.popitem(last=False)
        return digest.digest()
