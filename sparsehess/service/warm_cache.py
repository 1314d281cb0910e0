"""What the service keeps from one job for the next: matrices, colourings, symbolic factorizations, eigenvectors.

Nothing kept is an answer. A matrix is the same where every byte of its file is; a colouring where the whole
pattern is and it was asked for in the same words; a symbolic factorization where all nonzeros are in the same
places; eigenvectors are only where a solve begins, and only where an inertia count proves what it finds: those of
the last matrix of the same pattern. What was used longest ago goes first.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from dataclasses import replace

import numpy as np

from sparsehess.coloring import Coloring, color
from sparsehess.commands.resources import Provision
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solver_pool import Supply
from sparsehess.eigen.problem.spectrum import SolveSpec, Spectrum
from sparsehess.pattern import Pattern
from sparsehess.runtime import on_root
from sparsehess.service.kept_solvers import Kept, Solvers
from sparsehess.storage.matrix_files import StoredMatrix, read_matrix

_PIECE = 2**20

# Seconds within which a file may be written again and keep its date.
_RECENT = 2.0


class Warm(Provision):
    """Keeps what jobs have needed, on the ranks of one group.

    Collective in all it does.

    Parameters
    ----------
    comm
        Of the group.
    most
        Bytes over all its ranks; 0 keeps nothing.
    """

    def __init__(self, comm, most: int):
        self._comm, self._most, self._size = comm, most, 0
        # Values and the bytes they take, the last used at the end; the same keys in the same order on every rank.
        self._kept: OrderedDict[tuple, tuple[object, int]] = OrderedDict()
        self._digests: OrderedDict[tuple, bytes] = OrderedDict()
        self._used: dict[int, tuple] = {}  # keys of the matrices that the present job has
        self._doomed: list[Pattern | Kept] = []
        self.hits = {"matrix": 0, "coloring": 0, "solver": 0, "vectors": 0}

    def close(self) -> None:
        """Free what is kept. Collective."""
        while self._kept:
            self._drop(next(iter(self._kept)))
        self.begin()

    def begin(self) -> None:
        """Get ready for another job: what the last one was the last to use is freed. Collective."""
        self._used.clear()
        for value in self._doomed:
            value.free()
        self._doomed.clear()

    # --- matrices ---

    def matrix(self, path, comm) -> StoredMatrix:
        """Return the matrix of a file, read only if no file of the same bytes was. Collective."""
        if not self._most:
            stored = read_matrix(path, comm)
            self._doomed.append(stored.pattern)
            return stored
        key = ("matrix", str(path).rpartition(".")[2], on_root(comm, self._digest, os.fspath(path)))
        stored = self.take(key)
        if stored is None:
            stored = read_matrix(path, comm)
            # What was written while it was read is not what its digest stands for.
            if key[2] == on_root(comm, self._digest, os.fspath(path)):
                self.keep(key, stored, 24 * stored.pattern.nnz + 32 * stored.pattern.n)
        else:
            stored = replace(stored, path=str(path))
        self._used[id(stored)] = key
        if key not in self._kept:
            self._doomed.append(stored.pattern)
        return stored

    def release(self, stored: StoredMatrix) -> None:
        """Do nothing: `begin` frees what is not kept."""

    def _digest(self, path: str) -> bytes:
        """Return a digest of a file's bytes, on the first rank; read again only where its date has changed."""
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
        while len(self._digests) > 10_000:
            self._digests.popitem(last=False)
        return digest.digest()

    # --- colourings ---

    def coloring(self, pattern: Pattern, **asked) -> Coloring:
        """Return the colouring of a pattern, searched only if none was for the same. Collective."""
        if not self._most or asked.get("lattice") is not None or pattern.quotient is not None:
            return color(pattern, **asked)
        words = tuple(sorted((name, str(value)) for name, value in asked.items()))
        key = ("coloring", self._pattern_digest(pattern), words)
        found = self.take(key)
        if found is None:
            found = color(pattern, **asked)
            self.keep(key, found, 8 * pattern.n + 4096)
        return found

    def _pattern_digest(self, pattern: Pattern) -> bytes:
        """Return a digest of a whole pattern and its layout, the same on every rank. Collective."""
        mine = hashlib.blake2b(np.ascontiguousarray(pattern.indptr), digest_size=24)
        mine.update(np.ascontiguousarray(pattern.indices))
        mine.update(np.ascontiguousarray(pattern.layout.starts))
        return hashlib.blake2b(b"".join(self._comm.allgather(mine.digest())), digest_size=24).digest()

    # --- solvers ---

    def solvers(self) -> Supply:
        """Return what lends one problem the solvers of others with the same nonzeros. Not collective."""
        return Solvers(self) if self._most else Supply()

    # --- eigenvectors ---

    def prepare(self, problem: EigenProblem, stored: StoredMatrix, spec: SolveSpec) -> None:
        """Start a solve that will be counted from the last vectors of a matrix of this pattern. Collective."""
        key = self._vectors_key(stored, spec)
        if key is None or problem.guess or spec.count == "no" or spec.options:
            return
        for row in self.take(key) or ():
            vector = problem.A.createVecRight()
            vector.setArray(row)
            problem.guess.append(vector)
            problem.owned.append(vector)

    def learn(self, stored: StoredMatrix, spec: SolveSpec, spectrum: Spectrum) -> None:
        """Keep vectors that a count has certified. Collective."""
        key = self._vectors_key(stored, spec)
        if key is None or spectrum.count is None or not spectrum.count.certified:
            return
        rows = [vector.getArray(readonly=True).copy() for vector in spectrum.vectors]
        self.keep(key, rows, 8 * stored.pattern.n * len(rows))

    def _vectors_key(self, stored: StoredMatrix, spec: SolveSpec) -> tuple | None:
        inverts = spec.interval is None and spec.method in ("auto", "krylovschur") and spec.which == "smallest"
        if not (self._most and inverts):
            return None
        return ("vectors", self._pattern_digest(stored.pattern), spec.k, spec.target)

    # --- what is kept ---

    @property
    def largest(self) -> int:
        """Bytes over all ranks of the largest value that is kept."""
        return self._most // 2

    def take(self, key: tuple):
        """Return what is kept, None if nothing is. Not collective."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        self.hits[key[0]] += 1
        return self._kept[key][0]

    def keep(self, key: tuple, value, size: int) -> bool:
        """Keep a value of so many bytes over all ranks, for which others may have to go; say whether it is kept.

        Not collective.
        """
        if size > self.largest or b"" in key:
            return False
        if key in self._kept:
            self._drop(key)
        self._kept[key] = (value, size)
        self._size += size
        while self._size > self._most:
            self._drop(next(iter(self._kept)))
        return True

    def hand_out(self, key: tuple):
        """Return what is kept, and keep it no longer; None if nothing is. Not collective."""
        value = self.take(key)
        if value is not None:
            self._size -= self._kept.pop(key)[1]
        return value

    def _drop(self, key: tuple) -> None:
        value, size = self._kept.pop(key)
        self._size -= size
        # Destroyed with the next job: this one may be using it.
        if isinstance(value, StoredMatrix):
            self._doomed.append(value.pattern)
        elif isinstance(value, Kept):
            self._doomed.append(value)
