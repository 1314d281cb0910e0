"""What the text of a Python file tells of its names, held to what Python itself finds there."""

import importlib.util
import inspect

import pytest

from sparsehess.commands.python_source import find_source, read_source
from sparsehess.errors import InputError

NAMES = '''
"""A module with every kind of name."""
import os, os.path as place
from math import pi as circle
plain = 1
(pair, (deep, *rest)) = 1, (2, 3, 4)
annotated: int = 3
promised: int
plain += 1
for step in range(2):
    inner = step
while (walrus := plain) > 5:
    plain -= 1
with open(os.devnull) as stream:
    pass
try:
    import nowhere_at_all
except ImportError:
    nowhere_at_all = None
if plain:
    def conditional(a, b=1): return a
match [1, {"a": 2, "b": 3}]:
    case [first, {"a": second, **others}]:
        pass
squares = [hidden := one * one for one in range(3)]
sums = [two for two in range(3)]
class Kind:
    attribute = 1
    def method(self): local = 1
def function(x, /, y, z=1, *, w, comm=None, **more):
    global made
    made = 1
    local = 2
    def nested(): pass
async def waiting(): pass
lambdas = lambda parameter: (unbound := parameter)
'''


def imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_names_are_those_that_python_finds(tmp_path):
    path = tmp_path / "names.py"
    path.write_text(NAMES)
    found = read_source(path)
    module = imported(path)
    module.function(1, 2, w=3)
    expected = {name for name in vars(module) if not name.startswith("__")}
    assert found.names == expected and not found.is_open
    for name in expected:
        assert found.missing(name) is None
    for name in ("one", "two", "attribute", "method", "local", "nested", "parameter", "unbound", "plane"):
        assert name not in found.names and found.missing(name)
    assert "did you mean plain?" in found.missing("plian")


SIGNATURES = [
    "f()",
    "f(a)",
    "f(a, b=1)",
    "f(comm, a, b=1)",
    "f(a, *, comm, b, c=2)",
    "f(a=1, **more)",
    "f(a, *more)",
    "f(a, /, b)",
    "f(a=1, /, b=2)",
]


@pytest.mark.parametrize("signature", SIGNATURES)
def test_arguments_fit_where_python_says_that_they_do(tmp_path, signature):
    path = tmp_path / "functions.py"
    path.write_text(f"def {signature}: return 1\n")
    source, real = read_source(path), inspect.signature(imported(path).f)
    for given in ({}, {"a": 1}, {"b": 1}, {"a": 1, "b": 1}, {"a": 1, "b": 1, "c": 1}, {"z": 1}):
        passed = given | ({"comm": None} if "comm" in real.parameters else {})
        try:
            real.bind(**passed)
            fits = True
        except TypeError:
            fits = False
        assert (source.misfit("f", given) is None) == fits, (signature, given)


OPEN = [
    "from os.path import *",
    "globals()['made'] = 1",
    "import sys\nsetattr(sys.modules[__name__], 'made', 1)",
    "exec('made = 1')",
    "def __getattr__(name): return 1",
    "import sys\nsys.modules[__name__].made = 1",
]


@pytest.mark.parametrize("text", OPEN)
def test_what_the_text_cannot_tell_passes(tmp_path, text):
    (tmp_path / "open.py").write_text(text)
    assert read_source(tmp_path / "open.py").missing("made") is None


UNTOLD = [
    "import functools\n@functools.lru_cache\ndef f(a): pass",
    "def f(a): pass\nf = print",
    "f = lambda a: 1",
    "if True:\n    def f(a): pass\nelse:\n    def f(b): pass",
    "class f:\n    def __init__(self, a): pass",
    "from os import getcwd as f",
]


@pytest.mark.parametrize("text", UNTOLD)
def test_of_other_callables_arguments_are_not_told(tmp_path, text):
    (tmp_path / "untold.py").write_text(text)
    source = read_source(tmp_path / "untold.py")
    assert source.missing("f") is None and source.misfit("f", {"z": 1}) is None


def test_text_that_is_no_python(tmp_path):
    for text, says in (("def f(:\n", "line 1: no Python"), ("x = '\0'\n", "no Python"), ("é = 1", None)):
        (tmp_path / "text.py").write_text(text)
        if says is None:
            assert "é" in read_source(tmp_path / "text.py").names
        else:
            with pytest.raises(InputError, match=says):
                read_source(tmp_path / "text.py")
    (tmp_path / "text.py").write_bytes(b"# coding: latin-1\nname = '\xe9'\n")
    assert "name" in read_source(tmp_path / "text.py").names
    (tmp_path / "text.py").write_text("x = " + "-" * 50_000 + "1\n")
    assert read_source(tmp_path / "text.py").missing("anything") is None  # too deep to be read
    with pytest.raises(InputError, match="cannot be read"):
        read_source(tmp_path / "nowhere.py")


def test_modules_are_found_and_not_imported(tmp_path, monkeypatch):
    package = tmp_path / "a_package_of_theirs"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "problems.py").write_text("def chain(n): pass")
    monkeypatch.syspath_prepend(tmp_path)
    found = find_source("a_package_of_theirs.problems")
    assert found == package / "problems.py" and "chain" in read_source(found).names
    assert find_source("math") is None  # compiled
    for missing in ("a_package_of_theirs.others", "a_package_of_theirs.problems.chain", "nowhere_at_all", "a..b"):
        with pytest.raises(InputError, match="no module"):
            find_source(missing)
