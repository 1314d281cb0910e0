"""The structure on a page: data for the script that turns and moves it, and still pictures for paper."""

from __future__ import annotations

import base64
import json
from html import escape
from typing import Any

import numpy as np

from sparsehess.commands.reports.html import figure, paragraph, section
from sparsehess.commands.reports.records import Record
from sparsehess.commands.reports.structures import MODES, Structure
from sparsehess.commands.reports.unit_names import unit_told

# Stills, parts of the diameter by which the node that moves most moves in them, and their size.
_STILLS, _AMPLITUDE, _WIDE, _HIGH = 6, 0.07, 300, 210

# Faces up to which all stills are drawn; of more there is one.
_FEW = 2500

# Colours of a motion from none to the largest.
_RAMP = np.array([[204, 209, 216], [248, 208, 112], [232, 124, 44], [160, 20, 32]], np.float64)
_LEVELS = 12

# Colours and radii in Å of atoms as they are usually drawn, and of all others.
_ATOMS = {
    "H": ("#e8e8e8", 0.31), "C": ("#606060", 0.76), "N": ("#3050d8", 0.71), "O": ("#d82020", 0.66),
    "F": ("#70b040", 0.57), "NA": ("#9050c8", 1.0), "MG": ("#408030", 0.9), "AL": ("#a09898", 1.2),
    "SI": ("#c0a070", 1.11), "P": ("#e08020", 1.07), "S": ("#c8b020", 1.05), "CL": ("#30a030", 1.02),
    "CA": ("#60a060", 1.2), "FE": ("#c06030", 1.2), "CU": ("#b87333", 1.25), "ZN": ("#7070a8", 1.2),
    "AG": ("#a8a8b8", 1.4), "AU": ("#d4a017", 1.36), "PT": ("#90a0b0", 1.36),
}  # fmt: skip
_OTHER = ("#8090a8", 1.0)

# Part of the covalent radius that is drawn.
_SHRUNK = 0.75


def structure_section(record: Record) -> str:
    """Return the section of the structure and its modes, empty where there is none. Not collective."""
    structure, modes = record.structure, record.modes
    if structure is None or modes is None or not len(modes) or not len(structure.positions):
        return ""
    moving = [collectivity(mode) for mode in modes]
    labels = _labels(record.facts, moving)
    space, view = _centred(structure), _view(structure)
    radii, diameter = _radii(structure, space), float(np.linalg.norm(np.ptp(space, axis=0))) or 1.0
    first = _first(record.facts, moving)
    data = {
        "view": view.ravel().tolist(),
        "diameter": diameter,
        "positions": _coded(space, "<f4"),
        "modes": _coded(np.rint(32767 * modes), "<i2"),
        "faces": _coded(structure.faces, "<i4"),
        "edges": _coded(structure.edges, "<i4"),
        "species": _coded(structure.species, "u1"),
        "kinds": [
            {"name": name, "color": _ATOMS.get(name.upper(), _OTHER)[0], "radius": radius}
            for name, radius in zip(structure.names or ("node",), radii, strict=True)
        ],
        "ramp": [_hex(color) for color in _ramp()],
        "labels": labels,
        "first": first,
        "atoms": bool(structure.names),
    }
    text = json.dumps(data).replace("<", "\\u003c")  # nothing ends the script element
    stills = _stills(structure, space, modes, view, radii, labels, first, diameter)
    return section(
        "Structure and modes",
        f'<div class="structure screen" hidden>{_controls(labels, first, bool(structure.names))}'
        '<canvas tabindex="0" role="img" aria-label="The structure, moved by a mode; arrow keys turn it"></canvas>'
        "</div>"
        f'<script type="application/json" id="structure">{text}</script>',
        f'<div class="stills paper">{stills}</div>',
        paragraph(_words(structure, record.facts, len(modes))),
    )


def _words(structure: Structure, facts: dict[str, Any], modes: int) -> str:
    """Return what is drawn, and what is left out."""
    kind = "atoms" if structure.names else "nodes"
    many, told = len(structure.positions), structure.told
    part = f"All {told:,} {kind} are drawn"
    if many < told:
        part = f"{many:,} of {told:,} {kind} are drawn"
        part += ": those of the surface" if len(structure.faces) or len(structure.edges) else ", evenly chosen"
    total = len(facts["eigenvalues"])
    if total > modes:
        part += f", and the first {MODES} of {total} modes"
    moved = "motions are scaled, so that the one that moves most is seen"
    colors = "Colours go from grey, at rest, to red, the largest motion of the mode"
    return f"{part}; {moved}. {colors}. What part of the {kind} moves is told beside each (collectivity)."


