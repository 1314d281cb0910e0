"""Units and the frequencies that textbooks have."""

import numpy as np
import pytest

from sparsehess.derivatives.units import Units
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
