"""Arrays in files: positions, null vectors, guesses; rank 0 reads, and sends each rank its own part."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError, StackError, no_such_file
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, agreement, another_build, complex_scalars, on_root
from sparsehess.storage.array_archives import ArrayArchive, map_array
from sparsehess.storage.hdf5 import open_hdf5, read_array
from sparsehess.storage.matrix_formats import has_imaginary_part
from sparsehess.storage.memory_claims import require_memory


def read_coordinates(path: str | os.PathLike[str], layout: Layout) -> np.ndarray:
    """Return (n_local, d) rows of a .npy array of one row for every row of the layout.

    Collective. Rank 0 reads and sends each rank its own.

    Raises
    ------
    InputError
        The file is missing or no such array.
    """
    return _dealt_out(layout.comm, _load_coordinates, (path, layout.n), [slice(a, b) for a, b in _ranges(layout)])


def _load_coordinates(path: str | os.PathLike[str], n: int) -> np.ndarray:
    whole = _opened(path)
    if whole.ndim != 2 or whole.shape[0] != n or whole.dtype.kind not in "iuf":
        raise InputError(f"{path}: coordinates must be ({n}, directions) numbers, not {whole.shape}")
    return whole


def read_nodes(path: str | os.PathLike[str], layout: Layout) -> tuple[np.ndarray, int]:
    """Return positions (nodes, 2 or 3) of a .npy file of those nodes that have dofs here, and dofs per node.

    Collective. Nodes number the dofs, one node's after another's.

    Raises
    ------
    InputError
        The file is missing, no such array, or its nodes do not have 2 or 3 dofs each.
    """
    n = layout.n
    nodes = on_root(layout.comm, lambda: len(_load_nodes(path, n)))
    dims = n // nodes
    parts = [slice(a // dims, max(-(-b // dims), a // dims)) for a, b in _ranges(layout)]
    return _dealt_out(layout.comm, _load_nodes, (path, n), parts).astype(np.float64), dims


def _load_nodes(path: str | os.PathLike[str], n: int) -> np.ndarray:
    nodes = _opened(path)
    shape = nodes.shape
    good = len(shape) == 2 and shape[0] > 0 and shape[1] in (2, 3) and nodes.dtype.kind in "iuf"
    if not good or n not in (2 * shape[0], shape[1] * shape[0]):
        more = ""
        if good and n < shape[1] * shape[0]:
            more = f": {shape[0]} nodes have {shape[1] * shape[0]}; leave out the nodes that the matrix is without"
        raise InputError(
            f"{path}: positions must be (nodes, 2 or 3) numbers of nodes that have as many of the {n} dofs each, "
            f"not {shape}{more}"
        )
    require_memory(path, "its positions", 2 * nodes.nbytes)
    if not np.isfinite(nodes).all():
        raise InputError(f"{path}: positions must be finite")
    return nodes


def shape_of_positions(path: str | os.PathLike[str], comm: MPI.Comm) -> tuple[int, int]:
    """Return (nodes, 1 to 3) of a .npy file of positions.

    Collective.

    Raises
    ------
    InputError
        The file is missing or no such array.
    """
    nodes, dims = on_root(comm, lambda: _load_positions(path).shape)
    return nodes, dims


def read_positions(path: str | os.PathLike[str], comm: MPI.Comm, parts: list[slice]) -> np.ndarray:
    """Return the positions of some nodes of a .npy file; `parts` has those of each rank.

    Collective. Rank 0 reads and sends each rank its own.

    Raises
    ------
    InputError
        The file is missing, no such array, or has positions that are not finite.
    """
    return _dealt_out(comm, _load_positions, (path,), parts).astype(np.float64)


def _load_positions(path: str | os.PathLike[str]) -> np.ndarray:
    nodes = _opened(path)
    if nodes.ndim != 2 or not nodes.size or nodes.shape[1] not in (1, 2, 3) or nodes.dtype.kind not in "iuf":
        raise InputError(f"{path}: positions must be (nodes, 1 to 3) numbers, not {nodes.dtype} of {nodes.shape}")
    require_memory(path, "its positions", 2 * nodes.nbytes)
    if not np.isfinite(nodes).all():
        raise InputError(f"{path}: positions must be finite")
    return nodes


def read_indices(path: str | os.PathLike[str], comm: MPI.Comm) -> np.ndarray:
    """Return the whole numbers of a .npy file, on every rank.

    Collective.

    Raises
    ------
    InputError
        The file is missing, or holds anything else.
    """
    found = on_root(comm, lambda: load_array(path))
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise InputError(f"{path}: a list of whole numbers is needed, not {found.dtype} of shape {found.shape}")
    return found


def read_vectors(path: str | os.PathLike[str], layout: Layout, *, complex_ones: bool = False) -> np.ndarray:
    """Return (m, n_local) dense vectors of a .npz, .npy or .h5 file: null vectors, guesses.

    Collective. The file holds one array, (m, n) or (n, m), or one that is called `vectors`. Rank 0 reads and
    sends each rank its own.

    Parameters
    ----------
    complex_ones
        Whether they may be complex where PETSc's scalars are real, (m, 2n) of parts in turn among them.
    """
    parts = [(slice(None), slice(a, b)) for a, b in _ranges(layout)]
    return _dealt_out(layout.comm, _load_vectors, (Path(path), layout.n, complex_ones), parts)


def _load_vectors(path: Path, n: int, complex_ones: bool = False) -> np.ndarray:
    if not path.is_file():
        raise no_such_file(path)
    try:
        if path.suffix == ".h5":
            with open_hdf5(path) as file:
                name = _which(path, {name: item.shape for name, item in file.items() if hasattr(item, "shape")})
                array = read_array(path, file[name])
        elif path.suffix == ".npz":
            with closing(ArrayArchive(path)) as archive:
                array = archive[_which(path, {name: head.shape for name, head in archive.heads.items()})]
        else:
            mapped = map_array(path)
            require_memory(path, "its array", mapped.nbytes)
            array = np.atleast_2d(np.array(mapped))
    except (InputError, StackError):
        raise
    except Exception as error:  # whatever a damaged file makes a reader do
        raise InputError(f"{path}: damaged or not of its format: {' '.join(str(error).split())[:200]}") from error
    if complex_ones and array.ndim == 2 and array.shape[1] == 2 * n and array.dtype.kind == "f":
        array = np.ascontiguousarray(array, np.float64).view(np.complex128)
    if array.ndim != 2 or n not in array.shape:
        raise InputError(
            f"{path}: vectors of shape {array.shape} do not fit {n} variables: one row a vector, or one column"
        )
    array = array if array.shape[1] == n else array.T
    if array.dtype.kind == "c" and not complex_scalars() and not complex_ones:
        if has_imaginary_part(array):
            raise InputError(
                f"{path}: vectors must be real here, these are complex: they take {another_build(True)}"
            )
        array = array.real
    if array.dtype.kind not in "iufc" or not np.isfinite(array).all():
        raise InputError(f"{path}: vectors must be finite numbers: mend or leave out those that are not")
    return array.astype(np.complex128 if complex_ones else PETSc.ScalarType, copy=False)


def _which(path: Path, shapes: dict[str, tuple[int, ...] | None]) -> str:
    """Return the name of the array that holds the vectors."""
    found = [name for name, shape in shapes.items() if shape is not None and len(shape) == 2]
    if "vectors" in found:
        return "vectors"
    if len(found) != 1:
        raise InputError(f"{path}: expected one two-dimensional array, or one called vectors; found {found}")
    return found[0]


def load_array(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the array of a .npy file, sizes checked before memory is taken.

    Not collective.

    Raises
    ------
    InputError
        No such file, or it holds no array.
    """
    if not os.path.isfile(path):
        raise no_such_file(path)
    mapped = _opened(path)
    require_memory(path, "its array", mapped.nbytes)
    return np.array(mapped)


def _opened(path: str | os.PathLike[str]) -> np.ndarray:
    try:
        return map_array(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no .npy array: {error}; write one with numpy.save") from error


def _ranges(layout: Layout) -> list[tuple[int, int]]:
    return list(pairwise(layout.starts.tolist()))


def _dealt_out(comm: MPI.Comm, load: Callable[..., np.ndarray], arguments: tuple, parts: list) -> np.ndarray:
    """Return the part of this rank, of the array that rank 0 loads. Collective."""
    whole = part = np.empty(0)
    with agreement(comm):
        if comm.rank == 0:
            whole = load(*arguments)
    with agreement(comm):
        if comm.rank == 0:
            part = np.array(whole[parts[0]])
    for rank in range(1, comm.size):
        with agreement(comm):  # a piece that rank 0 has no memory for, or that the disk does not give
            if comm.rank == 0:
                piece = np.array(whole[parts[rank]])
        if comm.rank == 0:
            comm.send(piece, dest=rank)
        elif comm.rank == rank:
            part = comm.recv(source=0)
    return part
