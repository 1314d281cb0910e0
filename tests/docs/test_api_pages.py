"""The reference of Python has every public name, and no other."""

import re
from importlib import import_module

import pytest

import sparsehess as sh
from support import ROOT

PLACES = {
    f"{module}.{name}": path.name
    for path in sorted((ROOT / "docs" / "reference" / "api").glob("*.rst"))
    for module, names in re.findall(
        r"^\.\. currentmodule:: (\S+)\n((?:(?!\.\. current).*\n)*)", path.read_text(), re.M
    )
    for name in re.findall(r"^   (\w+)$", names, re.M)
}


def test_every_public_name_has_a_page():
    assert {f"sparsehess.{name}" for name in sh.__all__} - {"sparsehess.__version__"} <= set(PLACES)


@pytest.mark.parametrize("package", ["crystals", "hosts.ase", "hosts.dolfinx", "networks", "operators"])
def test_every_name_of_a_package_has_a_page(package):
    names = import_module(f"sparsehess.{package}").__all__
    without = [name for name in names if f"sparsehess.{package}.{name}" not in PLACES and name not in sh.__all__]
    assert names and not without


@pytest.mark.parametrize("place", PLACES)
def test_names_on_pages_are_there(place):
    module, _, name = place.rpartition(".")
    documented = getattr(import_module(module), name)
    assert documented.__doc__
