"""Thermochemistry of twelve molecules beside ASE's vibrations, and beside better Hessians: do the bars cover?

By EMT, by GFN2-xTB where tblite is installed, and by potentials made here in PyTorch. The better Hessian is
analytic (PyTorch), or of differences of eighth order at two steps, whose disagreement is its own doubt. ASE's
vibrations are at their best, four displacements a coordinate, at two widths; how far these disagree is their
doubt. A bar covers what is within it and the doubt. Twice: with all digits of the forces, and with forces rounded
to six decimals.

With `--turned N` instead each molecule in N orientations, with forces that are rounded, noisy, or of single
precision: how many Gibbs energies are within their bars.

    python benchmarks/thermochemistry_vs_ase.py [--temperature 298.15] [--only NAME ...] [--turned N]
"""

import argparse
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.optimize import BFGS
from ase.thermochemistry import IdealGasThermo
from ase.vibrations import Vibrations

import sparsehess as sh
from sparsehess.errors import CheckError, InputError

TETRAHEDRON = [[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]]

# Weights of central differences of eighth order.
EIGHTH = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}


class Spoilt(Calculator):
    """Forces of another calculator, spoilt by a function of forces and positions."""

    implemented_properties = ("energy", "forces")

    def __init__(self, other, spoil):
        super().__init__()
        self.other, self.spoil = other, spoil

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        moved = atoms.copy()
        moved.calc = self.other
        forces = self.spoil(moved.get_forces(), moved.get_positions())
        self.results = {"energy": moved.get_potential_energy(), "forces": forces}


def rounded(decimals):
    """Forces as a file holds them."""
    return lambda forces, _: np.round(forces, decimals)


def noisy(size):
    """Forces with noise, the same at the same place."""

    def spoil(forces, positions):
        seed = zlib.crc32(positions.tobytes())
        return forces + size * np.random.default_rng(seed).standard_normal(forces.shape)

    return spoil


SPOILT = {
    "5 decimals": rounded(5),
    "6 decimals": rounded(6),
    "noise 1e-5": noisy(1e-5),
    "noise 1e-6": noisy(1e-6),
    "single": lambda forces, _: forces.astype(np.float32).astype(np.float64),
}


def torch_calculator(bonds, angles=(), torsions=(), pairs=()):
    """Return a calculator of Morse bonds, bends, torsions and Lennard-Jones pairs, with an analytic Hessian.

    `bonds` are (i, j, depth, width, length), `angles` (i, j, k, constant, cosine), `torsions` (i, j, k, l,
    barrier, fold) and `pairs` (i, j, depth, length).
    """
    import torch

    def energy(flat):
        x, total = flat.reshape(-1, 3), flat.new_zeros(())
        for i, j, depth, width, length in bonds:
            total = total + depth * (1 - torch.exp(-width * ((x[i] - x[j]).norm() - length))) ** 2
        for i, j, k, constant, cosine in angles:
            u, v = x[i] - x[j], x[k] - x[j]
            total = total + constant / 2 * (u @ v / u.norm() / v.norm() - cosine) ** 2
        for i, j, k, m, barrier, fold in torsions:
            b, c, d = x[j] - x[i], x[k] - x[j], x[m] - x[k]
            first, second = torch.linalg.cross(b, c), torch.linalg.cross(c, d)
            phi = torch.atan2(torch.linalg.cross(first, second) @ c / c.norm(), first @ second)
            total = total + barrier / 2 * (1 + torch.cos(fold * phi))
        for i, j, depth, length in pairs:
            s = (length / (x[i] - x[j]).norm()) ** 6
            total = total + depth * (s**2 - 2 * s)
        return total

    class Made(Calculator):
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            flat = torch.tensor(atoms.get_positions().ravel(), dtype=torch.float64, requires_grad=True)
            value = energy(flat)
            (slope,) = torch.autograd.grad(value, flat)
            self.results = {"energy": value.item(), "forces": -slope.numpy().reshape(-1, 3)}

        def analytic(self, positions):
            flat = torch.tensor(positions.ravel(), dtype=torch.float64)
            return torch.autograd.functional.hessian(energy, flat).numpy()

    return Made()


def peroxide(barrier):
    """Return H2O2 whose torsion has a barrier of so many eV."""
    bonds = [(0, 1, 4.6, 2.0, 1.45), (0, 2, 4.8, 2.2, 0.97), (1, 3, 4.8, 2.2, 0.97)]
    angles = [(1, 0, 2, 4.0, -0.17), (0, 1, 3, 4.0, -0.17)]
    places = [[0, 0.7, 0], [0, -0.7, 0], [0.9, 0.85, 0.3], [-0.9, -0.85, 0.3]]
    return Atoms("O2H2", places, calculator=torch_calculator(bonds, angles, [(2, 0, 1, 3, barrier, 2)]))


