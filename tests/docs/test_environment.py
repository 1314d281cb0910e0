"""The page of the environment names each variable that the program, its scripts and its tests read."""

import re

import pytest

from support import ROOT

PAGE = (ROOT / "docs" / "reference" / "environment.md").read_text()

# How variables are read, by suffix; and names that scripts give to themselves.
READ = {
    ".py": re.compile(r"environ(?:\.get\(|\.setdefault\(|\[)\s*[\"']([A-Z][A-Z0-9_]+)"),
    ".c": re.compile(r"getenv\(\"([A-Z][A-Z0-9_]+)\"\)"),
    ".sh": re.compile(r"\$\{([A-Z][A-Z0-9_]+):?[-?=+]"),
}
# The system's own, or of pip and of the tests' programs; each is no choice of the user for sparsehess.
OTHERS = {
    "COLUMNS", "FOLDER", "LANG", "PATH", "PIP_CERT", "PIP_CONFIG_FILE", "PIP_CONSTRAINT", "PIP_FIND_LINKS",
    "REQUESTS_CA_BUNDLE", "SETUPTOOLS_USE_DISTUTILS", "SSL_CERT_FILE",
}  # fmt: skip


def sources():
    every = [
        path for folder in ("sparsehess", "docker") for path in (ROOT / folder).rglob("*") if path.suffix in READ
    ]
    return sorted([*every, ROOT / "tests" / "conftest.py"])


def test_every_variable_that_is_read_is_told():
    read = {name for path in sources() for name in READ[path.suffix].findall(path.read_text())}
    assert {"OMP_NUM_THREADS", "SPARSEHESS_PYTHON", "SPARSEHESS_CI", "PETSC_VERSION"} <= read
    told = {name for name in read if re.search(rf"\b{name}\b", PAGE)}
    assert not {name for name in read - told - OTHERS if not name.startswith(("OMPI_MCA_", "PRTE_MCA_"))}


def test_places_and_folders_are_told():
    from sparsehess.runtime import launchers
    from sparsehess.service.batch import jobs as batch_jobs

    for name in (*launchers._PLACES, *launchers._SIZES, batch_jobs.HOME, batch_jobs.MARK):
        assert f"`{name}`" in PAGE


def test_prefixes_and_families_are_told():
    from sparsehess.commands import petsc_words

    found = {prefix for path in sources() for prefix in re.findall(r"[pP]refix\(\"(\w+)\"\)", path.read_text())}
    assert found == {"projected_", "sparsehess_derivative_"}
    for prefix in ("sparsehess_", "sparsehess_inertia_", "sparsehess_probe_", *found):
        assert f"| `{prefix}` |" in PAGE
    for family in petsc_words._FAMILIES:
        assert f"`-{family}…`" in PAGE


@pytest.mark.parametrize(
    ("words", "solver", "rest"),
    [
        (["-eps_ncv", "40"], {"eps_ncv": "40"}, []),
        (["-mat_mumps_icntl_14", "50"], {"st_mat_mumps_icntl_14": "50"}, []),
        (["-log_view"], {}, ["-log_view"]),
    ],
)
def test_options_go_where_the_page_says(words, solver, rest):
    from sparsehess.commands.petsc_words import split_petsc

    assert split_petsc(words)[:2] == (solver, rest)
