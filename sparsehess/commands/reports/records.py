"""Records: all that a page tells of a run, on rank 0; gathered from the run, or read from a stored result."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.commands.reports.pictures import colored_corner, pattern_picture
from sparsehess.commands.reports.structures import (
    MODES,
    Structure,
    gather_modes,
    gather_structure,
    read_modes,
    structure_of,
)
from sparsehess.derivatives.geometry import Geometry
from sparsehess.errors import InputError, StackError
from sparsehess.storage import array_files
from sparsehess.storage.array_archives import ArrayArchive
from sparsehess.storage.hdf5 import open_hdf5
from sparsehess.storage.memory_claims import bytes_of

if TYPE_CHECKING:
    from sparsehess.coloring import Coloring
    from sparsehess.commands.call import Call
    from sparsehess.commands.inputs import Input
    from sparsehess.pattern import Pattern
    from sparsehess.runtime import PETSc

# Squares of a picture of a matrix, along each side, and what a square of a stored one holds at most.
_BINS, _MOST = 200, 2**16 - 1

# Rows and columns of which colours are shown.
_CORNER = 120

# Stored arrays that a page shows, and of how many dimensions they are.
_ARRAYS = {
    "picture": 2,
    "picture_colors": 2,
    "nodes": 2,
    "node_variables": 2,
    "node_species": 1,
    "faces": 2,
    "edges": 2,
}

# Numbers that such an array has at most.
_LARGEST = 10**6

# Tasks whose results a page shows.
_TASKS = ("eigs", "density", "color", "assemble", "spectrum")


@dataclass(frozen=True, eq=False, kw_only=True)
class Record:
    """What a page tells of a run.

    Attributes
    ----------
    facts
        Its JSON.
    answer
        The lines for people; empty where they are not known.
    picture, colors
        Of the pattern: how many entries are in each square, and the colours of the first rows and columns entry by
        entry, -1 for none.
    structure, modes
        What vibrates, and (k, m, 3) how the first modes move its nodes.
    lacks
        What is not known of the run, in words.
    """

    facts: dict[str, Any]
    answer: str = ""
    picture: np.ndarray | None = None
    colors: np.ndarray | None = None
    structure: Structure | None = None
    modes: np.ndarray | None = None
    lacks: tuple[str, ...] = ()

    def kept_facts(self) -> dict[str, Any]:
        """Return the JSON that a stored result keeps. Not collective."""
        geometry = None if self.structure is None else self.structure.facts()
        return {**self.facts, "answer": self.answer, "geometry": geometry}

    def kept_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that a stored result keeps beside its vectors. Not collective."""
        found = {} if self.structure is None else self.structure.arrays()
        if self.picture is not None:
            found["picture"] = np.minimum(self.picture, _MOST).astype(np.uint16)
        if self.colors is not None:
            found["picture_colors"] = self.colors.astype(np.int32)
        return found


def gather_record(
    call: Call,
    facts: dict[str, Any],
    answer: str,
    *,
    pattern: Pattern | None = None,
    coloring: Coloring | None = None,
    given: Input | None = None,
    vectors: Sequence[PETSc.Vec] = (),
) -> Record:
    """Return the record of a run that --out or --report asks for; on other ranks than the first it has no arrays.

    Collective. Nothing of the size of the problem is gathered.

    Parameters
    ----------
    coloring
        Of the pattern.
    given, vectors
        What was solved, and the eigenvectors.
    """
    wanted = any(getattr(call.arguments, name, None) is not None for name in ("out", "report"))
    if not wanted:
        return Record(facts=facts, answer=answer)
    picture = None if pattern is None else pattern_picture(pattern, _BINS)
    colors = None if pattern is None or coloring is None else colored_corner(pattern, coloring, _CORNER)
    structure = None if given is None or not vectors else gather_structure(*_geometry(call, given), call.comm)
    modes = gather_modes(structure, vectors, call.comm)
    return Record(facts=facts, answer=answer, picture=picture, colors=colors, structure=structure, modes=modes)


