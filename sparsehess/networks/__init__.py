"""Layered networks: exact second derivatives, block by block.

A network is a directed acyclic graph of nodes. Each computes a function of other nodes, and perhaps of parameters,
whose first and second derivatives are known; the Hessian of the losses follows by recursion over the graph.

Always: parents come before their children; arrays of nodes are (samples, units), those of tangents
and adjoints (samples, directions, units); a rank evaluates its own samples only, and sums over the ranks are
formed in `block_rows` or by whoever calls the objective.

May import errors, runtime, pattern, storage, coloring, derivatives, hessian, operators and eigen; not hosts,
which stand beside it. Modules are imported when a name is first used.
"""

from sparsehess.runtime.lazy import attributes

_HOME = {
    "Network": "network",
    "NetworkHessian": "hessian",
    "Kinks": "activation_kinks",
    "NodeFunction": "node_function",
    "NodeDerivatives": "node_function",
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
    "shard_samples": "samples",
}

__all__ = [*_HOME]


__getattr__ = attributes(globals(), {name: f"sparsehess.networks.{module}" for name, module in _HOME.items()})
