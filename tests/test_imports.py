"""The house: packages in one order, no circle of files, faces that only hand names on."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

TOP = Path(__file__).parents[1]

# A module imports what stands in its own place or before it; places on one line do not know each other.
ORDER = [
    ["errors"],
    ["runtime"],
    ["pattern"],
    ["storage"],
    ["coloring"],
    ["derivatives"],
    ["units"],
    ["hessian"],
    ["operators"],
    ["long_range"],
    ["eigen.problem"],
    ["eigen.estimates"],
    ["eigen.solvers"],
    ["eigen.certificates"],
    ["eigen.families"],
    ["eigen.inverses"],
    ["mechanics"],
    ["crystals"],
    ["networks", "hosts"],
    ["capi"],
    ["commands"],
    ["service.batch"],
    ["service.spool"],
    ["service.resident"],
    ["service"],
    ["cli"],
    ["__main__"],
]
RANKS = {place: rank for rank, places in enumerate(ORDER) for place in places}


@cache
def modules():
    """Return {name: path} of all modules, compiled ones by their source."""
    paths = [path for suffix in ("*.py", "*.pyx") for path in (TOP / "sparsehess").rglob(suffix)]
    return {name_of(path): path for path in paths}


def name_of(path):
    return ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")


def is_face(name):
    return modules()[name].name == "__init__.py"


def place(name):
    """Return the place of a module in the order; the package's own face and that of eigen have none."""
    parts = name.split(".")[1:]
    return next((head for head in (".".join(parts[:2]), parts[0] if parts else "") if head in RANKS), None)


def resolved(module, name):
    """Return the module that `from module import name` needs."""
    inside = f"{module}.{name}"
    return inside if inside in modules() else module


def compiled_imports(path):
    """Return the modules that a Cython source takes declarations or names from."""
    lines = path.read_text().splitlines()
    froms = (line.split() for line in lines if line.startswith("from sparsehess"))
    return {words[1] for words in froms if words[2] in ("import", "cimport")}


def imports(name):
    """Return {module: line} of all that a module imports: at the top, in functions and for types alike."""
    path, found = modules()[name], {}
    if path.suffix == ".pyx":
        return dict.fromkeys(compiled_imports(path), 0)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative"
            wanted = [resolved(node.module, item.name) for item in node.names]
        elif isinstance(node, ast.Import):
            wanted = [item.name for item in node.names]
        elif isinstance(node, ast.Constant) and is_face(name):
            wanted = [node.value, f"{name}.{node.value}"]  # in tables of names that are loaded later
        else:
            continue
        found |= {module: node.lineno for module in wanted if module in modules()}
    return found


def edges():
    return [(name, other, line) for name in modules() for other, line in imports(name).items() if other != name]


def test_every_module_has_a_place():
    assert [name for name in modules() if place(name) is None] == ["sparsehess", "sparsehess.eigen"]
    assert len(modules()) > 200


def test_modules_import_what_stands_before_them():
    wrong = []
    for name, other, line in edges():
        mine, theirs = place(name), place(other)
        if mine is None or theirs is None or mine == theirs:
            continue
        if RANKS[mine] <= RANKS[theirs]:
            wrong.append(f"{modules()[name].relative_to(TOP)}:{line} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_no_circle_of_files():
    """A face hands names on: who imports it needs, of its package, what it names."""
    graph = nx.DiGraph()
    graph.add_edges_from((name, other) for name, other, _ in edges())
    circles = [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]
    assert not circles, circles


@pytest.mark.parametrize(
    "name", sorted({place.partition(".")[0] for place in RANKS} - {"errors", "units", "cli", "__main__"})
)
def test_faces_say_what_holds_and_what_they_import(name):
    text = ast.get_docstring(ast.parse((TOP / "sparsehess" / name / "__init__.py").read_text()))
    assert "\nAlways: " in text and re.search(r"\b([Ii]mports|[Mm]ay import)\b", text), f"{name}: {text}"


def test_the_top_holds_packages_and_five_modules():
    top = sorted(path.stem for path in (TOP / "sparsehess").glob("*.py"))
    assert top == ["__init__", "__main__", "cli", "errors", "units"]


@pytest.mark.parametrize("guide", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_guides_name_what_is_defined(guide):
    trees = [ast.parse(path.read_text()) for path in modules().values() if path.suffix == ".py"]
    defined = {"PETSc", "SLEPc", "COMM_WORLD"}
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
    words = re.findall(r"`(?:\w+\.)?(\w+)`", (TOP / guide).read_text())
    names = {word for word in words if re.search(r"[a-z][A-Z]|^[A-Z]|[a-z]_[a-z]", word) and "NAME" not in word}
    assert len(names) > 10 and names <= defined | {*RANKS}, names - defined


def test_architecture_names_what_is_there():
    text = (TOP / "ARCHITECTURE.md").read_text()
    packages = re.findall(r"^\| `([\w/]+)` \|", text[: text.index("## The types at the doors")], re.MULTILINE)
    assert packages == [place.replace(".", "/") for places in ORDER for place in places if place != "__main__"]
    everywhere = {path.name for path in TOP.rglob("*.py*")}
    files = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|pyx|md|cfg))`", text))
    assert len(files) > 30
    for file in files:
        found = (TOP / file).is_file() or (TOP / "sparsehess" / file).is_file()
        assert found or ("/" not in file and file in everywhere), f"{file} is nowhere"


def test_no_name_that_is_loaded_later_is_a_module_too():
    """Else the name is the module once something has imported it."""
    for name in filter(is_face, modules()):
        path = modules()[name]
        tables = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Dict)]
        later = {key.value for table in tables for key in table.keys if isinstance(key, ast.Constant)}
        assert not [one for one in later if f"{name}.{one}" in modules()], name


def test_eigs_loads_no_more_of_scipy_than_sparse_matrices():
    """What is loaded late may fail late, on one rank that has no room left; and it takes 100 ms on every rank."""
    heavy = ("scipy.linalg", "scipy.spatial", "scipy.special", "scipy.optimize")
    asked = (
        "import sys, scipy.sparse; before = {*sys.modules}; import sparsehess as sh; sh.eigs; sh.assemble; "
        f"print(*({{*{heavy}}} & {{*sys.modules}} - before))"  # SciPy 1.10 brings scipy.linalg with scipy.sparse
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stdout + done.stderr
