"""Files as phonopy writes them: force constants as text, HDF5 and YAML, with the cells beside."""

import itertools
import json

import h5py
import numpy as np


def cell_of(crystal, reduced=None):
    scaled = crystal.positions @ np.linalg.inv(crystal.lattice)
    points = [
        {"symbol": symbol, "coordinates": place.tolist(), "mass": float(mass)}
        for symbol, place, mass in zip(crystal.symbols, scaled, crystal.masses, strict=True)
    ]
    for number, point in enumerate(points if reduced is not None else []):
        point["reduced_to"] = int(reduced[number]) + 1
    return {"lattice": crystal.lattice.tolist(), "points": points}


def write(folder, constants, values, rows, **more):
    """Write force constants in all forms, and return the file of the cells. JSON is YAML too."""
    table = [f"{len(rows)} {values.shape[1]}"]
    for (row, atom), column in itertools.product(enumerate(rows), range(values.shape[1])):
        table.append(f"{atom + 1} {column + 1}")
        table += [" ".join(f"{one:.15f}" for one in line) for line in values[row, column]]
    (folder / "FORCE_CONSTANTS").write_text("\n".join(table) + "\n")
    cells = {
        "physical_unit": {"length": "angstrom", "force_constants": "eV/angstrom^2"},
        "primitive_cell": cell_of(constants.primitive),
        "supercell": cell_of(constants.supercell, constants.images.first[constants.images.of]),
        **more,
    }
    (folder / "phonopy_disp.yaml").write_text(json.dumps(cells))
    told = {"format": "compact", "shape": list(values.shape[:2]), "elements": values.reshape(-1, 3, 3).tolist()}
    (folder / "phonopy_params.yaml").write_text(json.dumps({**cells, "force_constants": told}))
    with h5py.File(folder / "force_constants.hdf5", "w") as file:
        file["force_constants"] = values
        file["p2s_map"] = rows
    return folder / "phonopy_disp.yaml"
