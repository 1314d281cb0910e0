"""Samples over ranks: each rank's share of arrays, and mini-batches drawn from all shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime import communicator
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.validation import whole_number

if TYPE_CHECKING:
    from mpi4py import MPI

# Arrays or tensors with samples along the first axis.
Samples = TypeVar("Samples", bound=Any)


def share_samples(*arrays: Samples, comm: MPI.Comm | None = None) -> tuple[Samples, ...]:
    """Return this rank's samples of arrays that all ranks have.

    Collective on `comm`. Ranks have about as many samples as each other, one rank's after another's.

    Parameters
    ----------
    arrays
        Arrays or tensors with samples along the first axis, the same on every rank.
    comm
        Communicator; default this process alone.

    Returns
    -------
    shares
        For each array its slice.

    Raises
    ------
    InputError
        The arrays have different numbers of samples.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.hosts.learning.sample_shares import share_samples
    >>> inputs, targets = share_samples(np.zeros((6, 2)), np.ones(6))
    >>> inputs.shape, targets.shape
    ((6, 2), (6,))
    """
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1:
        raise InputError(f"arrays to share out must have one number of samples, not {sorted(lengths)}")
    layout = Layout.from_size(lengths.pop(), communicator(comm))
    return tuple(array[layout.start : layout.stop] for array in arrays)


def draw_mini_batch(samples: int, size: int, *, seed: int = 0, comm: MPI.Comm | None = None) -> np.ndarray:
    """Return which of this rank's samples are in a mini-batch drawn from all ranks' without replacement.

    Collective on `comm`. On any number of ranks the same samples are drawn, where shares are those of
    `share_samples`.

    Parameters
    ----------
    samples
        How many samples this rank has.
    size
        Number of samples in the mini-batch, all ranks together.
    seed
        Seed of the draw.
    comm
        Communicator; default this process alone.

    Returns
    -------
    indices
        (m,) ascending, from 0 to samples - 1.

    Raises
    ------
    InputError
        More samples are wanted than there are.

    Examples
    --------
    >>> from sparsehess.hosts.learning.sample_shares import draw_mini_batch
    >>> len(draw_mini_batch(100, 8))
    8
    """
    layout = Layout.from_local(samples, communicator(comm))
    if whole_number(size, "size", 1) > layout.n:
        raise InputError(f"a mini-batch of {size} from {layout.n} samples: at least 1, and no more than there are")
    chosen = np.sort(np.random.default_rng(seed).choice(layout.n, size, replace=False))
    return chosen[(chosen >= layout.start) & (chosen < layout.stop)] - layout.start
