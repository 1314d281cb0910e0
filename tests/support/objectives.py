"""Objectives of the smooth functions."""

from petsc4py import PETSc

import numpy as np

import sparsehess as sh

SOME = ["chained_wood", "broyden_banded", "arwhead", "sparsine", "minimal_surface"]


def objective(function, comm, **more):
    given = {"gradient": function.gradient, "pattern": sh.Pattern.from_scipy(function.pattern, comm=comm)}
    return sh.Objective(x=function.x, comm=comm, name=function.name, **{**given, **more})


def on_vectors(function, comm):
    """Return the objective on PETSc vectors of the communicator; the gradient gathers x."""
    x = PETSc.Vec().createMPI(len(function.x), comm=comm)
    first, last = x.getOwnershipRange()
    x.setArray(function.x[first:last])

    def gradient(u, g):
        whole = np.concatenate(u.comm.tompi4py().allgather(u.getArray(readonly=True).copy()))
        g.setArray(function.gradient(whole)[first:last])

    return sh.Objective(x=x, gradient=gradient, pattern=sh.Pattern.from_scipy(function.pattern, comm=comm))


def product(mat, vector, comm):
    """Return mat @ vector, whole on every rank."""
    x, y = mat.createVecs()
    first, last = x.getOwnershipRange()
    x.setArray(vector[first:last])
    mat.mult(x, y)
    out = np.concatenate(comm.allgather(y.getArray().copy()))
    x.destroy()
    y.destroy()
    return out