def collectivity(mode: np.ndarray) -> float:
    """Return the part of the nodes that moves in a mode (m, 3): 1 where all move equally far.

    Not collective. exp(-Σ p log p) / m, with p the share of each node in the squared motions (Brüschweiler,
    J. Chem. Phys. 102, 3396 (1995)).
    """
    share = np.square(mode, dtype=np.float64).sum(axis=1)
    share = share[share > 0] / max(share.sum(), 1e-300)
    return float(np.exp(-(share @ np.log(share))) / len(mode))


def _labels(facts: dict[str, Any], moving: list[float]) -> list[str]:
    """Return what modes are called."""
    values, told = facts["eigenvalues"], facts.get("frequencies") or {}
    zeros = facts.get("zero") or [False] * len(values)
    labels = []
    for number, part in enumerate(moving):
        if told:
            size = told["values"][number]
            name = f"{abs(size):.5g}{'i' if size < 0 else ''} {unit_told(facts)}"
        else:
            name = f"λ = {values[number]:.6g}"
        labels.append(f"mode {number + 1}: {'zero' if zeros[number] else name}, {100 * part:.2g} % move")
    return labels


def _first(facts: dict[str, Any], moving: list[float]) -> int:
    """Return the mode that is shown first: the lowest in which many nodes move, none that is zero."""
    zeros = facts.get("zero") or [False] * len(moving)
    others = [number for number in range(len(moving)) if not zeros[number]] or [0]
    most = max(moving[number] for number in others)
    return next(number for number in others if moving[number] >= 0.5 * most)


def _controls(labels: list[str], first: int, atoms: bool) -> str:
    options = "".join(
        f'<option value="{number}"{" selected" if number == first else ""}>{escape(label)}</option>'
        for number, label in enumerate(labels)
    )
    kinds = '<option value="motion">motion</option><option value="kind">element</option>'
    colored = f'<label>colour by <select class="colored">{kinds}</select></label>' if atoms else ""
    return (
        f'<div class="controls"><label>mode <select class="mode">{options}</select></label>'
        '<label>amplitude <input class="amplitude" type="range" min="0" max="25" step="0.5" value="7"></label>'
        f'<button type="button" class="pause">pause</button>{colored}'
        '<span class="help">drag to turn, wheel to zoom</span></div>'
    )


