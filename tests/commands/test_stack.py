"""The command info."""

import sparsehess
from support.command_line import facts, run


def test_info(problems):
    found = facts(problems, "info")
    assert found["versions"]["sparsehess"] == sparsehess.__version__
    assert found["packages"]["mumps"] is True
    assert {item["name"] for item in found["missing"]} >= {"cuda"} - {
        n for n, there in found["packages"].items() if there
    }
    code, out, _, _ = run(problems, "info", 2)
    assert code == 0 and out.count("petsc4py") == 1  # rank 0 alone
