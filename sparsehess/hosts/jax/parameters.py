"""Trees of parameters as variables: names of their arrays, and which variables these are."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsehess.hosts.learning.parameter_groups import Selection, consecutive_slices, select_parameters


def parameter_names(params: Any) -> list[str]:
    """Return the names of the arrays of a tree that may be variables, in the order of JAX.

    Not collective.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.hosts.jax.parameters import parameter_names
    >>> parameter_names({"dense": {"kernel": np.ones((3, 2)), "bias": np.ones(2)}, "steps": 7})
    ['dense/bias', 'dense/kernel']
    """
    return [name for name, leaf in named_leaves(params) if is_real(leaf)]


def parameter_slices(params: Any, parameters: Selection = None) -> dict[str, slice]:
    """Return which variables the arrays of a tree are: a slice for each name, those that are chosen.

    Not collective.

    Parameters
    ----------
    params
        A tree of arrays; those of floating point may be variables.
    parameters
        Which of them are: None for all, a predicate of a name, or a regular expression or a list of them.

    Raises
    ------
    InputError
        Nothing is chosen, or an expression chooses nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.hosts.jax.parameters import parameter_slices
    >>> parameter_slices({"kernel": np.ones((3, 2)), "bias": np.ones(2)})
    {'bias': slice(0, 2, None), 'kernel': slice(2, 8, None)}
    """
    sizes = {name: int(np.size(leaf)) for name, leaf in named_leaves(params)}
    chosen = select_parameters(parameter_names(params), parameters)
    return consecutive_slices((name, sizes[name]) for name in chosen)


def named_leaves(params: Any) -> list[tuple[str, Any]]:
    """Return all leaves of a tree with their names, in the order of JAX.

    Not collective. A name is where the leaf is in the tree, such as `dense/kernel`.
    """
    import jax

    return [(_name(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]]


def is_real(leaf: Any) -> bool:
    """Return whether a leaf is of floating point, JAX's own kinds (bfloat16) among them.

    Not collective.
    """
    return _is_of(leaf, np.floating)


def is_complex(leaf: Any) -> bool:
    """Return whether a leaf is of complex numbers.

    Not collective.
    """
    return _is_of(leaf, np.complexfloating)


def is_array(leaf: Any) -> bool:
    """Return whether a leaf is of numbers or keys of random ones, not a function, a word or the like.

    Not collective.
    """
    import jax

    kinds = (np.number, np.bool_, jax.dtypes.extended)
    return any(_is_of(leaf, kind) for kind in kinds)


def _is_of(leaf: Any, kind: Any) -> bool:
    import jax

    return jax.dtypes.issubdtype(getattr(leaf, "dtype", None) or np.asarray(leaf).dtype, kind)


def _name(path: tuple) -> str:
    keys = (getattr(part, "key", getattr(part, "name", getattr(part, "idx", part))) for part in path)
    return "/".join(str(key) for key in keys)