def _coded(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode()


def _centred(structure: Structure) -> np.ndarray:
    """Return (m, 3) positions about the middle."""
    space = np.pad(structure.positions.astype(np.float64), ((0, 0), (0, 3 - structure.positions.shape[1])))
    return space - (space.min(axis=0) + space.max(axis=0)) / 2


def _view(structure: Structure) -> np.ndarray:
    """Return (3, 3) the first rotation: the longest way lies across, the shortest points at us."""
    dims = structure.positions.shape[1]
    if dims < 3:
        upright = dims == 2 and structure.variables.shape[1] == 1
        return _about(0, -1.0 if upright else 0.0)
    middle = structure.positions - structure.positions.mean(axis=0)
    _, axes = np.linalg.eigh(middle.T.astype(np.float64) @ middle)
    across, up = axes[:, 2], axes[:, 1]
    across, up = (one * np.sign(one[np.argmax(np.abs(one))]) for one in (across, up))
    return _about(0, 0.35) @ _about(1, 0.45) @ np.stack([across, up, np.cross(across, up)])


def _about(axis: int, angle: float) -> np.ndarray:
    """Return the rotation about an axis."""
    c, s = np.cos(angle), np.sin(angle)
    turned = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return np.roll(turned, (axis, axis), (0, 1))


def _radii(structure: Structure, space: np.ndarray) -> list[float]:
    """Return the radius of each kind of node, in the units of positions."""
    if structure.names:
        return [_SHRUNK * _ATOMS.get(name.upper(), _OTHER)[1] for name in structure.names]
    spread = np.ptp(space, axis=0)
    dims = max(int((spread > 1e-9 * max(spread.max(initial=0.0), 1e-300)).sum()), 1)
    room = float(np.prod(spread[spread > 0])) if (spread > 0).any() else 1.0
    return [0.3 * (room / len(space)) ** (1 / dims)]


def _ramp() -> np.ndarray:
    """Return (levels, 3) colours from rest to the largest motion."""
    at = np.linspace(0, len(_RAMP) - 1, _LEVELS)
    return np.stack([np.interp(at, np.arange(len(_RAMP)), _RAMP[:, channel]) for channel in range(3)], axis=1)


def _hex(color: np.ndarray) -> str:
    return "#" + "".join(f"{round(float(one)):02x}" for one in color)


# --- stills ------------------------------------------------------------------------------------


def _stills(
    structure: Structure,
    space: np.ndarray,
    modes: np.ndarray,
    view: np.ndarray,
    radii: list[float],
    labels: list[str],
    first: int,
    diameter: float,
) -> str:
    """Return pictures of a few modes, each at its largest motion."""
    many = _STILLS if len(structure.faces) <= _FEW else 1
    shown = list(range(first, len(modes)))[:many]
    seen = space @ view.T
    reach = np.abs(seen[:, :2]).max(axis=0) + 1.1 * _AMPLITUDE * diameter
    scale = float(min(_WIDE / (2 * reach[0]), _HIGH / (2 * reach[1])))
    pictures = []
    for number in shown:
        moved = (space + _AMPLITUDE * diameter * modes[number]) @ view.T
        level = np.minimum((np.linalg.norm(modes[number], axis=1) * _LEVELS).astype(int), _LEVELS - 1)
        drawn = _shapes(structure, moved * scale, level, np.array(radii)[structure.species] * scale)
        alt = f"The structure, moved by {labels[number]}"
        svg = (
            f'<svg viewBox="{-_WIDE / 2} {-_HIGH / 2} {_WIDE} {_HIGH}" role="img" aria-label="{escape(alt)}">'
            f"{drawn}</svg>"
        )
        pictures.append(figure(svg, labels[number]))
    return "".join(pictures)


def _shapes(structure: Structure, at: np.ndarray, level: np.ndarray, radii: np.ndarray) -> str:
    """Return what is drawn, the farthest first; `at` in pixels, y upwards."""
    x, y, depth = at[:, 0], -at[:, 1], at[:, 2]
    ramp = [_hex(color) for color in _ramp()]
    if len(structure.faces):
        corners = structure.faces
        tone = level[corners].max(axis=1)
        parts = []
        for number in np.argsort(depth[corners].mean(axis=1), kind="stable"):
            points = "L".join(f"{x[node]:.1f} {y[node]:.1f}" for node in corners[number])
            parts.append(f'<path d="M{points}Z" fill="{ramp[tone[number]]}"/>')
        return f'<g stroke="#33404d" stroke-width=".4" stroke-linejoin="round">{"".join(parts)}</g>'
    lines = "".join(f"M{x[a]:.1f} {y[a]:.1f}L{x[b]:.1f} {y[b]:.1f}" for a, b in structure.edges)
    parts = [f'<path d="{lines}" fill="none" stroke="#9aa5b1" stroke-width=".8"/>'] if lines else []
    # Discs of one colour and one layer of depth are one path: a point with a round end is twelve letters.
    layers = np.zeros(len(at), int)
    layers[np.argsort(depth, kind="stable")] = np.arange(len(at)) * 12 // max(len(at), 1)
    groups: dict[tuple[int, int, float], list[int]] = {}
    for number, key in enumerate(zip(layers.tolist(), level.tolist(), radii.tolist(), strict=True)):
        groups.setdefault(key, []).append(number)
    for (_, tone, radius), members in sorted(groups.items()):
        dots = "".join(f"M{x[node]:.1f} {y[node]:.1f}h0" for node in members)
        wide = max(2 * radius, 1.5)
        parts.append(f'<path d="{dots}" stroke="#33404d" stroke-width="{wide + 0.5:.2f}"/>')
        parts.append(f'<path d="{dots}" stroke="{ramp[tone]}" stroke-width="{wide:.2f}"/>')
    return f'<g stroke-linecap="round">{"".join(parts)}</g>'
