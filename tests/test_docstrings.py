"""Docstrings of the public names: summary, who calls, sections, and examples that run."""

import doctest
import inspect
import re

import pytest

import sparsehess as sh
from sparsehess.errors import SparseHessError

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NEEDED = {
    **dict.fromkeys(["from_atoms", "normal_modes", "normal_modes_of_each", "saddle_point"], "ase"),
    **dict.fromkeys(["thermochemistry", "force_constants"], "ase"),
    "from_casadi": "casadi",
    **{"from_jax": "jax", "jax_hessian": "jax", "from_torch": "torch"},
    **{"ModeMesh": "meshio", "write_modes": "meshio", "animate_mode": "meshio"},
    **{"read_force_constants": "yaml"},
}
PUBLIC = {name: getattr(sh, name) for name in sh.__all__}
ERRORS = [name for name, item in PUBLIC.items() if inspect.isclass(item) and issubclass(item, Exception)]
FUNCTIONS = [name for name, item in PUBLIC.items() if inspect.isfunction(item)]
CLASSES = [name for name, item in PUBLIC.items() if inspect.isclass(item) and name not in ERRORS]


def sections(text):
    """Return the numpydoc sections of a docstring by their heads; what stands before the first is under ""."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def documented(name):
    found = inspect.getdoc(PUBLIC[name]) or ""
    summary, _, rest = found.partition("\n")
    assert summary.endswith(".") and not rest.split("\n", 1)[0].strip(), f"{name}: the first line is no summary"
    return sections(found)


def check_sections(name, wanted):
    found = documented(name)
    missing = [head for head in wanted if not found.get(head, "").strip()]
    if not re.search(r"^\*?(Collective|Not collective)\b", found[""], re.MULTILINE):
        missing.insert(0, "*Collective.* or *Not collective.*")
    assert not missing, f"{name} lacks {', '.join(missing)}"


def test_every_public_name_is_of_one_kind():
    assert {*ERRORS, *FUNCTIONS, *CLASSES, "__version__"} == set(sh.__all__)
    assert len(FUNCTIONS) > 20 and len(CLASSES) > 25 and len(ERRORS) > 4


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_their_sections(name):
    signature = inspect.signature(PUBLIC[name])
    wanted = ["Parameters"] if signature.parameters else []
    if signature.return_annotation not in (None, "None"):
        wanted.append("Returns")
    check_sections(name, [*wanted, "Raises", "Examples"])


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_their_sections(name):
    fields = "Parameters" if "Parameters" in documented(name) else "Attributes"
    check_sections(name, [fields, "Examples"])


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_when_they_are_raised_and_how_a_command_ends(name):
    text = " ".join("".join(documented(name).values()).split())
    status = "" if PUBLIC[name] is SparseHessError else f" {PUBLIC[name].status}"
    assert re.search(r"\braised\b", text, re.IGNORECASE), f"{name}: when it is raised"
    assert re.search(rf"\bexit status{status}\b", text, re.IGNORECASE), f"{name}: exit status{status}"


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_examples_run(name):
    """Those of its methods too."""
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    runner, said = doctest.DocTestRunner(optionflags=OPTIONS), []
    for test in doctest.DocTestFinder().find(PUBLIC[name], name, module=False, globs={}):
        runner.run(test, out=said.append)
    assert runner.tries > 0, f"{name} has no example"
    assert runner.failures == 0, "".join(said)
