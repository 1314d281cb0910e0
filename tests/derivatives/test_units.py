"""Units and the frequencies that textbooks have."""

import numpy as np
import pytest

from sparsehess.derivatives.units import FREQUENCIES, Units
from sparsehess.errors import InputError


def test_units_give_textbook_frequencies():
    # H35Cl: force constant 516 N/m, reduced mass 0.9797 amu: 2990 cm^-1
    units = Units.of("J", "m", "amu", "cm^-1")
    assert units.of_eigenvalues(np.array([516 / 0.9797]))[0] == pytest.approx(2990, rel=2e-3)
    assert units.of_eigenvalues(np.array([-1.0]))[0] < 0
    hertz = Units.of("J", "m", "kg", "Hz")
    assert hertz.of_eigenvalues(np.array([(2 * np.pi * 50) ** 2]))[0] == pytest.approx(50)
    # a spring of 1 N/mm and a mass of 1 t: 1 rad/s; of 1 kg: sqrt(1000) rad/s
    for mass, rate in (("t", 1.0), ("kg", np.sqrt(1000.0))):
        found = Units.of("mJ", "mm", mass, "Hz").of_eigenvalues(np.ones(1))[0]
        assert found == pytest.approx(rate / (2 * np.pi))
    with pytest.raises(InputError, match="furlong"):
        Units.of("J", "furlong", "kg")


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_frequencies_go_to_eigenvalues_and_back(frequency):
    units = Units.of_matrices("eV/A^2", "u", frequency)
    values = np.array([-3.0, -1e-20, 0.0, 1e-12, 2.0, 1e9])
    there = units.of_eigenvalues(values)
    assert np.all(np.diff(there) > 0)  # so that ends of intervals stay in order
    np.testing.assert_allclose(units.to_eigenvalues(there), values, rtol=1e-14)
    assert units.to_eigenvalues([-np.inf, np.inf]).tolist() == [-np.inf, np.inf]
    np.testing.assert_allclose(units.to("meV").to(frequency).factor, units.factor, rtol=1e-14)


def test_units_of_matrices():
    """By ω = √(k/m) in SI, and by conversion factors of CODATA 2018: 1 eV is 8065.54394 cm⁻¹, 241.798924 THz."""
    for stiffness, mass, rate in (
        ("N/m", "kg", 1.0),
        ("N/mm", "t", 1.0),
        ("N/mm", "kg", np.sqrt(1e3)),
        ("kN/m", "t", 1.0),
        ("lbf/in", "slinch", 1.0),
        ("lbf/in", "lb", np.sqrt(386.0885826771653)),  # standard gravity in in/s²
        ("lbf/ft", "slug", 1.0),
        ("mJ/mm^2", "kg", np.sqrt(1e3)),
    ):
        assert Units.of_matrices(stiffness, mass, "rad/s").factor == pytest.approx(rate), (stiffness, mass)
        assert Units.of_matrices(stiffness, mass).factor == pytest.approx(rate / (2 * np.pi))
    assert Units.of_matrices("eV/A^2", "u", "cm^-1") == Units.of("eV", "angstrom", "amu")
    assert Units.of_matrices("kcal/mol/A^2", "u", "meV") == Units.of("kcal/mol", "angstrom", "amu", "meV")
    atomic = Units.of_matrices("hartree/bohr^2", "me", "meV").factor  # ħω = 1 hartree
    assert atomic == pytest.approx(27211.386245988, rel=1e-9)
    quantum = Units.of_matrices("hartree/bohr^2", "me", "meV")
    assert quantum.to("cm^-1").factor == pytest.approx(219474.63136320, rel=1e-9)
    assert quantum.to("THz").factor == pytest.approx(6579.683920502, rel=1e-9)
    assert Units.consistent("Hz") == Units.of("J", "m", "kg", "Hz")


@pytest.mark.parametrize(
    ("stiffness", "mass", "said"),
    [
        ("N", "kg", "is no stiffness"),
        ("J/m", "kg", "is no stiffness"),
        ("N/m^2", "kg", "is no stiffness"),
        ("N/furlong", "kg", "length of 'N/furlong'"),
        ("stone/m", "kg", "force of"),
        ("N/m", "stone", "mass 'stone'"),
    ],
)
def test_units_that_there_are_not(stiffness, mass, said):
    with pytest.raises(InputError, match=said):
        Units.of_matrices(stiffness, mass)
    with pytest.raises(InputError, match="of consistent units"):
        Units.consistent("meV")
