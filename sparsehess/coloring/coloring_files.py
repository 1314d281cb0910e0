"""Colourings on disk, with a fingerprint of the pattern they belong to.

A file is written and read a rank's rows at a time, so that no rank ever holds all.
"""

from __future__ import annotations

import json
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from mpi4py import MPI

import numpy as np

from sparsehess.coloring.coloring import Attempt, Coloring
from sparsehess.coloring.kinds import KINDS
from sparsehess.errors import InputError
from sparsehess.pattern import Pattern
from sparsehess.runtime import agreement, on_root, optional
from sparsehess.runtime.random_numbers import hash_numbers
from sparsehess.runtime.row_layout import offsets
from sparsehess.storage.array_archives import ArrayArchive
from sparsehess.storage.atomic_files import open_deferring_errors, write_file
from sparsehess.storage.hdf5 import create_hdf5, open_hdf5, require_chunks
from sparsehess.storage.json_files import json_text

_FORMAT = 1
_KEPT = ("count", "kind", "order", "rule", "seed", "lower_bound", "seconds")
_PIECE = 1 << 20  # entries hashed at a time
_TAG = 71


def fingerprint(pattern: Pattern) -> str:
    """Return 16 hexadecimal digits that depend on the structure alone, not on how ranks share it.

    Collective. The sum over all entries of a hash of row and column; structural zeros differ.
    """
    total, start = np.uint64(0), pattern.layout.start
    with np.errstate(over="ignore"):
        for first in range(0, pattern.nnz_local, _PIECE):
            last = min(first + _PIECE, pattern.nnz_local)
            rows = start + np.searchsorted(pattern.indptr, np.arange(first, last), side="right") - 1
            mixed = hash_numbers(rows, 1) ^ pattern.indices[first:last].astype(np.uint64)
            zeros = pattern.structural_zeros(np.arange(first, last))
            total += hash_numbers(mixed, 2).sum(dtype=np.uint64) + hash_numbers(mixed[zeros], 3).sum(
                dtype=np.uint64
            )
        parts = pattern.comm.allgather(int(total))
    return f"{(sum(parts) + pattern.n) % 2**64:016x}"


def save(path: str | Path, pattern: Pattern, coloring: Coloring, report: dict | None = None) -> None:
    """Write a colouring of this pattern to a file.

    Collective. Rank 0 writes, one rank's colours at a time.

    Parameters
    ----------
    path
        Ends with .npz or .h5.
    report
        Further facts to keep with it, as JSON.

    Raises
    ------
    InputError
        Another suffix.
    """
    path, comm = Path(path), pattern.comm
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: a colouring is stored in a file that ends with {' or '.join(FORMATS)}")
    facts = {
        "format": _FORMAT,
        "fingerprint": fingerprint(pattern),
        **{name: getattr(coloring, name) for name in _KEPT},
        "attempts": [asdict(attempt) for attempt in coloring.attempts],
        "report": report,
    }
    own = np.ascontiguousarray(coloring.colors, np.int32)
    if comm.rank:
        comm.Send(own, dest=0, tag=_TAG)
    with agreement(comm):
        if comm.rank == 0:
            sizes = enumerate(pattern.layout.counts.tolist())
            pieces = (own if rank == 0 else _receive(comm, rank, size) for rank, size in sizes)
            try:
                with write_file(path) as beside:
                    FORMATS[path.suffix].write(beside, json_text(facts), pattern.n, pieces)
            finally:
                deque(pieces, maxlen=0)  # the others have sent theirs, and wait until they are taken


def load(path: str | Path, pattern: Pattern) -> Coloring:
    """Return the colouring of this pattern from a file.

    Collective. Rank 0 reads, one rank's colours at a time. Any number of ranks may have written it.

    Raises
    ------
    InputError
        The file is no colouring, is damaged, or holds one of another pattern.
    """
    comm, path = pattern.comm, Path(path)
    colors = np.empty(pattern.layout.n_local, np.int32)
    facts = on_root(comm, _read_facts, path, fingerprint(pattern), pattern.n)
    sizes = pattern.layout.counts.tolist() if comm.rank == 0 else []
    pieces = FORMATS[path.suffix].pieces(path, sizes) if comm.rank == 0 else iter(())
    for rank in range(comm.size):
        with agreement(comm):  # a piece that rank 0 has no memory for, or that the disk does not give
            if comm.rank == 0:
                piece = next(pieces)
        if comm.rank == 0 and rank:
            comm.Send(piece, dest=rank, tag=_TAG)
        elif comm.rank == 0:
            colors[:] = piece
        elif comm.rank == rank:
            comm.Recv(colors, source=0, tag=_TAG)
    ghosts = pattern.exchange.halo(colors)[pattern.layout.n_local :]
    attempts = tuple(Attempt(**attempt) for attempt in facts["attempts"])
    return Coloring(pattern.layout, colors, ghosts, attempts=attempts, **{name: facts[name] for name in _KEPT})


