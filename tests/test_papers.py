"""The papers of the project agree on licence, version and references; tests and files that they name are there."""

import configparser
import importlib.metadata
import re
import tomllib

import sparsehess
from sparsehess.coloring import kinds, portfolio
from sparsehess.eigen.problem import solve_spec
from sparsehess.eigen.solvers import interval_eigenpairs
from sparsehess.eigen.solvers.end_solvers import EndSolvers
from sparsehess.runtime.citations import PAPERS
from support import ROOT

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
METADATA = SETUP["metadata"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(name):
    return (ROOT / name).read_text()


def lines(option):
    return [line for line in METADATA[option].splitlines() if line]


def cff():
    """CITATION.cff as (its own fields, those of each reference), texts without quotes."""
    top, references, here = {}, [], None
    for line in read("CITATION.cff").splitlines():
        indent, name, text = re.fullmatch(r"( *(?:- )?)(?:([\w-]+):)? ?(.*)", line).groups()
        text = text.strip('"')
        if not indent and name:
            here = top
        elif indent == "  - " and name == "type":
            references.append(here := {})
        if name and (indent in ("", "  - ") or (here is not top and indent == "    ")):
            here[name] = text
    return top, references


def test_the_licence():
    text = read("LICENSE")
    assert text.startswith(f"BSD 3-Clause License\n\nCopyright (c) 2026, {METADATA['author']}\n")
    assert re.findall(r"^(\d)\. ", text, re.MULTILINE) == ["1", "2", "3"]
    assert PROJECT["license"] == "BSD-3-Clause" and PROJECT["license-files"] == ["LICENSE"]
    assert "license" not in METADATA and "License ::" not in METADATA["classifiers"]
    assert cff()[0]["license"] == PROJECT["license"]


def test_one_version():
    version = METADATA["version"]
    assert sparsehess.__version__ == version == cff()[0]["version"]
    heads = re.findall(r"^## \[(.+?)\]( - \d{4}-\d\d-\d\d)?$", read("CHANGELOG.md"), re.MULTILINE)
    assert heads[0] == ("Unreleased", "")
    released = [name for name, date in heads[1:] if date]
    assert len(released) == len(heads) - 1  # a version that is out has a date
    assert version in (released or [re.search(r"^What (\S+), the first", read("CHANGELOG.md"), re.MULTILINE)[1]])


def test_the_changelog_has_the_sections_of_its_format():
    sections = re.findall(r"^### (.+)$", read("CHANGELOG.md"), re.MULTILINE)
    assert sections and set(sections) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_what_is_installed_says_what_the_project_says():
    """Where this fails the environment is older than setup.cfg: `make env`."""
    found = importlib.metadata.metadata("sparsehess")
    for header, option in (("Version", "version"), ("Summary", "description"), ("Author", "author")):
        assert found[header] == METADATA[option]
    assert found["License-Expression"] == PROJECT["license"]
    assert found.get_all("License-File") == PROJECT["license-files"]
    assert found["Keywords"].split(",") == METADATA["keywords"].split(", ")
    assert found.get_all("Classifier") == lines("classifiers")
    assert found["Requires-Python"] == SETUP["options"]["python_requires"]
    assert found.get_all("Project-URL") is None


def test_pythons():
    least = SETUP["options"]["python_requires"].removeprefix(">=")
    named = [line.rpartition(" ")[2] for line in lines("classifiers") if re.search(r":: 3\.\d+$", line)]
    assert named[0] == least and named == sorted(named)


def test_the_citation_file():
    top, references = cff()
    assert top["cff-version"] == "1.2.0" and top["type"] == "software" and top["title"] == "sparsehess"
    assert f"authors:\n  - name: {METADATA['author']}\n" in read("CITATION.cff")
    assert top["abstract"].rstrip(".") == METADATA["description"]
    assert re.findall(r"^  - ([\w ]+)$", read("CITATION.cff"), re.MULTILINE) == METADATA["keywords"].split(", ")
    cited = {paper.doi: paper for paper in PAPERS.values()}
    assert [one["doi"] for one in references] == list(cited)
    for one in references:
        paper = cited[one["doi"]]
        assert int(one["year"]) == paper.year
        assert one["title"] == re.sub(r"[{}$]", "", paper.title)
        if "volume" in one:
            assert one["volume"] == paper.place["volume"] and one["journal"] == paper.place["journal"]
            assert one["start"] == paper.place["pages"].split("--")[0]


def test_tests_that_are_named_are_there():
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", read("SECURITY.md"))
    assert len(named) > 10
    for name in named:
        assert f"def {name}(" in tests, name


def found(place):
    """The file or folder of a place that CONTRIBUTING.md names, from the root or from the package."""
    return next(path for path in (ROOT / place, ROOT / "sparsehess" / place) if path.exists())


def test_files_and_rows_that_are_named_are_there():
    text = read("CONTRIBUTING.md")
    places = set(re.findall(r"`([\w.]+/[\w/]*(?:\.\w+)?|[A-Z]+\.\w+|[a-z]+\.(?:toml|cfg|py))`", text))
    places -= {"tests/hosts/test_NAME.py", "build/docs/html"}  # one of many, and what `make docs` makes
    assert len(places) > 15
    for place in places:
        assert found(place)
    rows = re.findall(r"`(_?[A-Z_]+)` (?:of|in) `([\w/]+\.py)`", text.replace("\n  ", " "))
    assert len(rows) > 4
    for row, place in rows:
        assert re.search(rf"^{row}\b", found(place).read_text(), re.MULTILINE), (row, place)
    for target in re.findall(r"`make ([\w-]+)", text):
        assert re.search(rf"^{target}:", read("Makefile"), re.MULTILINE), target


def test_rows_of_colourings_and_intervals_are_whole():
    assert set(portfolio._FIRST) == set(kinds.KINDS)
    assert set(solve_spec.WHOLE) < set(solve_spec.METHODS)
    assert set(interval_eigenpairs._METHODS) == {*solve_spec.WHOLE, "dense"} - {"slicing"}
    assert callable(EndSolvers.main)
