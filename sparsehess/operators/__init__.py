"""Hessians that are more, or less, than a list of nonzeros: products alone, or a structure with exact answers.

What they share with assembled ones is a PETSc matrix, `mat`. Modules are imported when a name is first used.
"""

from importlib import import_module

_HOME = {
    "Operator": "operator",
    "LowRankDiagonal": "low_rank",
    "sr1": "quasi_newton",
    "lbfgs": "quasi_newton",
    "Kronecker": "kronecker",
    "EigenCorrected": "eigen_corrected",
    "nearest_kronecker": "nearest_kronecker",
    "BlockDiagonal": "block_diagonal",
    "DirectSum": "direct_sum",
    "congruence": "combinations",
    "weighted_sum": "combinations",
    "funm": "matrix_functions",
    "inverse_root": "matrix_functions",
    "selection": "transforms",
    "sharing": "transforms",
    "scaling": "transforms",
    "projection": "transforms",
    "lora": "transforms",
}

__all__ = [*_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'sparsehess.operators' has no attribute {name!r}")
    value = getattr(import_module(f"sparsehess.operators.{_HOME[name]}"), name)
    globals()[name] = value
    return value
