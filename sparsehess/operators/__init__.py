"""Hessians that are more, or less, than a list of nonzeros: products alone, or a structure with exact answers.

What they share with assembled ones is a PETSc matrix, `mat`. Modules are imported when a name is first used.
"""

from importlib import import_module

from sparsehess.operators.shell import MatrixFree

_HOME = {
    "Operator": "operator",
    "LowRankDiagonal": "lowrank",
    "sr1": "quasinewton",
    "lbfgs": "quasinewton",
    "Kronecker": "kronecker",
    "EigenCorrected": "eigenbasis",
    "nearest_kronecker": "nearest",
    "BlockDiagonal": "blocks",
    "DirectSum": "directsum",
    "congruence": "combined",
    "weighted_sum": "combined",
    "funm": "functions",
    "inverse_root": "functions",
    "selection": "transforms",
    "sharing": "transforms",
    "scaling": "transforms",
    "projection": "transforms",
    "lora": "transforms",
}

__all__ = ["MatrixFree", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'sparsehess.operators' has no attribute {name!r}")
    value = getattr(import_module(f"sparsehess.operators.{_HOME[name]}"), name)
    globals()[name] = value
    return value
