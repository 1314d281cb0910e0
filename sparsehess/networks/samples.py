"""The samples: what the inputs of a network are given, each rank its own."""

from __future__ import annotations

import numpy as np

from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from sparsehess.runtime import agreement
from sparsehess.runtime.validation import reals


def deal(data: dict[str, np.ndarray], comm=None) -> dict[str, np.ndarray]:
    """Return this rank's samples of data that every rank has.

    Collective.

    Parameters
    ----------
    data
        (N, width) for each input.

    Raises
    ------
    InputError
        Numbers of samples differ.
    """
    lengths = {name: len(values) for name, values in data.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"inputs have different numbers of samples: {lengths}")
    layout = Layout.from_size(max(lengths.values(), default=0), comm)
    return {name: values[layout.start : layout.stop] for name, values in data.items()}


def checked(data: dict, widths: dict[str, int], comm) -> dict[str, np.ndarray]:
    """Return this rank's samples as arrays of floats, of one number of samples.

    Collective.

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
            raise InputError(f"data must be for the inputs {sorted(widths)}; look at {sorted(unknown)}")
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
