"""Chunks: how many samples are differentiated at a time, so that the arrays of all nodes fit into a workspace."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import numpy as np

from sparsehess.networks.plan import Plan

# Numbers of 8 bytes, 64 MB, that the arrays of a chunk of samples may have together by default.
DEFAULT_WORKSPACE = 2**23


def split_samples(
    data: dict[Hashable, np.ndarray], sample_numbers: int, workspace: int, fewest: int = 1
) -> Iterator[dict[Hashable, np.ndarray]]:
    """Yield the data in chunks of samples that fit into a workspace.

    Parameters
    ----------
    data
        {input: (N, width)}.
    sample_numbers
        Numbers that one sample takes.
    workspace
        Numbers that a chunk may take.
    fewest
        Samples that a chunk has all the same, if there are so many.
    """
    N = len(next(iter(data.values())))
    step = max(fewest, workspace // max(sample_numbers, 1))
    for first in range(0, N, step):
        yield {name: values[first : first + step] for name, values in data.items()}


def product_numbers(plan: Plan, m: int) -> int:
    """Return about how many numbers one sample takes in m Hessian products."""
    return (3 * m + 4) * sum(node.width for node in plan.nodes)


def block_numbers(plan: Plan, w: int) -> int:
    """Return about how many numbers one sample takes in the blocks H_vw of node w with all nodes v."""
    node, most = plan.nodes[w], max(plan.nodes[v].size for v in plan.parametric_nodes)
    own = node.size**2 if node.function.couples_parameters else 0
    return product_numbers(plan, node.width) + 3 * node.width * most + 3 * own


def fewest_block_samples(plan: Plan, w: int) -> int:
    """Return the number of samples from which the arrays of a chunk outgrow the blocks H_vw of node w.

    The arrays have d_w k_v numbers a sample and the blocks k_w k_v, so smaller chunks would save no memory.
    """
    return max(1, plan.nodes[w].size // plan.nodes[w].width)
