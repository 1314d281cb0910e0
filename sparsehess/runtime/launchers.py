"""What launchers of MPI tell a process of its place, for what is done before or without MPI."""

from __future__ import annotations

import os

# Of Open MPI, PMIx (Slurm's too), PMI (MPICH, Intel), MVAPICH, Cray's PALS, Flux.
_PLACES = (
    "OMPI_COMM_WORLD_RANK",
    "PMIX_RANK",
    "PMI_RANK",
    "MV2_COMM_WORLD_RANK",
    "PALS_RANKID",
    "FLUX_TASK_RANK",
)

# How many processes Open MPI, PMI, MVAPICH, Flux and a step of Slurm say that they have started together.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "FLUX_JOB_SIZE", "SLURM_STEP_NUM_TASKS")


def is_launched() -> bool:
    """Return whether a launcher has started this process, one of several for all it knows. Not collective."""
    return any(name in os.environ for name in _PLACES)


def is_first_process() -> bool:
    """Return whether this process is the one that acts and speaks, where a launcher has started several.

    Not collective.
    """
    return not any(os.environ.get(name, "0").isdigit() and int(os.environ.get(name, "0")) for name in _PLACES)


def launched_together() -> int:
    """Return how many processes a launcher says that it has started, of which this is one; 1 if none does.

    Not collective. Where MPI has one rank and this is more, launcher and MPI do not know each other.
    """
    return next((int(text) for text in map(os.environ.get, _SIZES) if text and text.isdigit()), 1)
