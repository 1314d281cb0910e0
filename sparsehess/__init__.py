"""sparsehess: sparse Hessians from gradients, and their certified eigenpairs, over MPI.

Public names are loaded when they are first used; importing the package starts neither MPI nor PETSc.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "Objective": "sparsehess.objective",
    "Elements": "sparsehess.elements",
    "Pattern": "sparsehess.pattern",
    "Following": "sparsehess.pattern",
    "Layout": "sparsehess.pattern",
    "color": "sparsehess.coloring",
    "verify": "sparsehess.coloring",
    "Coloring": "sparsehess.coloring",
    "detect": "sparsehess.detection",
    "assemble": "sparsehess.assembly",
    "Hessian": "sparsehess.assembly",
    "MatrixFree": "sparsehess.operators",
    **dict.fromkeys(
        (
            "Operator",
            "LowRankDiagonal",
            "sr1",
            "lbfgs",
            "Kronecker",
            "EigenCorrected",
            "nearest_kronecker",
            "BlockDiagonal",
            "DirectSum",
            "congruence",
            "weighted_sum",
            "funm",
        ),
        "sparsehess.operators",
    ),
    "Network": "sparsehess.networks",
    "NetworkHessian": "sparsehess.networks",
    "thin": "sparsehess.thinning",
    "Thinned": "sparsehess.thinning",
    **dict.fromkeys(("Above", "Largest", "Hysteresis", "Inherited"), "sparsehess.pattern.selection"),
    "eigs": "sparsehess.solvers",
    "Spectrum": "sparsehess.solvers",
    "SolveSpec": "sparsehess.solvers",
    "EigenProblem": "sparsehess.solvers",
    "match": "sparsehess.solvers.matching",
    "Match": "sparsehess.solvers.matching",
    "rigid_body_modes": "sparsehess.nullspace",
    "density": "sparsehess.estimate",
    "Density": "sparsehess.estimate",
    "trace": "sparsehess.estimate",
    "Trace": "sparsehess.estimate",
    "rank": "sparsehess.estimate",
    "Rank": "sparsehess.estimate",
    "diagonal": "sparsehess.estimate",
    "block_traces": "sparsehess.estimate",
    "inertia": "sparsehess.signs",
    "Signs": "sparsehess.signs",
    "curvature": "sparsehess.lowest",
    "Curvature": "sparsehess.lowest",
    "certify": "sparsehess.certificate",
    "Certificate": "sparsehess.certificate",
    "SparseHessError": "sparsehess.errors",
    "InputError": "sparsehess.errors",
    "StackError": "sparsehess.errors",
    "EvaluationError": "sparsehess.errors",
    "CheckError": "sparsehess.errors",
    "NotConverged": "sparsehess.errors",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'sparsehess' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