def bent(degrees):
    """Return HCN that is bent by so many degrees, which is its minimum."""
    cosine = -np.cos(np.radians(degrees))
    turn = np.radians(degrees)
    places = [[-1.07 * np.cos(turn), 1.07 * np.sin(turn), 0], [0, 0, 0], [1.16, 0, 0]]
    bonds = [(0, 1, 5.3, 1.9, 1.07), (1, 2, 9.7, 2.4, 1.16)]
    return Atoms("HCN", places, calculator=torch_calculator(bonds, [(0, 1, 2, 40.0, cosine)]))


def loose():
    """Return two waters' oxygens and a neon: three Lennard-Jones atoms that hardly hold together."""
    places = [[0, 0, 0], [3.1, 0, 0], [1.5, 2.7, 0]]
    pairs = [(0, 1, 0.004, 3.1), (0, 2, 0.0015, 3.0), (1, 2, 0.0015, 3.0)]
    return Atoms("ArArNe", places, calculator=torch_calculator([], pairs=pairs))


def by_emt(name):
    return molecule(name, calculator=EMT())


def by_tblite(name):
    from tblite.ase import TBLite

    return molecule(name, calculator=TBLite(method="GFN2-xTB", verbosity=0, accuracy=1e-3))


CASES = {
    "N2 emt": lambda: by_emt("N2"),
    "H2O emt": lambda: by_emt("H2O"),
    "HCN emt": lambda: by_emt("HCN"),
    "NH3 emt": lambda: by_emt("NH3"),
    "C2H6 emt": lambda: by_emt("C2H6"),
    "Cu4 emt": lambda: Atoms("Cu4", 1.6 * np.array(TETRAHEDRON), calculator=EMT()),
    "H2O gfn2": lambda: by_tblite("H2O"),
    "CH3OH gfn2": lambda: by_tblite("CH3OH"),
    "H2O2 torch": lambda: peroxide(0.05),
    "H2O2 floppy": lambda: peroxide(2e-5),
    "HCN bent 5°": lambda: bent(5.0),
    "Ar2Ne torch": loose,
}


def eighth(atoms, step):
    """Return the Hessian by central differences of eighth order."""
    start, hessian = atoms.get_positions(), []
    moved = atoms.copy()
    moved.calc = atoms.calc
    for number in range(start.size):
        column = np.zeros(start.size)
        for far, weight in EIGHTH.items():
            for sign in (1, -1):
                away = np.zeros(start.size)
                away[number] = sign * far * step
                moved.set_positions(start + away.reshape(-1, 3))
                column -= sign * weight * moved.get_forces().ravel() / step
        hessian.append(column)
    hessian = np.array(hessian)
    return (hessian + hessian.T) / 2


def eigenvalues(hessian, atoms, rigid):
    """Return eigenvalues in eV/Å²/amu beside so many rigid motions, which are projected out."""
    away = atoms.get_positions() - atoms.get_center_of_mass()
    root = np.repeat(np.sqrt(atoms.get_masses()), 3)
    motions = [np.tile(axis, len(atoms)) for axis in np.eye(3)]
    motions += [np.cross(axis, away).ravel() for axis in np.eye(3)]
    basis = np.linalg.svd((root * np.array(motions)).T, full_matrices=True)[0]
    rest = basis[:, rigid:]
    return np.linalg.eigvalsh(rest.T @ (hessian / root / root[:, None]) @ rest)


def gibbs(values, atoms, geometry, temperature):
    """Return zero-point and Gibbs energy by ASE."""
    quanta = units._hbar * units.m / np.sqrt(units._e * units._amu) * np.sqrt(values)
    gas = IdealGasThermo(
        quanta, geometry, atoms.get_potential_energy(), atoms, symmetrynumber=1, spin=0, vib_selection="exact"
    )
    return np.array([gas.get_ZPE_correction(), gas.get_gibbs_energy(temperature, 101325.0, verbose=False)])


def by_ase(atoms, width):
    """Return the Hessian of ASE's own vibrations."""
    with tempfile.TemporaryDirectory() as folder:
        vibrations = Vibrations(atoms, name=str(Path(folder) / "vib"), delta=width, nfree=4)
        vibrations.run()
        return vibrations.get_vibrations().get_hessian_2d()


