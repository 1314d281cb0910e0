"""Layered networks as directed acyclic graphs: exact second derivatives, block by block.

Every node is a function of other nodes, and perhaps of parameters, whose first and second derivatives are
known; the Hessian of the losses follows by recursion over the graph. Modules are imported when a name is
first used.
"""

from sparsehess.runtime.lazy import attributes

_HOME = {
    "Network": "network",
    "NetworkHessian": "hessian",
    "Kinks": "activation_kinks",
    "Function": "node_function",
    "Local": "node_function",
    "Affine": "linear_layers",
    "Convolution": "linear_layers",
    "Pointwise": "activations",
    "tanh": "activations",
    "sigmoid": "activations",
    "softplus": "activations",
    "square": "activations",
    "PiecewiseLinear": "activations",
    "relu": "activations",
    "leaky_relu": "activations",
    "absolute": "activations",
    "Sum": "joins",
    "Product": "joins",
    "Concatenation": "joins",
    "SquaredError": "losses",
    "SoftmaxCrossEntropy": "losses",
    "Custom": "custom_node",
    "deal": "samples",
}

__all__ = [*_HOME]


__getattr__ = attributes(globals(), {name: f"sparsehess.networks.{module}" for name, module in _HOME.items()})
