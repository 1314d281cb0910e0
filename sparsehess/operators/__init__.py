"""Hessians that are more than a list of nonzeros: a structure with exact answers.

Always: an operator is a PETSc matrix, `mat`, and tells only what its structure knows (`knows_eigenvalues`,
`knows_counts`); solving, counting and estimating are of `eigen`, which asks it first. Modules are imported when
a name is first used. Imports errors to hessian.
"""

from sparsehess.runtime.lazy import attributes

_HOME = {
    "Operator": "operator",
    "LowRankDiagonal": "low_rank",
    "sr1": "quasi_newton",
    "lbfgs": "quasi_newton",
    "Kronecker": "kronecker",
    "EigenCorrected": "eigen_corrected",
    "nearest_kronecker": "nearest_kronecker_sum",
    "BlockDiagonal": "block_diagonal",
    "DirectSum": "direct_sum",
    "congruence": "combinations",
    "weighted_sum": "combinations",
    "from_matvec": "products",
    "funm": "matrix_functions",
    "inverse_root": "matrix_functions",
    "selection": "transforms",
    "sharing": "transforms",
    "scaling": "transforms",
    "projection": "transforms",
    "lora": "transforms",
}

__all__ = [*_HOME]


__getattr__ = attributes(globals(), {name: f"sparsehess.operators.{module}" for name, module in _HOME.items()})