def _geometry(call: Call, given: Input) -> tuple[Geometry | None, bool]:
    """Return where the variables are, and whether each rank has its own part of that. Collective."""
    if given.hessian is not None:
        objective = given.hessian.objective
        return objective.geometry, objective.distributed
    path = call.arguments.coordinates
    if path is None:
        return None, False
    layout = given.layout
    nodes, dims = array_files.read_nodes(path, layout)
    first = layout.start // dims
    variables = dims * np.arange(first, first + len(nodes))[:, None] + np.arange(dims)
    own = variables[:, 0] >= layout.start  # a node of two ranks is the first one's
    return Geometry(nodes[own], variables[own]), True


@contextmanager
def page_record(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Yield the record of a stored result; what the block makes of it raises InputError if the file is to blame.

    Not collective: rank 0 reads. Nothing is unpickled, and one vector is held at a time of an .h5 file.

    Raises
    ------
    InputError
        The file is none that `eigs -o`, `density -o` or `color -o` has written.
    """
    path = Path(path)
    with _opened(path) as (text, arrays):
        facts = json.loads(text)
        if isinstance(facts, dict) and isinstance(facts.get("report"), dict):
            facts = facts["report"]  # of a stored colouring
        if not isinstance(facts, dict) or facts.get("task") not in _TASKS:
            raise InputError(f"{path}: no result of sparsehess that a report can be made of")
        structure, modes = None, None
        if isinstance(facts.get("geometry"), dict):
            structure = structure_of(arrays, facts["geometry"], facts["n"])
            rows = arrays["vectors"]
            modes = read_modes(structure, (np.asarray(rows[number]) for number in range(min(len(rows), MODES))))
        yield Record(
            facts=facts,
            answer=str(facts.get("answer", "")),
            picture=arrays.get("picture"),
            colors=arrays.get("picture_colors"),
            structure=structure,
            modes=modes,
            lacks=tuple(_lacking(facts, arrays)),
        )


def _lacking(facts: dict[str, Any], arrays: dict[str, Any]) -> Iterator[str]:
    """Yield what a stored result says nothing of."""
    if "run" not in facts:
        yield "command line, seed and date (an older version, or Spectrum.save, has written the file)"
    if not facts.get("timings"):
        yield "seconds of the stages"
    if "versions" not in facts:
        yield "versions"
    if "picture" not in arrays:
        yield "picture of the pattern"
    if facts["task"] in ("eigs", "spectrum") and not facts.get("geometry"):
        yield "positions of atoms or nodes, without which modes are not drawn"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the JSON of a stored result, and its arrays; vectors are read row by row."""
    with ExitStack() as stack:
        try:
            if path.suffix == ".h5":
                file = stack.enter_context(closing(open_hdf5(path)))
                text = str(file.attrs["json"])
            elif path.suffix == ".npz":
                if not path.is_file():
                    raise InputError(f"{path}: no such file")
                file = stack.enter_context(closing(ArrayArchive(path)))
                text = str(file["json" if "json" in file else "facts"])
            else:
                raise InputError(f"{path}: a result is an .h5 or .npz file")
            arrays: dict[str, Any] = {}
            for name, dims in _ARRAYS.items():
                if name in file:
                    head = file.heads[name] if isinstance(file, ArrayArchive) else file[name]
                    if bytes_of(head.shape, 1) > _LARGEST:
                        raise ValueError(f"{name} is larger than what is drawn")
                    arrays[name] = file[name][()]
                    if arrays[name].ndim != dims or arrays[name].dtype.kind not in "fiu":
                        raise ValueError(f"{name} is no array of numbers in {dims} dimensions")
            if "vectors" in file:
                arrays["vectors"] = file["vectors"]
            yield text, arrays
        except (InputError, StackError):
            raise
        except Exception as error:  # whatever a damaged file makes a reader do
            told = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: no result of sparsehess that a report can be made of ({told})") from error
