"""Vibrations of ASE's atoms: Hessians of their calculators' forces, normal modes, and back to ASE and sella.

>>> from ase.build import fcc111
>>> from ase.calculators.emt import EMT
>>> from ase.constraints import FixAtoms
>>> from sparsehess.hosts.ase import normal_modes
>>> slab = fcc111("Cu", (2, 2, 3), vacuum=8.0)
>>> slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
>>> slab.calc = EMT()
>>> with normal_modes(slab, 3) as modes:
...     print(modes.frequencies.round(1), int(modes.imaginary.sum()), modes.spectrum.count.certified)
[ 56.5  56.5 129.6] 0 True

A calculator that has second derivatives itself, by `get_hessian` or `hessian_vector_product`, is asked for them,
and they are compared with its forces. `modes.write("modes.extxyz")` (.nmd, .molden, .traj) is for viewers.

Every rank has the atoms and evaluates its share of the forces alone: the calculator must not itself be parallel
over these ranks. One that writes files is called in a folder of its own on each.

Rigid motions are projected out, whether the atoms are at rest or not, and the modes tell what that has changed:

>>> from ase.build import molecule
>>> with normal_modes(molecule("CO2", calculator=EMT())) as modes:
...     print(modes.frequencies.round(1), modes.shape[:6], round(modes.resisted), round(modes.force_max, 1))
[227.3 227.3 578.7 889.6] linear 124 1.1

Always: the caller's atoms stay where they are, coordinates that a constraint holds are no variables, and ASE is
imported by the first function that needs it. Imports what `hosts` may.
"""

from sparsehess.runtime.lazy import attributes

_HOME = {
    "force_constants": "crystal_forces",
    "from_atoms": "objective",
    "normal_modes": "vibrations",
    "NormalModes": "vibrations",
    "thermochemistry": "thermodynamics",
    "Thermochemistry": "thermal_answer",
    "Bounded": "thermal_answer",
    "saddle_point": "saddle_points",
    "SaddlePoint": "saddle_points",
    "normal_modes_of_each": "modes_of_each",
    "ModesOfEach": "modes_of_each",
    "StructureModes": "structure_modes",
    "vibrations_data": "vibrations",
    "hessian_function": "vibrations",
}

__all__ = [*_HOME]


__getattr__ = attributes(globals(), {name: f"sparsehess.hosts.ase.{module}" for name, module in _HOME.items()})
