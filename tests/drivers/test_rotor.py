"""The driver of the rotor: Green's quartic, a shaft in closed form, the speed from which it whirls by itself."""

import numpy as np
import pytest

import rotor
import sparsehess as sh

pytestmark = pytest.mark.parallel([1, 2])

MOMENT = np.pi * rotor.RADIUS**4 / 4
AREA = np.pi * rotor.RADIUS**2


def green(speed):
    """Return the frequencies of a disk on a shaft without mass; backward ones are negative."""
    length, bending = rotor.LENGTH, rotor.E * MOMENT
    a, b, c = 12 * bending / length**3, -6 * bending / length**2, 4 * bending / length
    mass, diametral, polar = (rotor.DISK[name] for name in ("mass", "diametral", "polar"))
    # (a - m ω²)(c + P Ω ω - I ω²) = b²
    return np.sort(np.roots(np.polysub(np.polymul([-mass, 0, a], [-diametral, polar * speed, c]), [b * b])).real)


@pytest.mark.parametrize("speed", [0.0, 100.0, 500.0])
def test_frequencies_are_those_of_green(comm, speed):
    matrices = rotor.rotor(density=0.0)(speed)
    values, whirl, counted = rotor.modes(matrices, comm=comm)
    exact = green(speed)
    order = np.argsort(np.abs(exact), kind="stable")
    np.testing.assert_allclose(values, 1j * np.abs(exact[order]), rtol=1e-7)
    assert counted
    if speed:
        assert whirl == ["forward" if one > 0 else "backward" for one in exact[order]]


def test_a_shaft_that_turns(comm):
    """On simple supports each sine is a mode, also with damping: a quadratic for each."""
    cells, speed, at_rest, in_shaft = 24, 3000.0, 2.0, 1e-5
    K, M, tilting = rotor.shaft(cells)
    kept = np.delete(np.arange(2 * cells + 2), [0, 2 * cells])
    K, M, tilting = (one[kept][:, kept] for one in (K, M, tilting))
    exact = []
    for wave in np.arange(1, 4) * np.pi / rotor.LENGTH:
        inertia = rotor.DENSITY * (AREA + MOMENT * wave**2)
        stiffness = rotor.E * MOMENT * wave**4
        damping = at_rest * inertia + in_shaft * stiffness - 2j * speed * rotor.DENSITY * MOMENT * wave**2
        exact += np.roots([inertia, damping, (1 - 1j * speed * in_shaft) * stiffness]).tolist()
    exact = np.array([complex(one.real, abs(one.imag)) for one in exact])
    exact = exact[np.argsort(np.abs(exact))]
    matrices = rotor.in_two_planes(K, M + tilting, 2 * tilting, speed, at_rest, in_shaft)
    values, whirl, _ = rotor.modes(matrices, 6, comm)
    np.testing.assert_allclose(values, exact, rtol=2e-5)  # of cubic elements
    assert whirl == ["backward", "forward"] * 3


def test_it_whirls_by_itself_from_a_speed_on(comm):
    """Where damping in the shaft feeds as much as damping at rest takes: α ω m = η (Ω - ω) k, of the mode."""
    at, undamped, threshold = rotor.rotor(8, at_rest=rotor.AT_REST, in_shaft=rotor.IN_SHAFT), rotor.rotor(8), 300.0
    for _ in range(12):
        K, M, _, G, _ = undamped(threshold)
        with sh.damped_modes(K, M, gyroscopic=G, k=2, comm=comm) as found:
            parts = [np.concatenate(comm.allgather(one[1].getArray())) for one in (found.real, found.imaginary)]
            mass, stiffness = (sum(part @ (one @ part) for part in parts) for one in (M, K))
            threshold = found.frequencies[1] * (1 + rotor.AT_REST * mass / (rotor.IN_SHAFT * stiffness))
    for speed, grows in ((0.999 * threshold, False), (1.001 * threshold, True)):
        K, M, C, G, N = at(speed)
        with sh.damped_modes(K, M, C, G, 2, circulatory=N, comm=comm) as found:
            assert found.grows.tolist() == [False, grows] and found.whirl == ["backward", "forward"]
