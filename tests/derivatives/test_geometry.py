"""Where variables are: shapes are checked, corners put in turn."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.derivatives.geometry import in_turn
from sparsehess.errors import InputError

SQUARE = [[0, 0], [1, 0], [1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"positions": [1.0, 2.0]}, "positions"),
        ({"positions": np.zeros((2, 4))}, "positions"),
        ({"positions": SQUARE, "variables": [[0], [1]]}, "variables"),
        ({"positions": SQUARE, "variables": np.zeros((4, 3), int)}, "2 dimensions"),
        ({"positions": SQUARE, "variables": np.zeros((4, 2))}, "whole numbers"),
        ({"positions": np.zeros((2, 3)), "variables": [[0], [1]]}, "3 dimensions"),
        ({"positions": SQUARE, "species": ["C"]}, "species"),
        ({"positions": SQUARE, "faces": [[[0, 1, 4]]]}, "there are 4"),
        ({"positions": SQUARE, "faces": [[[0, 1]]]}, "faces"),
        ({"positions": SQUARE, "edges": [[0, -1]]}, "there are 4"),
        ({"positions": SQUARE, "cell": [9.0, 9.0]}, "cell of nodes"),
        ({"positions": SQUARE, "cell": [[9.0, 0.0], [0.0, np.inf]]}, "cell of nodes"),
        ({"positions": SQUARE, "charges": [1.0]}, "charges of nodes"),
    ],
)
def test_refused(arguments, told):
    with pytest.raises(InputError, match=told):
        sh.Geometry(**arguments)


def test_an_objective_checks_its_geometry():
    def made(geometry):
        return sh.Objective(x=np.ones(4), gradient=lambda x: x, geometry=geometry)

    with pytest.raises(InputError, match="variable 7"):
        made(sh.Geometry(SQUARE))
    with pytest.raises(InputError, match="must be a Geometry"):
        made(np.zeros((2, 2)))
    assert made(sh.Geometry(SQUARE[:2])).geometry.variables.tolist() == [[0, 1], [2, 3]]


def test_corners_in_turn():
    at = np.array(SQUARE, float)
    for corners in ([0, 1, 2, 3], [0, 2, 1, 3], [0, 1, 3, 2], [3, 1, 0, 2]):
        found = in_turn(at, np.array([corners]))[0]
        sides = np.linalg.norm(at[found] - at[np.roll(found, 1)], axis=1)
        assert sorted(found) == [0, 1, 2, 3] and np.allclose(sides, 1)
    assert in_turn(at, np.array([[0, 1, 2]])).tolist() == [[0, 1, 2]]
