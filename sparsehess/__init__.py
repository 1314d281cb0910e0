"""sparsehess: sparse Hessians from gradients, and their certified eigenpairs, over MPI.

Public names are loaded when they are first used; importing the package starts neither MPI nor PETSc.
"""

from sparsehess.runtime.lazy import attributes
from sparsehess.runtime.version import __version__

_HOME = {
    "Objective": "sparsehess.derivatives.objective",
    "from_jax": "sparsehess.hosts.jax.objective",
    "jax_hessian": "sparsehess.hosts.jax.traced_hessian",
    "from_torch": "sparsehess.hosts.torch.objective",
    "Units": "sparsehess.derivatives.units",
    "Geometry": "sparsehess.derivatives.geometry",
    "Elements": "sparsehess.derivatives.elements",
    "from_atoms": "sparsehess.hosts.ase.objective",
    "normal_modes": "sparsehess.hosts.ase.vibrations",
    "thermochemistry": "sparsehess.hosts.ase.thermodynamics",
    "force_constants": "sparsehess.hosts.ase.crystal_forces",
    "saddle_point": "sparsehess.hosts.ase.saddle_points",
    "normal_modes_of_each": "sparsehess.hosts.ase.modes_of_each",
    "from_casadi": "sparsehess.hosts.casadi",
    "Pattern": "sparsehess.pattern",
    "Following": "sparsehess.pattern",
    "Layout": "sparsehess.pattern",
    "color": "sparsehess.coloring",
    "verify_coloring": "sparsehess.coloring",
    "Coloring": "sparsehess.coloring",
    "detect_pattern": "sparsehess.hessian.pattern_detection",
    "assemble": "sparsehess.hessian.assembly",
    "Hessian": "sparsehess.hessian.hessian",
    "MatrixFree": "sparsehess.hessian.matrix_free",
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
            "from_matvec",
            "funm",
        ),
        "sparsehess.operators",
    ),
    **dict.fromkeys(("near_far", "NearFar"), "sparsehess.long_range"),
    "Network": "sparsehess.networks",
    "NetworkHessian": "sparsehess.networks",
    "sparsify": "sparsehess.eigen.certificates.sparsification",
    "Sparsified": "sparsehess.eigen.certificates.sparsification",
    **dict.fromkeys(("Above", "Largest", "Hysteresis", "Inherited"), "sparsehess.pattern.dropping_rules"),
    "eigs": "sparsehess.eigen.solvers",
    "Spectrum": "sparsehess.eigen.problem.spectrum",
    "SolveSpec": "sparsehess.eigen.problem.solve_spec",
    "EigenProblem": "sparsehess.eigen.problem.problem",
    "lowest_pairs": "sparsehess.eigen.solvers.lowest_pairs",
    "match_modes": "sparsehess.eigen.solvers.mode_matching",
    "ModeMatch": "sparsehess.eigen.solvers.mode_matching",
    "rigid_body_modes": "sparsehess.eigen.problem.rigid_body_modes",
    "density": "sparsehess.eigen.estimates",
    "Density": "sparsehess.eigen.estimates",
    "trace": "sparsehess.eigen.estimates",
    "Trace": "sparsehess.eigen.estimates",
    "rank": "sparsehess.eigen.certificates.numerical_rank",
    "Rank": "sparsehess.eigen.certificates.numerical_rank",
    "diagonal": "sparsehess.eigen.estimates",
    "block_traces": "sparsehess.eigen.estimates",
    "inertia": "sparsehess.eigen.certificates.inertia",
    "Inertia": "sparsehess.operators.eigenvalues",
    "curvature": "sparsehess.eigen.certificates.lowest_curvature",
    "Curvature": "sparsehess.eigen.certificates.lowest_curvature",
    **dict.fromkeys(
        ("eigenvalue_derivatives", "EigenvalueDerivatives"), "sparsehess.eigen.families.eigenvalue_derivatives"
    ),
    **dict.fromkeys(
        ("eigenvector_derivatives", "EigenvectorDerivatives"), "sparsehess.eigen.families.eigenvector_derivatives"
    ),
    **dict.fromkeys(
        ("hessian_derivative", "matrix_derivative", "MatrixDerivative"),
        "sparsehess.eigen.families.matrix_derivatives",
    ),
    "follow": "sparsehess.eigen.families.follow",
    "FollowedModes": "sparsehess.eigen.families.followed_modes",
    "ModeEvent": "sparsehess.eigen.families.mode_events",
    "selected_inverse": "sparsehess.eigen.inverses.selected_inverse",
    "SelectedInverse": "sparsehess.eigen.inverses.selected_inverse",
    "gaussian_samples": "sparsehess.eigen.inverses.gaussian_samples",
    "Samples": "sparsehess.eigen.inverses.gaussian_samples",
    "reduced_hessian": "sparsehess.eigen.inverses.reduced_hessian",
    "ReducedHessian": "sparsehess.eigen.inverses.reduced_hessian",
    "stationary_point": "sparsehess.eigen.inverses.stationary_point",
    "StationaryPoint": "sparsehess.eigen.inverses.stationary_point",
    "effective_masses": "sparsehess.mechanics.effective_masses",
    "EffectiveMasses": "sparsehess.mechanics.effective_masses",
    "rigid_vectors": "sparsehess.mechanics.rigid_vectors",
    "combine_responses": "sparsehess.mechanics.response_spectra",
    **dict.fromkeys(("buckling", "Buckling"), "sparsehess.mechanics.buckling"),
    "ModeMesh": "sparsehess.mechanics.mode_mesh",
    "write_modes": "sparsehess.mechanics.mode_files",
    "damped_modes": "sparsehess.mechanics.damped_modes",
    "DampedModes": "sparsehess.mechanics.complex_modes",
    "animate_mode": "sparsehess.mechanics.mode_pictures",
    "phonons": "sparsehess.crystals.solver",
    "Phonons": "sparsehess.crystals.solver",
    "ForceConstants": "sparsehess.crystals.force_constants",
    "read_force_constants": "sparsehess.crystals.phonopy_files",
    "certify": "sparsehess.eigen.certificates.certificate",
    "Certificate": "sparsehess.eigen.certificates.certificate",
    "Progress": "sparsehess.runtime.progress",
    "SparseHessError": "sparsehess.errors",
    "InputError": "sparsehess.errors",
    "StackError": "sparsehess.errors",
    "EvaluationError": "sparsehess.errors",
    "CheckError": "sparsehess.errors",
    "NotConverged": "sparsehess.errors",
}

__all__ = ["__version__", *_HOME]


__getattr__ = attributes(globals(), _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
