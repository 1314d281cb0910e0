"""Thermochemistry: published entropies, closed forms, ASE's own classes, and error bars that cover."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import EvaluationError, InputError
from sparsehess.hosts.ase.mode_parts import LowModes

pytest.importorskip("ase")

from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian
from ase.thermochemistry import HarmonicThermo, IdealGasThermo

pytestmark = [
    pytest.mark.parallel([1, 2, 3]),
    pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning:ase.atoms"),
]

BAR = 1e5
PER_MOL = units.mol / units.kJ * 1e3  # J/mol of eV


class Springs(Calculator):
    """Atoms joined by springs of k eV/Å², at rest where they are; forces rounded to so many decimals."""

    implemented_properties = ("energy", "forces")

    def __init__(self, places, springs, decimals=None):
        super().__init__()
        self.places, self.decimals = np.asarray(places, float), decimals
        self.springs = [(i, j, k, np.linalg.norm(self.places[i] - self.places[j])) for i, j, k in springs]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = atoms.get_positions()
        energy, forces = -3.0, np.zeros(x.shape)
        for i, j, k, rest in self.springs:
            apart = x[i] - x[j]
            length = np.linalg.norm(apart)
            energy += k * (length - rest) ** 2 / 2
            push = k * (length - rest) * apart / length
            forces[i] -= push
            forces[j] += push
        if self.decimals is not None:
            forces = np.round(forces, self.decimals)
        self.results = {"energy": energy, "forces": forces}

    def exact(self):
        """Return the Hessian at rest."""
        out = np.zeros((self.places.size, self.places.size))
        for i, j, k, rest in self.springs:
            row = np.zeros(self.places.shape)
            row[i] = (self.places[i] - self.places[j]) / rest
            row[j] = -row[i]
            out += k * np.outer(row, row)
        return out


def joined(symbols, places, springs, decimals=None, tilt=True):
    """Return the atoms; tilted, since along an axis of coordinates rounding may take all of a curvature."""
    atoms = Atoms(symbols, places)
    if tilt:
        atoms.rotate(37.0, (1, 2, 3))
    atoms.calc = Springs(atoms.get_positions(), springs, decimals)
    return atoms


def nitrogen(decimals=None):
    # 2330 cm⁻¹ and 1.0977 Å: Huber and Herzberg, "Constants of Diatomic Molecules" (1979).
    quantum = 2330.0 * units.invcm / (units._hbar * units.m / np.sqrt(units._e * units._amu))
    mass = Atoms("N").get_masses()[0] / 2
    return joined("N2", [[0, 0, 0], [0, 0, 1.0977]], [(0, 1, mass * quantum**2)], decimals)


def water(decimals=None, bend=17.0):
    # 0.9572 Å and 104.52°: Benedict, Gailar and Plyler, J. Chem. Phys. 24, 1139 (1956).
    half = np.radians(104.52) / 2
    places = 0.9572 * np.array([[0, 0, 0], [np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]])
    return joined("OH2", places, [(0, 1, 52.0), (0, 2, 52.0), (1, 2, bend)], decimals)


def nearly_linear(decimals=None, degrees=6.0):
    """Return HCN that is bent; the spring between its ends hardly resists a bend."""
    turn = np.radians(degrees)
    places = [[-1.07 * np.cos(turn), 1.07 * np.sin(turn), 0], [0, 0, 0], [1.16, 0, 0]]
    return joined("HCN", places, [(0, 1, 36.0), (1, 2, 117.0), (0, 2, 30.0)], decimals)


def tetrahedron(decimals=None, soft=1.3):
    """Return a tetrahedron of copper, one edge of which is softer or not."""
    places = 1.7 * np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]])
    springs = [(i, j, soft if (i, j) == (0, 1) else 1.3) for j in range(4) for i in range(j)]
    return joined("Cu4", places, springs, decimals)


def known(atoms, rigid):
    """Return the exact quanta in eV, by LAPACK, beside so many rigid motions."""
    root = np.repeat(np.sqrt(atoms.get_masses()), 3)
    values = np.linalg.eigvalsh(atoms.calc.exact() / root / root[:, None])[rigid:]
    return units._hbar * units.m / np.sqrt(units._e * units._amu) * np.sqrt(values)


def closed_form(quanta, temperature):
    """Return zero-point energy, energy, entropy and free energy of oscillators, by closed forms."""
    kT = units.kB * temperature
    e = quanta / kT
    free = kT * np.log(2 * np.sinh(e / 2))
    energy = quanta / 2 / np.tanh(e / 2)
    return quanta.sum() / 2, energy.sum(), (energy - free).sum() / temperature, free.sum()


# At 298.15 K and 1 bar: Cox, Wagman and Medvedev, "CODATA Key Values for Thermodynamics" (1989).
@pytest.mark.essential
@pytest.mark.parametrize("make, published", [(nitrogen, 191.609), (water, 188.835)])
def test_published_entropies(comm, make, published):
    with sh.normal_modes(make(), comm=comm) as modes:
        gas = sh.thermochemistry(modes, 298.15, BAR, symmetry_number=2, spin=0)
    assert gas.model == "ideal-gas" and not gas.notes and gas.share > 0
    assert gas.entropy.value * PER_MOL == pytest.approx(published, abs=0.2)  # of rigid rotors, at rest
    assert gas.energy == -3.0 and gas.gibbs.value == pytest.approx(
        gas.enthalpy.value - 298.15 * gas.entropy.value, rel=1e-14
    )
    assert gas.enthalpy.value - gas.internal_energy.value == pytest.approx(units.kB * 298.15)
    assert gas.gibbs.value - gas.helmholtz.value == pytest.approx(units.kB * 298.15)


@pytest.mark.parametrize("decimals", [None, 6, 5])
@pytest.mark.parametrize("make", [nitrogen, water, nearly_linear, tetrahedron])
def test_bars_cover_closed_forms(comm, make, decimals):
    """As they stand, and with forces that a file has rounded; what modes alone add, at two temperatures."""
    atoms = make(decimals)
    with sh.normal_modes(atoms, comm=comm) as modes:
        quanta = known(atoms, len(modes.rigid))
        for temperature in (298.15, 900.0):
            found = sh.thermochemistry(modes, temperature, model="harmonic")
            exact = closed_form(quanta, temperature)
            parts = found.zero_point, found.internal_energy, found.entropy, found.helmholtz
            for one, shift, value in zip(parts, (0.0, -3.0, 0.0, -3.0), exact, strict=True):
                assert one.low <= value + shift <= one.high, (make, decimals, one, value)
                assert np.isfinite(one.error) and one.error < (1e-6 if decimals is None else 0.1)
                assert one.widths.sum() == pytest.approx(one.high - one.low, rel=1e-6, abs=1e-12)
            assert found.gibbs is None and "would add is not in it" in found.notes[-1]


@pytest.mark.parametrize("low", ["quasi-harmonic", "msrrho"])
def test_a_bar_that_reaches_zero(comm, low):
    """One edge is soft, and forces are rounded: entropy has no bound but by another treatment of low modes."""
    atoms = tetrahedron(5, soft=2e-5)
    with sh.normal_modes(atoms, comm=comm) as modes:
        gas = sh.thermochemistry(modes)
        bounded = sh.thermochemistry(modes, low_modes=low)
    (quantum,) = known(atoms, 6)[:1]
    assert gas.unbounded == (0,) and gas.dominant == 0 and gas.share == 1.0
    assert np.isnan(gas.gibbs.value) and gas.gibbs.low == -np.inf and np.isfinite(gas.gibbs.high)
    assert gas.entropy.high == np.inf and np.isfinite(gas.zero_point.error) and np.isfinite(gas.enthalpy.error)
    told = str(gas)
    assert "unbounded, ≥" in told and "unbounded, ≤" in told and "zero is within the bar of the mode of" in told
    assert "unbounded" in repr(gas)
    assert not bounded.unbounded and np.isfinite(bounded.gibbs.error)
    exact = LowModes(low, bounded.cutoff, atoms, 298.15).parts(*np.array([[quantum]] * 3))
    here = bounded.entropy.low, bounded.entropy.high
    assert here[1] - here[0] >= bounded.entropy.widths[0] > 0 or low == "quasi-harmonic"
    assert exact.entropy.value[0] < 2e-3


def test_between_oscillator_and_rotor_entropies_are_enclosed():
    """They do not fall throughout: what ASE gives at points between is within, and is nearly all of it."""
    from ase.thermochemistry import RRHOMode

    atoms, rose = tetrahedron(), 0
    inertia = np.mean(atoms.get_moments_of_inertia())
    low = LowModes("msrrho", 35.0, atoms, 298.15)
    for ends in ([10.0, 12.0], [30.0, 40.0], [1.0, 300.0], [34.9, 35.1], [500.0, 501.0]):
        points = np.linspace(*ends, 400)
        modes = [RRHOMode(one * units.invcm, inertia, tau=35.0) for one in points]
        values = np.array([one.get_entropy(298.15, contributions=False) for one in modes])
        middle = np.mean(ends)
        found = low.parts(*(np.array([one]) * units.invcm for one in (ends[0], middle, ends[1]))).entropy
        rose += np.diff(values).max() > 0
        assert found.low[0] <= values.min() + 1e-18 and values.max() <= found.high[0] + 1e-18
        assert found.high[0] - found.low[0] <= 1.6 * np.ptp(values) + 2e-5
    assert rose


def test_the_sums_are_those_of_ase(comm):
    atoms = water()
    with sh.normal_modes(atoms, comm=comm) as modes:
        gas = sh.thermochemistry(modes, 400.0, 2e5, symmetry_number=2, spin=0.5)
        raised = sh.thermochemistry(modes, 400.0, model="harmonic", low_modes="quasi-harmonic", cutoff=3000.0)
    quanta = gas.frequencies * units.invcm
    theirs = IdealGasThermo(quanta, "nonlinear", -3.0, atoms, 2, 0.5, vib_selection="exact")
    assert gas.zero_point.value == pytest.approx(theirs.get_ZPE_correction(), rel=1e-13)
    assert gas.enthalpy.value == pytest.approx(theirs.get_enthalpy(400.0, verbose=False), rel=1e-13)
    assert gas.entropy.value == pytest.approx(theirs.get_entropy(400.0, 2e5, verbose=False), rel=1e-13)
    assert gas.gibbs.value == pytest.approx(theirs.get_gibbs_energy(400.0, 2e5, verbose=False), rel=1e-13)
    other = HarmonicThermo(np.maximum(quanta, 3000.0 * units.invcm), -3.0)
    assert raised.entropy.value == pytest.approx(other.get_entropy(400.0, verbose=False), rel=1e-13)
    assert raised.internal_energy.value == pytest.approx(
        other.get_internal_energy(400.0, verbose=False), rel=1e-13
    )
    assert raised.pressure is None and raised.enthalpy is None and raised.cutoff == 3000.0
    # What is raised has no bar but that of rounding.
    assert raised.zero_point.widths[0] < 1e-14 < raised.zero_point.widths[-1]


@pytest.mark.parametrize("low", ["harmonic", "quasi-harmonic", "msrrho"])
def test_very_cold_and_very_hot(comm, low):
    with sh.normal_modes(water(), comm=comm) as modes:
        for temperature in (1e-3, 1.0, 1e4, 1e8):
            gas = sh.thermochemistry(modes, temperature, low_modes=low)
            for one in gas.quantities().values():
                assert one.low <= one.value <= one.high and one.error <= 1e-8 * max(1.0, abs(one.value))


def test_the_soft_mode_has_most_of_the_bar(comm):
    with sh.normal_modes(tetrahedron(5, soft=0.05), comm=comm) as modes:
        gas = sh.thermochemistry(modes, symmetry_number=1, spin=0)
    assert gas.dominant == 0 and gas.share > 0.4 and f"{gas.frequencies[0]:.4g}" in str(gas)


def test_imaginary_modes_are_refused_or_left_out(comm):
    """A wire of copper buckles."""
    atoms = Atoms("Cu3", [[0, 0, 2.2 * i] for i in range(3)], calculator=EMT())
    with sh.normal_modes(atoms, comm=comm) as modes:
        assert modes.imaginary.sum() == 2
        with pytest.raises(InputError, match=r"no minimum, with imaginary modes of .*i, .*i cm\^-1: relax"):
            sh.thermochemistry(modes)
        with pytest.raises(InputError, match=r"one imaginary mode, and here are imaginary modes of"):
            sh.thermochemistry(modes, imaginary="transition-state")
        gas = sh.thermochemistry(modes, imaginary="omit", symmetry_number=2, spin=0)
    assert gas.used.tolist() == [False, False, True, True] and gas.notes[0].startswith("left out: imaginary modes")
    assert gas.zero_point.value == pytest.approx(gas.frequencies[2:].sum() * units.invcm / 2)
    with sh.normal_modes(water(), comm=comm) as modes, pytest.raises(InputError, match="and here is none"):
        sh.thermochemistry(modes, imaginary="transition-state")


def test_a_transition_state(comm):
    """An atom that is pressed between two goes aside, in the one direction that it is not held in."""
    held = [FixAtoms([0, 2]), FixCartesian(1, mask=[False, True, False])]
    atoms = Atoms("Cu3", [[0, 0, 2.2 * i] for i in range(3)], calculator=EMT(), constraint=held)
    with sh.normal_modes(atoms, project=False, comm=comm) as modes:
        assert modes.imaginary.tolist() == [True, False]
        found = sh.thermochemistry(modes, imaginary="transition-state", energy=0.0)
    assert found.model == "harmonic" and found.used.tolist() == [False, True]
    exact = closed_form(found.frequencies[1:] * units.invcm, 298.15)
    values = [one.value for one in found.quantities().values()]
    np.testing.assert_allclose(values, exact, rtol=1e-12)
    assert found.helmholtz.widths[0] == 0 and found.dominant == 1


def test_a_single_atom_and_energies(comm):
    with sh.normal_modes(Atoms("H", calculator=EMT()), comm=comm) as modes:
        gas = sh.thermochemistry(modes, 298.15, BAR, spin=0.5)
    # Hydrogen atom: 114.717 J/K/mol (Cox, Wagman and Medvedev 1989).
    assert gas.geometry == "monatomic" and gas.entropy.value * PER_MOL == pytest.approx(114.717, abs=0.01)
    assert gas.dominant is None and gas.share == 0.0 and "nothing vibrates" in str(gas)

    class Failing(Springs):
        def get_property(self, name, atoms=None, allow_calculation=True):
            if name == "energy":
                raise RuntimeError("no disk")
            return super().get_property(name, atoms, allow_calculation)

    atoms = water()
    with sh.normal_modes(atoms, comm=comm) as modes:
        modes.atoms.calc = Failing(atoms.get_positions(), [])
        with pytest.raises(EvaluationError, match=r"energy of Failing.*no disk.*energy=\.\.\. gives one"):
            sh.thermochemistry(modes)
        assert sh.thermochemistry(modes, energy=-5.0).energy == -5.0


def test_what_is_done_to_the_atoms_later_changes_nothing(comm):
    atoms = water()
    with sh.normal_modes(atoms, comm=comm) as modes:
        before, moved = sh.thermochemistry(modes, symmetry_number=2, spin=0), modes.displacements(0)
        atoms.set_masses([15.999, 2.014, 2.014])
        atoms.positions *= 1.3
        atoms.set_constraint(FixAtoms([0]))
        after = sh.thermochemistry(modes, symmetry_number=2, spin=0)
        assert after.gibbs.value == pytest.approx(before.gibbs.value, abs=1e-12)
        np.testing.assert_array_equal(after.ends, before.ends)
        np.testing.assert_array_equal(modes.displacements(0), moved)


def test_what_is_refused(comm):
    with sh.normal_modes(water(), comm=comm) as modes:
        for given, words in (
            ({"temperature": 0.0}, "temperature=0.0 must be positive"),
            ({"temperature": np.nan}, "temperature=nan"),
            ({"temperature": 1e-9}, "give one from 1e-06"),
            ({"pressure": -1.0}, "pressure"),
            ({"low_modes": None}, "low_modes None"),
            ({"spin": [0, 1]}, "spin="),
            ({"model": "gas"}, "ideal-gas"),
            ({"low_modes": "harmonics"}, "did you mean harmonic"),
            ({"imaginary": "ignore"}, "omit"),
            ({"cutoff": 50.0}, "a cut-off is for low modes"),
            ({"low_modes": "msrrho", "cutoff": -1.0}, "cutoff=-1.0 must be positive"),
            ({"symmetry_number": 0}, "symmetry_number=0: at least 1"),
            ({"spin": 0.3}, "0.5, 1 and so on"),
            ({"geometry": "linear"}, "'linear', but the rotations.*not linear"),
            ({"model": "harmonic", "spin": 1}, "spin is for model 'ideal-gas'"),
            ({"energy": np.inf}, "not finite"),
        ):
            with pytest.raises(InputError, match=words):
                sh.thermochemistry(modes, **given)
    with pytest.raises(InputError, match="closed"):
        sh.thermochemistry(modes)
    with pytest.raises(InputError, match="not ndarray"):
        sh.thermochemistry(np.ones(3))
    with sh.normal_modes(water(), 2, comm=comm) as modes, pytest.raises(InputError, match="are 2 of 3, use k=3"):
        sh.thermochemistry(modes)
    with (
        sh.normal_modes(water(), project=False, comm=comm) as modes,
        pytest.raises(InputError, match="project=True"),
    ):
        sh.thermochemistry(modes)
    held = water()
    held.set_constraint(FixAtoms([0]))
    with sh.normal_modes(held, comm=comm) as modes:
        with pytest.raises(InputError, match="no ideal gas: some of these atoms are held"):
            sh.thermochemistry(modes, model="ideal-gas")
        assert sh.thermochemistry(modes).model == "harmonic"
    crystal = Atoms(
        "Cu4", 1.805 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]), cell=[3.61] * 3, pbc=True
    )
    crystal.calc = EMT()
    with sh.normal_modes(crystal, comm=comm) as modes, pytest.raises(InputError, match="molecule=True"):
        sh.thermochemistry(modes, model="ideal-gas")


def test_doubts_of_the_model_are_told(comm):
    """Of a molecule that is nearly linear a rotation is quantised; of one not at rest no frequency means much."""
    with sh.normal_modes(nearly_linear(), comm=comm) as modes:
        told = " ".join(sh.thermochemistry(modes).notes)
    assert "symmetry number 1 is taken" in told and "spin 0" in told and "a rotation is quantised" in told
    with sh.normal_modes(tetrahedron(3), comm=comm) as modes:
        if modes.hessian.error > 2e-3:
            assert any("coarse" in note for note in sh.thermochemistry(modes).notes)
