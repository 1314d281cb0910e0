"""The caller's PETSc options of a solver: inserted under our prefix, and refused where nothing used them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sparsehess.errors import InputError
from sparsehess.runtime import inserted_options, option_was_used

# Under which all solvers' options stand in PETSc's database.
PREFIX = "sparsehess_"


class Options:
    """Options that a caller has given to one solver.

    Not collective to make.

    Parameters
    ----------
    prefix
        Under which they stand in PETSc's database while the solver is set up.
    given
        Without a prefix.
    """

    def __init__(self, prefix: str, given: Mapping[str, object]):
        self.prefix, self.given = prefix, dict(given)
        self._used: set[str] = set()

    @contextmanager
    def inserted(self, options: Mapping[str, object]) -> Iterator[None]:
        """Have options, the caller's among them, in the database for the length of the block.

        Logically collective.
        """
        with inserted_options(self.prefix, options):
            yield
            self._used |= {key for key in self.given if option_was_used(self.prefix + key)}

    def refuse_unused(self) -> None:
        """Raise InputError for those that nothing has used so far. Not collective."""
        unused = sorted(set(self.given) - self._used)
        if unused:
            listed = ", ".join("-" + key for key in unused)
            raise InputError(f"PETSc options that nothing has used: {listed}; are they spelt right?")
