"""A copper atom hops on Cu(100)
=============================
The saddle point between two hollows of a copper surface, searched by ASE or sella, proven by inertia.

A search for a transition state ends where forces are small. What kind of point that is, its Hessian tells: a
saddle point of index 1 has one negative eigenvalue, and neither none nor two. Here it is counted, with a margin,
and the Newton step says how far the stationary point is. Energies by effective medium theory (Jacobsen, Stoltze
and Nørskov, Surf. Sci. 366, 394, 1996).

::

    sparsehess inertia drivers/adatom_hop.py:adatom --set site=bridge --stationary 0.01
    python drivers/adatom_hop.py
"""

import importlib.util

import numpy as np
from ase.build import add_adsorbate, fcc100
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian
from ase.mep import DimerControl, MinModeAtoms, MinModeTranslate
from ase.optimize import BFGS

import sparsehess as sh
from sparsehess.hosts.ase import hessian_function
from sparsehess.hosts.ase.objective import free_coordinates

HEIGHTS = {"hollow": 1.7, "bridge": 2.0, "ontop": 2.3}  # Å


def surface(site="hollow", size=3, layers=2, fmax=1e-3, keep=True):
    """Return a copper atom on a site of Cu(100), relaxed to forces below fmax eV/Å; the lowest layer is held.

    With `keep` the atom stays above its site; else it may slide.
    """
    atoms = fcc100("Cu", (size, size, layers), vacuum=6.0)
    add_adsorbate(atoms, "Cu", HEIGHTS[site], site)
    below = FixAtoms(mask=atoms.get_tags() == layers)
    atoms.calc = EMT()
    above = [FixCartesian(len(atoms) - 1, (True, True, False))] if keep else []
    atoms.set_constraint([below, *above])
    BFGS(atoms, logfile=None).run(fmax=fmax, steps=500)
    atoms.set_constraint(below)
    return atoms


def adatom(comm=None, site="bridge", size=3, layers=2, fmax=1e-3):
    """Return the energy of a copper atom on Cu(100), where it rests on a site of high symmetry."""
    atoms = surface(site, size, layers, fmax)
    if comm is not None:
        atoms.set_positions(comm.bcast(atoms.get_positions()))  # the same to the last bit
    return sh.from_atoms(atoms, comm=comm)


# %%
# The search
# ----------
# From a point between hollow and bridge. Sella takes the whole Hessian, made of coloured forces, in place of its
# own iterations. ASE's dimer takes the direction in which to climb: that of the lowest curvature, so that it need
# not turn the dimer to find it.


def half_way():
    """Return the adatom on its way from a hollow to the bridge beside it."""
    atoms = surface("hollow")
    bridge = surface("bridge").positions[-1]
    atoms.positions[-1] += 0.6 * (bridge - atoms.positions[-1]) + [0.03, 0.0, 0.0]  # and a little beside the path
    return atoms


def climb(search, atoms, fmax):
    """Run a search, and return where the adatom went, (steps + 1, 3)."""
    path = [atoms.positions[-1].copy()]
    search.attach(lambda: path.append(atoms.positions[-1].copy()))
    if not search.run(fmax=fmax, steps=200):
        raise ValueError(f"no point with forces below {fmax} eV/Å was found in 200 steps")
    return np.array(path)


def search_with_sella(atoms, fmax=1e-3):
    """Climb with sella and our Hessian."""
    from sella import Sella

    return climb(Sella(atoms, order=1, logfile=None, hessian_function=hessian_function), atoms, fmax)


def search_with_dimer(atoms, fmax=1e-3):
    """Climb with ASE's dimer, which begins along the direction of lowest curvature."""
    mode = np.zeros(3 * len(atoms))
    with sh.assemble(sh.from_atoms(atoms)) as hessian:
        lowest = sh.curvature(hessian)
        mode[free_coordinates(atoms)] = lowest.direction.getArray()
        lowest.direction.destroy()
    mode = mode.reshape(-1, 3) / np.linalg.norm(mode)
    control = DimerControl(logfile=None, eigenmode_logfile=None, max_num_rot=3)
    return climb(MinModeTranslate(MinModeAtoms(atoms, control, eigenmodes=[mode]), logfile=None), atoms, fmax)


# %%
# What was found
# --------------
# Forces of a thousandth of an eV/Å are small on a bridge, on top of an atom, and in a hollow alike. The line
# `verdict` says which of them it is.


def draw(atoms, found, path):
    """Draw the surface from above, how the adatom has come, and where it falls."""
    import matplotlib.pyplot as plt

    axis = plt.subplots(figsize=(5.2, 4.6), layout="constrained")[1]
    top, end = atoms.positions[atoms.get_tags() == 1], path[-1, :2]
    axis.scatter(*top[:, :2].T, s=900, color="peru", edgecolor="saddlebrown")
    axis.plot(*path[:, :2].T, "o-", color="0.3", ms=3, lw=1, label="search")
    arrow = found.displacements()[-1, :2]
    for sign in (1.1, -1.1):
        arrows = {"arrowstyle": "->", "color": "firebrick", "lw": 2}
        axis.annotate("", end + sign * arrow / np.linalg.norm(arrow), end, arrowprops=arrows)
    axis.scatter(*end, s=80, color="firebrick", zorder=3, label=f"index {found.index}, proven")
    axis.set(xlabel="x (Å)", ylabel="y (Å)", aspect="equal", title="An adatom on Cu(100)")
    axis.legend(loc="upper right")
    plt.show()


if __name__ == "__main__":
    searches = {"ASE's dimer": search_with_dimer}
    if importlib.util.find_spec("sella"):
        searches["sella"] = search_with_sella
    hollow = surface("hollow").get_potential_energy()
    for name, search in searches.items():
        atoms = half_way()
        path = search(atoms)
        with sh.saddle_point(atoms, step_tol=0.01) as found:
            print(f"{name}: {len(path) - 1} steps, barrier {atoms.get_potential_energy() - hollow:.3f} eV")
            print(found, end="\n\n")
            if not found.is_saddle(1):
                raise SystemExit("not the saddle point that was looked for")
            if name == next(iter(searches)):
                draw(atoms, found, path)
