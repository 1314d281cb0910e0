"""Plans: what a run is said to take, beside what it takes."""

from mpi4py import MPI

import pytest
import scipy.sparse as sp

from sparsehess.cli import command_line
from sparsehess.commands import job_files
from sparsehess.errors import InputError
from support import ROOT
from support.batch import facts, here
from support.cases import laplacian


@pytest.mark.parametrize("more", ["--derivative forward", "--no-verify --coloring distance2"])
def test_a_plan_counts_what_a_run_then_takes(place, more):
    planned = here(place, f"plan problems.py:chain --set n=40 {more}")
    spent = here(place, f"eigs problems.py:chain --set n=40 {more}")["evaluations"]
    counts_are_those(planned, spent)


@pytest.mark.slow
def test_a_plan_counts_what_a_run_on_two_ranks_takes(place):
    planned = facts(place, "plan problems.py:chain --set n=40", 2)
    counts_are_those(planned, facts(place, "eigs problems.py:chain --set n=40", 2)["evaluations"])


def counts_are_those(planned, spent):
    told = planned["evaluations"]
    assert (planned["n"], planned["nnz"], planned["estimated"]) == (40, 118, False)
    assert told["derivatives"] == spent["gradient"] and told["noise"] == spent["noise"]
    assert told["verification"] == spent["verification"]
    assert told["total"] == sum(spent.values())


def test_a_plan_for_a_pattern_that_is_not_known(place):
    problem = "problems.py:chain --set n=500 --set pattern=False --pattern detect"
    planned = here(place, f"plan {problem} --row 3 --measure")
    spent = here(place, f"assemble {problem} -o h.npz")["evaluations"]
    told = planned["evaluations"]
    assert planned["estimated"] and planned["seconds"]["one"] > 0
    assert spent["pattern"] / 4 < told["pattern"] < 4 * spent["pattern"]
    with pytest.raises(InputError, match=r"has no pattern.*--pattern detect.*--shell"):
        here(place, "plan problems.py:chain --set pattern=False")


def test_a_plan_of_a_matrix_and_of_a_job_file(place, capsys):
    sp.save_npz(place / "large.npz", sp.csr_matrix(laplacian(30, 30)[0]))
    check_memory(here(place, "plan large.npz --ranks 4"))
    line = command_line()
    words, _ = job_files.expand_job_file(["plan", "job.toml"], line)
    assert line.run(line.parse(words), {}, MPI.COMM_SELF) == 0
    out = capsys.readouterr().out
    assert "derivatives  central, 3 colors: 15 gradients" in out and "ranks        1 worth having" in out
    shell = here(place, f"plan {ROOT}/drivers/job.toml --shell")
    assert shell["evaluations"]["products"] > 0 and shell["problem"]
    refused = {
        "job.toml -k 0": "-k 0: at least 1",
        "large.npz --measure": "--measure: large.npz is a matrix file",
        "large.npz --derivative forward": "--derivative: large.npz is a matrix file",
        "job.toml --row 9": "--row: only --pattern detect",
        "large.npz --shell": "--shell: large.npz is a matrix file",
        "job.toml --precision single": "--precision: for the products of --shell",
        "job.toml --of trace": "-k: trace asks for no eigenpairs",
        "job.toml --function logdet": "--function: eigs takes no samples",
        "job.toml -k 100": "k=100 eigenpairs of a matrix with 24 rows",
        "job.toml --which largest --target 2": "--which: --target says which ones already",
        "job.toml --method lanczo": "method='lanczo'",
        "job.toml --explain": "--explain: the advice of a plan",
    }
    for words, says in refused.items():
        with pytest.raises(InputError, match=says):
            here(place, f"plan {words}")


@pytest.mark.slow
def test_a_plan_on_two_ranks(place):
    sp.save_npz(place / "large.npz", sp.csr_matrix(laplacian(30, 30)[0]))
    check_memory(facts(place, "plan large.npz --ranks 4", 2))


def check_memory(found):
    memory = found["memory"]
    assert found["evaluations"] is None and found["n"] == 900 and found["nnz"] == 4380
    assert memory["analysed"] and 0 < memory["factor"] < 2**25 and memory["ranks"] == 4
    assert memory["per_rank"] > memory["process"]
    assert found["ranks"]["best"] == 1
