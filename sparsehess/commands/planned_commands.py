"""Commands that a plan can be made for, as text: what `--help` loads is held to neither NumPy nor MPI."""

from __future__ import annotations

# Those that take products alone, too, and those that need a matrix.
BY_PRODUCTS = ("eigs", "trace", "density", "rank", "inertia")
ASSEMBLED = ("assemble", "inverse", "samples", "reduced")
PLANNED = (*BY_PRODUCTS, *ASSEMBLED)

# Their arguments whose names mean something else to `plan`.
OTHERS = {"trace": ("time",), "samples": ("count",), "reduced": ("k",)}
