"""Hessians that are no assembled matrices: what they share with those is a PETSc matrix that multiplies."""

from sparsehess.operators.shell import MatrixFree

__all__ = ["MatrixFree"]
