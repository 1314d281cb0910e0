"""Layered networks as directed acyclic graphs: exact second derivatives, block by block.

Every node is a function of other nodes, and perhaps of parameters, whose first and second derivatives are
known; the Hessian of the losses follows by recursion over the graph. Modules are imported when a name is
first used.
"""

from importlib import import_module

_HOME = {
    "Network": "graph",
    "NetworkHessian": "hessian",
    "Kinks": "kinks",
    "Function": "function",
    "Local": "function",
    "Affine": "linear",
    "Convolution": "linear",
    "Pointwise": "pointwise",
    "tanh": "pointwise",
    "sigmoid": "pointwise",
    "softplus": "pointwise",
    "square": "pointwise",
    "PiecewiseLinear": "pointwise",
    "relu": "pointwise",
    "leaky_relu": "pointwise",
    "absolute": "pointwise",
    "Sum": "joining",
    "Product": "joining",
    "Concatenation": "joining",
    "SquaredError": "losses",
    "SoftmaxCrossEntropy": "losses",
    "Custom": "custom",
    "deal": "data",
}

__all__ = [*_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'sparsehess.networks' has no attribute {name!r}")
    value = getattr(import_module(f"sparsehess.networks.{_HOME[name]}"), name)
    globals()[name] = value
    return value
