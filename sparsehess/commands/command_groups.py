"""Sections of the list of commands, and groups of flags that several commands have."""

from __future__ import annotations

from sparsehess.commands.arguments import (
    Group,
)
from sparsehess.commands.flag_groups import (
    ANSWER_FLAGS,
    CHECK_FLAGS,
    CHECKPOINT_FLAGS,
    COLORING_FLAGS,
    DERIVATIVE_FLAGS,
    INPUT_FLAGS,
    PATIENCE_FLAG,
    SAMPLE_FLAGS,
    SEED_FLAG,
    SETTINGS_FLAG,
    SHELL_FLAG,
    VECTOR_FLAGS,
)

# Sections of the list of commands, in its order.
SPECTRA, PROOFS, HESSIANS, BEFORE, SHELL = "spectra", "checks", "Hessians and patterns", "before a run", "shell"

INPUT_GROUP = Group("input", *INPUT_FLAGS, SETTINGS_FLAG, PATIENCE_FLAG)
INPUT_AND_VECTORS_GROUP = Group("input", *INPUT_FLAGS, SETTINGS_FLAG, PATIENCE_FLAG, *VECTOR_FLAGS)
DERIVATIVES_GROUP = Group(
    "derivatives and colouring (of problems)", SHELL_FLAG, *DERIVATIVE_FLAGS, *COLORING_FLAGS
)
SAMPLES_GROUP = Group("random vectors", *SAMPLE_FLAGS, SEED_FLAG)
CHECKS_GROUP = Group("checks", *CHECK_FLAGS)
LONG_RUNS_GROUP = Group("long runs", *CHECKPOINT_FLAGS)
OUTPUT_GROUP = Group("output", *ANSWER_FLAGS)
