"""`animate_mode`: a mode that moves, as a .gif or as pictures .png one after another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.derivatives.units import Units
from sparsehess.errors import InputError
from sparsehess.mechanics.buckling import Buckling
from sparsehess.mechanics.complex_modes import DampedModes
from sparsehess.mechanics.complex_shapes import farthest
from sparsehess.mechanics.mesh_surfaces import drawn_faces, drawn_lines
from sparsehess.mechanics.mode_files import (
    as_mode_mesh,
    check_scale,
    facts_of,
    gather_mode,
    real_mode,
    record_of,
    scaled_motion,
    vectors_of,
)
from sparsehess.mechanics.mode_mesh import ModeMesh
from sparsehess.runtime import agreement, optional
from sparsehess.storage.atomic_files import write_file
from sparsehess.storage.writers import check_writable

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.eigen.problem.spectrum import Spectrum

SUFFIXES = (".gif", ".png")

# Pictures of a half swing, from one end to the other; and milliseconds that each is shown.
_HALF, _MILLISECONDS = 12, 60

# Largest translation that is drawn, in parts of the size of the structure.
_DRAWN = 0.1

# Faces and lines that are drawn at most; of more, every so manieth.
_MOST = 30_000

# Size of a picture in inches, and dots per inch.
_SIZE, _DOTS = (6.4, 4.8), 110


def animate_mode(
    path: str | os.PathLike[str],
    found: Spectrum | Buckling | DampedModes,
    mesh: Any,
    dofs: str | None = None,
    *,
    mode: int = 1,
    fixed: Any = None,
    free: Any = None,
    fixed_sets: Sequence[str] = (),
    units: Units | None = None,
    scale: float | None = None,
) -> None:
    """Draw a mode that swings, coloured by how far nodes move, on the structure at rest.

    *Collective.* Rank 0 draws, with matplotlib.

    Parameters
    ----------
    path
        Its name ends with .gif, or with .png: then there are pictures NAME_01.png, NAME_02.png, … of one swing.
    found
        Answer of `eigs`, `buckling` or `damped_modes`. Of the last Re(x exp(iωt)) is drawn, ω = Im λ: one swing
        as it would be without its decay or growth, in which nodes need not pass their places at one time.
    mesh, dofs, fixed, free, fixed_sets
        As for `write_modes`.
    mode
        Which, from 1.
    units
        What eigenvalues mean as frequencies, for the title.
    scale
        Largest translation that is drawn, in the units of the mesh; default a tenth of its size.

    Raises
    ------
    InputError
        There is no such mode, or see `write_modes`.
    StackError
        matplotlib or meshio is missing.

    Examples
    --------
    >>> import os, tempfile
    >>> import meshio
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> K = np.array([[2.0, -1.0], [-1.0, 1.0]])
    >>> rod = meshio.Mesh([[0.0], [1.0], [2.0]], {"line": [[0, 1], [1, 2]]})
    >>> with tempfile.TemporaryDirectory() as folder, sh.eigs(K, 2) as found:
    ...     sh.animate_mode(os.path.join(folder, "mode2.gif"), found, rod, "y", mode=2, fixed=[0])
    ...     os.listdir(folder)
    ['mode2.gif']
    """
    vectors, comm = vectors_of(found)
    check_writable(path, SUFFIXES, comm)
    made: ModeMesh | None = None
    with agreement(comm):
        if comm.rank == 0:
            made = as_mode_mesh(mesh, dofs, fixed=fixed, free=free, fixed_sets=fixed_sets)
            if vectors:
                made.check(vectors[0][0].getSize())
    check_mode(mode, len(vectors))
    draw_mode(path, made, facts_of(found, units), gather_mode(vectors[mode - 1], comm), comm, mode, scale)


def check_mode(mode: int, found: int) -> None:
    """Refuse a mode that was not found. Not collective; alike on all ranks."""
    if not 1 <= mode <= found:
        raise InputError(f"mode {mode} is not there: {found} were found, counted from 1")


def draw_mode(
    path: str | os.PathLike[str],
    mesh: ModeMesh | None,
    facts: dict[str, Any],
    vector: np.ndarray,
    comm: MPI.Comm,
    mode: int,
    scale: float | None,
) -> None:
    """Draw a mode of which the JSON of a run tells; see `animate_mode`.

    Collective.

    Parameters
    ----------
    mesh, vector
        (n,) entries; on rank 0.
    """
    check_scale(scale, "scale")
    with agreement(comm):
        if comm.rank == 0 and mesh is not None:
            size = float(np.ptp(mesh.mesh.points, axis=0).max()) or 1.0
            record = record_of(facts, False, None)
            shape = vector if record.complex else real_mode(vector)
            moved, *_ = scaled_motion(mesh, shape, scale or _DRAWN * size)
            # A real mode comes back as it went; a complex one by other places.
            steps = 2 * _HALF if record.complex else _HALF + 1
            frames = list(_frames(mesh, moved, _title(record.names[mode - 1]), np.pi * np.arange(steps) / _HALF))
            _write_pictures(Path(path), frames if record.complex else frames + frames[-2:0:-1])


def _title(name: str) -> str:
    """Return `mode 3: 12.5 Hz` for the name of a mode in files."""
    _, number, *rest = name.split("_")
    if rest[1:] == ["load", "factor"]:
        return f"mode {number}: load factor {rest[0]}"
    unit = "/".join(rest[1:]).replace("cm-1", "cm⁻¹")
    return f"mode {number}: {rest[0]} {unit}" if unit else f"mode {number}: λ = {rest[0]}"


def _frames(mesh: ModeMesh, moved: np.ndarray, title: str, phases: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the pictures (height, width, 3) of Re(moved exp(iφ)) at some phases φ."""
    matplotlib = optional("matplotlib", "a picture of a mode", "plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.figure import Figure

    points = mesh.mesh.points
    faces, lines = (one[:: -(-len(one) // _MOST) or 1] for one in (drawn_faces(mesh.mesh), drawn_lines(mesh.mesh)))
    if not len(faces) and not len(lines):
        raise InputError(f"{mesh.name} has neither faces nor lines that could be drawn")
    view = _view(points, moved)
    far = farthest(moved)
    shades = far / (far.max() or 1.0)
    face_colors, line_colors = (
        matplotlib.colormaps["viridis"](shades[nodes].mean(axis=1))[:, :3] for nodes in (faces, lines)
    )

    figure = Figure(figsize=_SIZE, dpi=_DOTS)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.88))
    axes.set_axis_off()
    axes.set_aspect("equal")
    figure.suptitle(title, y=0.975)
    _draw_triad(figure, view)
    flat = points @ view[:2].T
    low, high = flat.min(axis=0), flat.max(axis=0)
    for phase in phases:
        here = _displaced(points, moved, phase) @ view[:2].T
        low, high = np.minimum(low, here.min(axis=0)), np.maximum(high, here.max(axis=0))
    margin = 0.02 * (high - low).max()
    axes.set_xlim(low[0] - margin, high[0] + margin)
    axes.set_ylim(low[1] - margin, high[1] + margin)

    edge = 0.3 if len(faces) < 2000 else 0.1
    axes.add_collection(PolyCollection(flat[faces], facecolors="none", edgecolors="0.85", linewidths=0.4))
    axes.add_collection(LineCollection(flat[lines], colors="0.85", linewidths=1.0))
    surface, bars = PolyCollection([], linewidths=edge, zorder=2), LineCollection([], linewidths=2.2, zorder=3)
    axes.add_collection(surface)
    axes.add_collection(bars)
    for phase in phases:
        here = _displaced(points, moved, phase) @ view.T
        order = np.argsort(here[faces, 2].mean(axis=1), kind="stable")  # what is nearer is drawn over what is not
        lit = face_colors * _lights(here[faces])[:, None]
        surface.set_verts(here[faces[order], :2])
        surface.set_facecolor(lit[order])
        surface.set_edgecolor(0.6 * lit[order] if len(faces) < 8000 else lit[order])
        bars.set_segments(here[lines, :2])
        bars.set_color(line_colors)
        canvas.draw()
        yield np.array(canvas.buffer_rgba())[:, :, :3]


def _displaced(points: np.ndarray, moved: np.ndarray, phase: float) -> np.ndarray:
    """Return where nodes are at a phase φ: points + Re(moved exp(iφ))."""
    return points + (np.cos(phase) * moved.real - np.sin(phase) * moved.imag)


def _view(points: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Return (3, 3) unit vectors to the right, upwards, and to who looks: from above where all is in the plane."""
    if not np.ptp(points[:, 2]) and not moved[:, 2].any():
        return np.eye(3)
    turned, raised = np.radians(-62), np.radians(22)
    near = np.array([np.cos(raised) * np.cos(turned), np.cos(raised) * np.sin(turned), np.sin(raised)])
    right = np.array([-np.sin(turned), np.cos(turned), 0.0])
    return np.array([right, np.cross(near, right), near])


def _lights(corners: np.ndarray) -> np.ndarray:
    """Return (f,) how bright faces (f, 4, 3) are that are seen along the third axis."""
    normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    length = np.linalg.norm(normals, axis=1)
    toward = np.abs(normals @ np.array([0.35, 0.6, 0.72])) / np.where(length > 0, length, 1.0)
    return 0.6 + 0.4 * np.minimum(toward, 1.0)


def _draw_triad(figure: Any, view: np.ndarray) -> None:
    """Draw the axes into a corner."""
    axes = figure.add_axes((0.01, 0.01, 0.11, 0.11 * _SIZE[0] / _SIZE[1]))
    axes.set_axis_off()
    axes.set_xlim(-1.3, 1.3)
    axes.set_ylim(-1.3, 1.3)
    for name, (right, up) in zip("xyz", view[:2].T, strict=True):
        if np.hypot(right, up) > 0.1:
            axes.plot([0, right], [0, up], color="0.3", lw=1)
            axes.text(1.25 * right, 1.25 * up, name, ha="center", va="center", fontsize=8, color="0.3")


def _write_pictures(path: Path, frames: list[np.ndarray]) -> None:
    """Write one swing, as one file or one after another."""
    image = optional("PIL.Image", "a picture of a mode", "plot")
    swing = [image.fromarray(frame) for frame in frames]
    if path.suffix == ".gif":
        with write_file(path) as beside:
            swing[0].save(
                beside,
                "GIF",
                save_all=True,
                append_images=swing[1:],
                duration=_MILLISECONDS,
                loop=0,
                optimize=True,
            )
        return
    for number, picture in enumerate(swing, 1):
        with write_file(path.with_name(f"{path.stem}_{number:02}.png")) as beside:
            picture.save(beside, "PNG")
