"""Checkpoints that end a run once they have saved, and what such runs must give."""

import functools
import signal
import tempfile
from pathlib import Path

import numpy as np

from sparsehess.pattern import Layout
from sparsehess.runtime.random_numbers import draw_uniform
from sparsehess.storage.checkpoint import Checkpoint
from support import faults

PROBLEM = {"n": 40, "x": "0123", "norm": 2.0}


class Interrupted(Checkpoint):
    """Stops at its m-th look, as if a signal had come to the last rank then."""

    def __init__(self, *arguments, after, **more):
        super().__init__(*arguments, **more)
        self.left = after

    def is_due(self, also=False):
        self.left -= 1
        if self.left == 0 and self.comm.rank == self.comm.size - 1:
            self.interrupt(signal.SIGUSR1)
        return super().is_due(also)


def contents(comm, scale=1.0):
    layout = Layout.from_size(40, comm)
    return layout, {
        "vectors": scale * np.stack([draw_uniform(layout, 1), draw_uniform(layout, 2)], axis=1),
        "numbers": np.arange(layout.start, layout.stop, dtype=np.int32),
        "bytes": np.arange(layout.start, layout.stop).astype(np.uint8),
        "nothing": np.empty((layout.n_local, 0)),
    }


ASKED = (
    "-k 4 --set log=log --set pids=pids --checkpoint kept --checkpoint-interval 0 --resume -q --json answer.json"
)


@functools.cache
def undisturbed(name):
    """Return (eigenvalues, evaluations) of a run that nothing stops."""
    with tempfile.TemporaryDirectory() as place:
        status, said = faults.start(Path(place), f"eigs problem.py:{name} {ASKED}").end()
        assert status == 0, said
        return np.array(faults.answer(Path(place))["eigenvalues"]), faults.evaluated(Path(place))


def the_same(folder, wanted):
    found = np.array(faults.answer(folder)["eigenvalues"])
    return len(found) == len(wanted) and np.allclose(found, wanted, rtol=1e-10, atol=0)
