"""The driver of the spinning blade: published frequencies, what crosses and veers, and a slope by differences."""

import numpy as np
import pytest

import sparsehess as sh
import spinning_blade
from spinning_blade import WRIGHT, blade, campbell, slope_of_first

pytestmark = pytest.mark.parallel([1, 2])


def first(speed, comm):
    K, M = blade()(speed)
    with sh.eigs(K, 1, mass=M, comm=comm) as found:
        return np.sqrt(found.eigenvalues[0])


def test_frequencies_are_those_of_wright(comm):
    for speed, known in WRIGHT.items():
        assert first(speed, comm) == pytest.approx(known, abs=2e-4)


@pytest.mark.parametrize(("pitch", "kind"), [(0.0, "crossing"), (0.1, "veering")])
def test_what_happens(pitch, kind, comm, monkeypatch):
    monkeypatch.setattr(spinning_blade, "SPEEDS", np.linspace(9.0, 14.0, 4))
    found = campbell(pitch, comm, cells=12)
    (event,) = found.events
    assert event.kind == kind and event.modes == (0, 1) and 11.5 < event.value < 12.5 and found.counted.all()


def test_the_slope_is_that_of_differences(comm):
    assert slope_of_first(5.0, comm=comm) == pytest.approx(
        (first(5.01, comm) - first(4.99, comm)) / 0.02, abs=1e-5
    )
