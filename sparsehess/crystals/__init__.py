"""Phonons of crystals: force constants, dynamical matrices at any wave vector, bands and densities of states.

Always: D(q) is a Hermitian matrix, solved with a bound on every eigenvalue that is proven of the matrix as it was
built, answers are the same whatever the number of ranks, and nothing here knows where forces come from. Imports
all packages from errors to operators, and eigen.
"""

from sparsehess.runtime.lazy import attributes

_HOME = {
    "Crystal": "cells",
    "ForceConstants": "force_constants",
    "read_force_constants": "phonopy_files",
    "phonons": "solver",
    "Phonons": "solver",
    "PhononModes": "modes",
    "Bands": "bands",
    "Path": "paths",
    "Polar": "polar",
    "PhononDensity": "densities",
}

__all__ = [*_HOME]


__getattr__ = attributes(globals(), {name: f"sparsehess.crystals.{module}" for name, module in _HOME.items()})
