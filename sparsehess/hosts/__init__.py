"""Where objectives and matrices come from other programs: ASE, CasADi, dolfinx, scikit-fem, JAX, PyTorch, and C.

Always: a host is imported by the first function that needs it, and its absence is a `StackError` that says how to
install it; what goes back to a host is of the host's own types. May import all packages up to eigen/certificates;
`learning` is shared by JAX and PyTorch, and hosts are not imported by each other otherwise. `torch_model` and
`jax_model` are short names of the modules with the curvatures of models.
"""

from importlib import import_module
from types import ModuleType

_MODELS = {
    "torch_model": "sparsehess.hosts.torch.model_curvature",
    "jax_model": "sparsehess.hosts.jax.model_curvature",
}


def __getattr__(name: str) -> ModuleType:
    """Return a module by its short name, loaded when it is first used (PEP 562)."""
    if name not in _MODELS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(_MODELS[name])
