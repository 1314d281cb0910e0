"""`-citations` of PETSc: it names the papers of our methods that ran, once, beside its own and SLEPc's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from sparsehess.coloring.kinds import KINDS
from sparsehess.runtime.citations import METHODS, PAPERS
from support import ROOT
from support.cases import laplacian

CLUSTER = f"{ROOT / 'drivers' / 'lennard_jones.py'}:cluster"
THEIRS = {"petsc-user-ref", "petsc-efficient", "slepc-toms", "slepc-manual"}
INERTIA = {"Sylvester1852", "Parlett1998"}
LANCZOS = {"Simon1984", "GolubWelsch1969"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("citations")
    sp.save_npz(folder / "m.npz", laplacian(7, 8)[0])
    random = np.random.default_rng(1).permutation(56)
    sp.save_npz(folder / "shuffled.npz", laplacian(7, 8)[0][random][:, random])  # no grid by its numbering
    return folder


def run(place, words, petsc, ranks=1):
    launcher = [] if ranks == 1 else [str(Path(sys.prefix) / "bin" / "mpiexec"), "-n", str(ranks)]
    return subprocess.run(
        [*launcher, sys.executable, "-m", "sparsehess", *words.split(), "-q", "--", *petsc.split()],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def keys(text):
    """What is cited, in its order, and repeated where it is."""
    return re.findall(r"^@\w+\{([^,]+),$", text, re.MULTILINE)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "words, ran",
    [
        ("eigs m.npz -k 2 --which largest --count no", set()),
        ("eigs m.npz -k 2", INERTIA),
        ("eigs m.npz -k 2 --method lobpcg --count no", {"Knyazev2001", "HetmaniukLehoucq2006"}),
        ("eigs m.npz --interval 0.5 2", {"GrimesLewisSimon1994", *INERTIA}),
        (
            "eigs m.npz --interval 0.5 2 --method feast",
            {"Polizzi2009", "TangPolizzi2014", "GavinPolizzi2018", *INERTIA},
        ),
        ("inertia m.npz", INERTIA),
        ("density m.npz --method lanczos", {"LinSaadYang2016", "UbaruChenSaad2017", *LANCZOS}),
        ("density m.npz --method chebyshev", {"WeisseWelleinAlvermannFehske2006", *LANCZOS}),
        ("trace m.npz", set()),  # a sum of the diagonal
        ("trace m.npz --method xtrace", {"EpperlyTroppWebber2024"}),
        ("trace m.npz --function logdet --method hutchinson", {"Hutchinson1990", "UbaruChenSaad2017", *LANCZOS}),
        ("trace m.npz --function logdet --method hutch++", {"MeyerMuscoMuscoWoodruff2021", *LANCZOS}),
        ("color m.npz", {"ColemanMore1984", "GoldfarbToint1984"}),
        ("color shuffled.npz --coloring cpr", {"CurtisPowellReid1974", "ColemanMore1983"}),
        (
            "color shuffled.npz --coloring acyclic --order natural",
            {"ColemanCai1986"},  # by a rule of our own
        ),
        ("color shuffled.npz --coloring powell-toint --order natural", {"PowellToint1979", "ColemanMore1984"}),
    ],
)
def test_only_what_ran_is_cited(place, words, ran):
    done = run(place, words, "-citations")
    assert done.returncode == 0, done.stderr
    assert set(keys(done.stdout)) & set(PAPERS) == ran
    assert set(keys(done.stdout)) >= THEIRS


def test_each_paper_once_by_the_first_of_two_ranks(place):
    words = f"eigs {CLUSTER} -k 3 --order smallest-last --pattern detect"
    done = run(place, words, "-citations", ranks=2)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.count("please cite the following") == 1
    found = keys(done.stdout)
    assert len(found) == len(set(found)) and set(found) >= THEIRS
    assert set(found) & set(PAPERS) == {
        "ColemanMore1984",
        "CurtisPowellReid1974",
        "Dorfman1943",
        "GebremedhinTarafdarMannePothen2007",
        "MoreWild2011",
        *INERTIA,
    }
    assert PAPERS["MoreWild2011"].bibtex("MoreWild2011") in done.stdout


def test_a_file_takes_them(place):
    done = run(place, "eigs m.npz -k 2", "-citations cited.bib")
    assert done.returncode == 0 and done.stdout == done.stderr == ""
    assert set(keys((place / "cited.bib").read_text())) >= THEIRS | INERTIA


@pytest.mark.parametrize("file", [".", "missing/cited.bib"])
def test_a_file_that_cannot_be_written_is_refused_first(place, file):
    done = run(place, "eigs m.npz -k 2", f"-citations {file}", ranks=2)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == f"sparsehess: -citations {file}: cannot be written; name another file"
    assert "PETSC ERROR" not in done.stderr and done.stdout == ""


@pytest.mark.thorough
@pytest.mark.parametrize("option", ["options_left", "options_view", "get_total_flops", "mpidump"])
def test_what_petsc_reads_when_it_ends_is_used(place, option):
    done = run(place, "eigs m.npz -k 2", f"-{option}")
    assert done.returncode == 0 and done.stderr == ""
    refused = run(place, "eigs m.npz -k 2", f"-{option}s")
    assert refused.returncode == 2 and f"nothing has used: -{option}s" in refused.stderr


def test_what_ran_before_petsc_started_is_told_when_it_starts(place):
    program = (
        "import sys; from sparsehess import runtime; from sparsehess.runtime import citations\n"
        "for _ in range(2): citations.cite('noise')\n"
        "assert 'petsc4py.PETSc' not in sys.modules\n"
        "runtime.PETSc\n"
        "for method in ('noise', 'kfac', 'ekfac'): citations.cite(method)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=place,
        env={**os.environ, "PETSC_OPTIONS": "-citations"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    ours = [key for key in keys(done.stdout) if key in PAPERS]
    assert ours == ["MoreWild2011", *METHODS["ekfac"]]


def test_the_tables_are_whole():
    assert {key for papers in METHODS.values() for key in papers} == set(PAPERS)
    for key, paper in PAPERS.items():
        entry = paper.bibtex(key)
        assert entry.isascii() and entry.count("{") == entry.count("}")
        assert key.endswith(str(paper.year))
        assert re.fullmatch(r"10\.\d{4,5}/\S+", paper.doi)
        assert [key] == keys(entry)
    assert len({paper.doi for paper in PAPERS.values()}) == len(PAPERS)


def test_every_method_is_a_row_and_every_row_a_method():
    sources = "".join(path.read_text() for path in (ROOT / "sparsehess").rglob("*.py"))
    literal = set(re.findall(r'cite\("([^"]+)"\)', sources))
    named = {f"{kind} coloring" for kind in KINDS}
    named |= {f"rule {rule}" for kind in KINDS.values() for rule in (*kind.rules, "template")}
    assert literal | named | {"hutch++", "xtrace"} == set(METHODS)
