"""The marks of tests themselves: on which ranks a test runs, and that nothing is skipped where nothing may be."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough  # pytest starts in pytest, a dozen times
CONFTEST = Path(__file__).with_name("conftest.py")
TESTS = """
import pytest

pytestmark = pytest.mark.parallel([2])

def test_of_the_module(): pass

@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("x", ["both", pytest.param("one", marks=pytest.mark.parallel([1]))])
def test_of_its_own(x): pass

@pytest.mark.parallel([1])
@pytest.mark.slow
def test_slow(): pass
"""


@pytest.fixture
def suite(tmp_path):
    """Return what runs pytest on files of its own, beside our conftest: (status, names that passed, output)."""
    (tmp_path / "tests").mkdir()
    shutil.copy(CONFTEST, tmp_path / "tests")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\naddopts = "--strict-markers -p no:cacheprovider"\n'
        'markers = ["parallel(ranks)", "slow"]\n'
    )

    def run(texts, *words, ranks=1, **environment):
        for number, text in enumerate([texts] if isinstance(texts, str) else texts):
            (tmp_path / "tests" / f"test_{number}.py").write_text(text)
        told = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_COMM", "PMIX", "PRTE_L", "PYTEST"))}
        command = [sys.executable, "-m", "pytest", "-v", "-n", "0", "--color=no", *words]
        if ranks > 1:
            command = ["mpiexec", "-n", str(ranks), *command]
        told = {**told, "SPARSEHESS_CI": "", "SPARSEHESS_PASSED": "", **environment}
        done = subprocess.run(command, cwd=tmp_path, env=told, capture_output=True, text=True, check=False)
        return done.returncode, re.findall(r"::(\S+) PASSED", done.stdout), done.stdout + done.stderr

    return run


def test_ranks(suite):
    assert suite(TESTS)[:2] == (0, ["test_of_its_own[both]", "test_of_its_own[one]"])
    assert suite(TESTS, ranks=2)[:2] == (0, ["test_of_the_module", "test_of_its_own[both]"])
    assert suite(TESTS, "-m", "slow")[:2] == (0, ["test_slow"])


def test_without_a_mark_a_test_runs_on_one_rank(suite):
    assert suite("def test_it(): pass")[:2] == (0, ["test_it"])
    assert suite("def test_it(): pass", ranks=2)[:2] == (5, [])


@pytest.mark.parametrize("mark", ["parallel", "parallel(2)", "parallel(['1'])"])
def test_a_mark_that_says_no_numbers(suite, mark):
    status, _, said = suite(f"import pytest\n@pytest.mark.{mark}\ndef test_it(): pass")
    assert status == 4 and "parallel([1, 2, ...]), the numbers of ranks" in said


MISSING = [
    "import pytest\nnone = pytest.importorskip('no_such_host')\ndef test_it(): pass",
    "import pytest\ndef test_it(): pytest.importorskip('no_such_host')",
    "import pytest\n@pytest.mark.skipif(True, reason='no_such_host')\ndef test_it(): pass",
    "import pytest\n@pytest.fixture\ndef host(): pytest.skip('no_such_host')\ndef test_it(host): pass",
]


def test_what_is_missing_fails_where_nothing_may_be(suite):
    status, passed, said = suite(MISSING)
    assert (status, passed) == (0, []) and "4 skipped" in said
    status, passed, said = suite(MISSING, "--continue-on-collection-errors", SPARSEHESS_CI="1")
    assert status == 1 and not passed and not re.search(r"\d skipped", said) and "1 failed, 3 errors" in said
    assert len(re.findall("no_such_host.*nothing may be skipped", said)) >= 4


def test_what_has_passed_runs_on_as_many_ranks_no_more(suite, tmp_path):
    file = tmp_path / "passed"
    texts = [TESTS, "def test_bad(): assert False", "def test_good(): pass"]
    status, passed, _ = suite(texts, SPARSEHESS_PASSED=str(file))
    assert (status, passed) == (1, ["test_of_its_own[both]", "test_of_its_own[one]", "test_good"])
    assert len(file.read_text().splitlines()) == 3
    status, passed, said = suite(texts, SPARSEHESS_PASSED=str(file))
    assert (status, passed) == (1, []) and "1 failed" in said
    assert suite(texts, ranks=2, SPARSEHESS_PASSED=str(file))[1] == ["test_of_the_module", "test_of_its_own[both]"]
    assert suite(texts, ranks=2, SPARSEHESS_PASSED=str(file))[1] == []
    assert suite([*texts, "def test_new(): pass"], "-n", "2", SPARSEHESS_PASSED=str(file))[0] == 1
    assert [line[:2] for line in file.read_text().splitlines()] == ["1 "] * 3 + ["2 "] * 2 + ["1 "]
    assert file.read_text().splitlines()[-1] == "1 tests/test_3.py::test_new"


def test_every_file_is_collected():
    """Files whose tests run on one rank alone say so by having no mark; none is left out by its name."""
    text = (CONFTEST.parent / "run.sh").read_text()
    assert "test_" not in text and "tests" in text
