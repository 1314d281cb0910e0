"""How often PETSc does a thing."""

import itertools
from contextlib import contextmanager

from petsc4py import PETSc

_STAGES = itertools.count()


@contextmanager
def counted_events(*names):
    """Give a function that tells how often each of these events of PETSc's log has happened inside.

    In a stage of its own: an event that an error has ended stays open in its stage, which counts it no more.
    """
    PETSc.Log.begin()
    stage = PETSc.Log.Stage(f"counted {next(_STAGES)}")
    events = [PETSc.Log.Event(name) for name in names]
    stage.push()
    try:
        yield lambda: [event.getPerfInfo(stage.id)["count"] for event in events]
    finally:
        stage.pop()
