"""Inside ASE: the forces of its calculators, against its own vibrations; any number of ranks."""

from dataclasses import replace

import numpy as np
import pytest
from cases import frobenius_error
from scipy.sparse import csr_matrix

import sparsehess as sh

pytest.importorskip("ase")

import copper_cluster
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from ase.vibrations import Vibrations


def test_hessian_and_frequencies_are_those_of_ase(comm, folder):
    objective, calls = copper_cluster.rod(comm, length=12), []

    def gradient(x):
        calls.append(1)
        return objective.gradient(x)

    atoms = Atoms(numbers=[29] * (objective.n // 3), positions=objective.x.reshape(-1, 3), calculator=EMT())
    vibrations = Vibrations(atoms, name=str(folder / "vibrations"), delta=1e-4)
    vibrations.run()
    theirs = vibrations.get_vibrations().get_hessian_2d()
    with sh.assemble(replace(objective, gradient=gradient)) as hessian, sh.eigs(hessian, 8) as modes:
        spent = comm.allreduce(len(calls))
        assert spent <= 2 * hessian.coloring.count + 10
        assert spent < 0.75 * len(list(vibrations.displacements()))  # 6 an atom and one
        assert frobenius_error(hessian.mat, csr_matrix(theirs), comm) < 1e-6
        # Their six lowest are the rigid modes, which are deflated here.
        frequencies = objective.units.of_eigenvalues(modes.eigenvalues)
        assert frequencies == pytest.approx(np.sort(vibrations.get_frequencies().real)[6:14], rel=1e-5)
        assert modes.count.certified
    layout = objective.layout
    outside = objective.pattern.to_scipy().toarray() == 0
    assert outside.mean() > 0.3
    assert not theirs[layout.start : layout.stop][outside].any()  # the pattern is all there is, to the last bit


def test_atoms_of_the_host_stay_where_they_are(comm):
    atoms = Icosahedron("Cu", 2)
    atoms.calc = calculator = EMT()
    before, energy = atoms.get_positions(), atoms.get_potential_energy()
    objective = copper_cluster.vibrations(atoms, comm)
    with sh.assemble(objective) as hessian, sh.eigs(hessian, 3) as modes:
        assert (modes.eigenvalues > 0).all()
        hessian.update(before.ravel())
    assert np.array_equal(atoms.get_positions(), before)
    assert atoms.calc is calculator and calculator.get_potential_energy(atoms) == energy
    assert objective.energy(objective.x) < energy
