"""Words of a command line that are PETSc's."""

import pytest

from sparsehess.commands.petsc_words import split_petsc
from sparsehess.errors import InputError


def test_petsc_arguments_are_told_apart():
    solver, rest, names = split_petsc(["-eps_ncv", "40", "-log_view", "-mat_mumps_icntl_14", "-5", "-eps_monitor"])
    assert solver == {"eps_ncv": "40", "st_mat_mumps_icntl_14": "-5", "eps_monitor": None}
    assert rest == ["-log_view"] and names == ["log_view"]
    with pytest.raises(InputError, match="expected a PETSc option"):
        split_petsc(["eps_ncv", "4"])
