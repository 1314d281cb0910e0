"""Whether a calculator lets atoms move rigidly: fields, walls, grids and other atoms that it knows do not.

The Hessian of an energy that depends on the places of atoms to each other alone takes rigid motions to what
`turned` says. What it makes of them beyond that is a force of something else, and projecting takes a mode away.
"""

from __future__ import annotations

from typing import NamedTuple

from mpi4py import MPI

import numpy as np
import scipy.linalg

from sparsehess.hessian.hessian import Hessian
from sparsehess.hosts.ase.objective import UNITS

# Times the error of an eigenvalue, above which a rigid motion is told to be resisted by something else.
_ERRORS = 10.0

# Of a Hessian that a calculator has itself: single precision, of which the errors of its products know nothing.
_SINGLE = 1e-5


class Outside(NamedTuple):
    """What rigid motions are resisted by beside the forces that are left.

    Attributes
    ----------
    curvature
        In eV/Å²/amu, of the motion where it is farthest from zero; 0 where there are no motions.
    name
        Of the rigid motion that is most in that.
    rounding
        What single precision may be of that, where the calculator has the Hessian itself.
    """

    curvature: float
    name: str
    rounding: float

    def doubt(self, error: float) -> str:
        """Return why nothing is said of minima, "" where nothing stands against it.

        Not collective.

        Parameters
        ----------
        error
            How far the error of the Hessian may move an eigenvalue.
        """
        if abs(self.curvature) <= max(_ERRORS * error, self.rounding):
            return ""
        frequency = float(UNITS.of_eigenvalues(np.array([self.curvature]))[0])
        shown = f"{abs(frequency):.2g}{'i' if frequency < 0 else ''} {UNITS.frequency}"
        return (
            f"{self.name}, which is projected out, changes the energy ({shown}) by more than the forces say: a "
            "field, a wall or a grid that stays where it is"
        )


def outside(hessian: Hessian, turned: np.ndarray) -> Outside:
    """Return what resists the null vectors of a Hessian beside forces.

    Collective.

    Parameters
    ----------
    turned
        (m, n) what the Hessian should make of them.
    """
    objective = hessian.objective
    if objective.null_vectors is None or not len(objective.null_vectors):
        return Outside(0.0, "", 0.0)
    rows = np.stack([objective.local(row) for row in objective.null_vectors])
    v, image = hessian.mat.createVecs()
    images = []
    for row in rows:
        v.setArray(row)
        hessian.mat.mult(v, image)
        images.append(image.getArray(readonly=True).copy())
    v.destroy()
    image.destroy()
    left = np.stack(images) - np.stack([objective.local(row) for row in turned])
    comm, masses = objective.comm, objective.local(objective.mass)
    curvature, weight = comm.allreduce(np.stack([rows @ left.T, (rows * masses) @ rows.T]))
    values, vectors = scipy.linalg.eigh(0.5 * (curvature + curvature.T), weight)
    most = int(np.abs(values).argmax())
    name = objective.null_names[int(np.abs(vectors[:, most]).argmax())]
    lightest = comm.allreduce(float(masses.min(initial=np.inf)), op=MPI.MIN)
    rounding = 0.0 if objective.hvp is None else _SINGLE * hessian.mat.norm() / lightest
    return comm.bcast(Outside(float(values[most]), name, float(rounding)))