def _read_facts(path: Path, here: str, n: int) -> dict:
    """Return the facts of a file whose fingerprint must be `here`, with n colours."""
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: a stored colouring ends with {' or '.join(FORMATS)}")
    try:
        text, stored = FORMATS[path.suffix].facts(path)
        facts = json.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no stored colouring: {error}; color -o writes one") from error
    if facts.get("format") != _FORMAT or facts.get("kind") not in KINDS:
        raise InputError(
            f"{path}: a colouring of format {facts.get('format')} and kind {facts.get('kind')} is unknown"
        )
    if facts["fingerprint"] != here:
        raise InputError(
            f"{path} holds a colouring of another pattern (fingerprint {facts['fingerprint']}, this pattern has "
            f"{here}): colour this one anew"
        )
    if stored != n:
        raise InputError(f"{path} is damaged: it holds {stored} of {n} colours")
    return facts


def _write_npz(path: Path, text: str, n: int, pieces: Iterable[np.ndarray]) -> None:
    with open_deferring_errors(path) as target, zipfile.ZipFile(target, "w") as archive:
        with archive.open("facts.npy", "w") as stream:
            np.lib.format.write_array(stream, np.array(text))
        with archive.open("colors.npy", "w", force_zip64=True) as stream:
            header = {"descr": "<i4", "fortran_order": False, "shape": (n,)}
            np.lib.format.write_array_header_1_0(stream, header)
            for piece in pieces:
                stream.write(piece.astype("<i4", copy=False).tobytes())


def _facts_npz(path: Path) -> tuple[str, int]:
    with closing(ArrayArchive(path)) as archive:
        head = archive.heads["colors"]
        if head.dtype != np.dtype("<i4") or len(head.shape) != 1:
            raise ValueError(f"colours of {head.dtype}, {head.shape}")
        return str(archive["facts"]), head.count


def _pieces_npz(path: Path, sizes: list[int]) -> Iterator[np.ndarray]:
    with closing(ArrayArchive(path)) as archive, archive.entries("colors") as stream:
        for size in sizes:
            yield stream.read(size).astype(np.int32)


def _write_h5(path: Path, text: str, n: int, pieces: Iterable[np.ndarray]) -> None:
    with create_hdf5(path) as file:
        file.attrs["json"] = text
        colors = file.create_dataset("colors", (n,), np.int32)
        first = 0
        for piece in pieces:
            colors[first : first + len(piece)] = piece
            first += len(piece)


def _facts_h5(path: Path) -> tuple[str, int]:
    with open_hdf5(path) as file:
        colors = file["colors"]
        if colors.ndim != 1 or colors.dtype.kind not in "iu":
            raise ValueError(f"colours of {colors.dtype}, {colors.shape}")
        require_chunks(path, colors)
        return file.attrs["json"], len(colors)


def _pieces_h5(path: Path, sizes: list[int]) -> Iterator[np.ndarray]:
    with optional("h5py", "an .h5 file", "hdf5").File(path) as file:
        for first, size in zip(offsets(np.array(sizes)), sizes, strict=True):
            yield file["colors"][first : first + size]


class _Format(NamedTuple):
    """How a kind of file is written, what it says of itself, and its colours, some at a time."""

    write: Callable[[Path, str, int, Iterable[np.ndarray]], None]
    facts: Callable[[Path], tuple[str, int]]
    pieces: Callable[[Path, list[int]], Iterator[np.ndarray]]


FORMATS = {
    ".npz": _Format(_write_npz, _facts_npz, _pieces_npz),
    ".h5": _Format(_write_h5, _facts_h5, _pieces_h5),
}


def _receive(comm: MPI.Comm, rank: int, size: int) -> np.ndarray:
    piece = np.empty(size, np.int32)
    comm.Recv(piece, source=rank, tag=_TAG)
    return piece