def compare(name, make, temperature):
    """Print the lines of a molecule; return whether all bars cover."""
    atoms = make()
    atoms.rotate(37.0, (1, 2, 3))  # along an axis of coordinates rounding may take all of a curvature
    atoms.rattle(0.02, seed=3)  # off saddle points
    BFGS(atoms, logfile=None).run(fmax=1e-6, steps=3000)
    if hasattr(atoms.calc, "analytic"):
        better = [atoms.calc.analytic(atoms.get_positions())] * 2
    else:
        better = [eighth(atoms, step) for step in (0.008, 0.012)]
    all_covered = True
    for decimals in (None, 6):
        exact = atoms.calc
        one = atoms.copy()
        one.calc = exact if decimals is None else Spoilt(exact, rounded(decimals))
        digits = "all" if decimals is None else str(decimals)
        try:
            with sh.normal_modes(one) as modes:
                rigid, lowest = len(modes.rigid), modes.frequencies[0]
                bar_of_lowest, forces = modes.errors[0], modes.force_max
                ours = sh.thermochemistry(modes, temperature, symmetry_number=1, spin=0)
        except (CheckError, InputError) as error:
            print(f"{name:12s} {digits:>3s} refused: {str(error)[:150]} ...", flush=True)
            continue
        known = [gibbs(eigenvalues(h, one, rigid), one, ours.geometry, temperature) for h in better]
        theirs = [
            gibbs(eigenvalues(by_ase(one, w), one, rigid), one, ours.geometry, temperature) for w in (0.01, 0.005)
        ]
        covers = []
        for number, quantity in enumerate((ours.zero_point, ours.gibbs)):
            for others in (known, theirs):
                other, doubt = others[0][number], abs(others[1][number] - others[0][number])
                slack = 1.1 * doubt + 1e-14 * abs(other)
                covered = quantity.low - slack <= other <= quantity.high + slack
                covers.append((abs(quantity.value - other), doubt, covered))
        told = " ".join(f"{off:8.1e} {doubt:8.1e}{' ' if good else '!'}" for off, doubt, good in covers)
        print(
            f"{name:12s} {digits:>3s} {lowest:9.3f} ± {bar_of_lowest:7.1e} {ours.zero_point.value:9.6f} ± "
            f"{ours.zero_point.error:7.1e} {ours.gibbs.value:11.6f} ± {ours.gibbs.error:7.1e} {told} "
            f"{forces:7.1e}",
            flush=True,
        )
        all_covered &= all(good for _, _, good in covers)
    return all_covered


def turned(name, make, many, temperature):
    """Print how many of so many orientations are within their bars, by how forces are spoilt; return them all."""
    told, within = {}, np.zeros(2, int)
    for seed in range(many):
        random = np.random.default_rng(seed)
        atoms = make()
        atoms.rotate(360 * random.random(), random.standard_normal(3))
        atoms.rattle(0.02, seed=seed)
        BFGS(atoms, logfile=None).run(fmax=1e-6, steps=3000)
        analytic = getattr(atoms.calc, "analytic", None)
        better = eighth(atoms, 0.01) if analytic is None else analytic(atoms.get_positions())
        for way, spoil in SPOILT.items():
            one = atoms.copy()
            one.calc = Spoilt(atoms.calc, spoil)
            counts = told.setdefault(way, Counter())
            try:
                with sh.normal_modes(one) as modes:
                    rigid = len(modes.rigid)
                    ours = sh.thermochemistry(modes, temperature, symmetry_number=1, spin=0)
            except (CheckError, InputError):
                counts["refused"] += 1
                continue
            if ours.unbounded:
                counts["unbounded"] += 1
                continue
            known = gibbs(eigenvalues(better, one, rigid), one, ours.geometry, temperature)[1]
            covered = ours.gibbs.low <= known <= ours.gibbs.high
            counts["within" if covered else "outside"] += 1
            within += (covered, 1)
    for way, counts in told.items():
        print(f"{name:12s} {way:11s} " + ", ".join(f"{many} {word}" for word, many in sorted(counts.items())))
    return within


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--temperature", type=float, default=298.15)
    parser.add_argument("--only", nargs="*", default=list(CASES))
    parser.add_argument("--turned", type=int, metavar="N", help="so many orientations with spoilt forces instead")
    given = parser.parse_args()
    if given.turned:
        names = [name for name in given.only if "gfn2" not in name]
        all_of = sum(turned(name, CASES[name], given.turned, given.temperature) for name in names)
        print(f"{all_of[0]} of {all_of[1]} within their bars")
        return 0
    heads, head = ("ZPE, better", "ZPE, ASE", "G, better", "G, ASE"), "     off    doubt"
    print(f"{'':16s}{'lowest, cm^-1':20s}{'ZPE, eV':21s}{'G, eV':23s}" + " ".join(f"{one:18s}" for one in heads))
    print(f"{'':80s}" + " ".join(f"{head:18s}" for _ in heads) + "  forces, eV/Å")
    bad = []
    for name in given.only:
        try:
            if not compare(name, CASES[name], given.temperature):
                bad.append(name)
        except ImportError as error:
            print(f"{name:12s} left out: {error}")
    print("! not covered:", ", ".join(bad) if bad else "none")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
