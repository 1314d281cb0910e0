"""Samples: the data that a network's inputs are given, each rank its own."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime import agreement
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from mpi4py import MPI


def shard_samples(data: dict[Hashable, np.ndarray], comm: MPI.Comm | None = None) -> dict[Hashable, np.ndarray]:
    """Return this rank's share of samples that every rank has.

    *Collective.*

    Parameters
    ----------
    data
        {input: (N, width)}, the same on every rank.
    comm
        Communicator. Default: this process alone.

    Returns
    -------
    dict
        {input: (N_local, width)}, views; the shares of all ranks differ by one sample at most.

    Raises
    ------
    InputError
        Numbers of samples differ.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsehess.networks import shard_samples
    >>> shard_samples({"point": np.zeros((5, 2)), "class": np.ones((5, 3))})["class"].shape
    (5, 3)
    """
    lengths = {name: len(values) for name, values in data.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"inputs have different numbers of samples: {lengths}")
    layout = Layout.from_size(max(lengths.values(), default=0), comm)
    return {name: values[layout.start : layout.stop] for name, values in data.items()}


def check_samples(data: object, widths: dict[Hashable, int], comm: MPI.Comm) -> dict[Hashable, np.ndarray]:
    """Return this rank's samples as arrays of floats.

    *Collective.*

    Parameters
    ----------
    data
        {input: (N, width)} as the caller gives it.
    widths
        {input: width} of the network.
    comm
        Communicator.

    Raises
    ------
    InputError
        An input has no data, or of another width; numbers of samples differ; no rank has any.
    """
    with agreement(comm):
        if not isinstance(data, dict):
            raise InputError(f"data must be {{input: (N, width)}}, not {type(data).__name__}")
        unknown = [*(set(data) - set(widths)), *(set(widths) - set(data))]
        if unknown:
            raise InputError(f"data must be for the inputs {_listed(widths)}; look at {_listed(unknown)}")
        out = {name: np.atleast_1d(reals(data[name], f"data of input {name}")) for name in widths}
        N = len(next(iter(out.values())))
        for name, values in out.items():
            if values.ndim != 2 or values.shape[1] != widths[name]:
                raise InputError(f"input {name} is of width {widths[name]}; its data have shape {values.shape}")
            if len(values) != N:
                raise InputError(f"input {name} has {len(values)} samples where others have {N}")
            if not np.isfinite(values).all():
                raise InputError(f"data of input {name} must be finite")
    if not comm.allreduce(N):
        raise InputError("no rank has any samples")
    return out


def _listed(names: Iterable[Hashable]) -> list[Hashable]:
    """Return names of any kind in the order of their text."""
    return sorted(names, key=str)
