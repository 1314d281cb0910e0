"""Names that are loaded when they are first used."""

import subprocess
import sys

import numpy as np

import sparsehess as sh
import sparsehess.units


def test_names_have_one_home():
    assert sparsehess.units.Units is sh.Units
    for name in ("from_atoms", "from_casadi", "from_jax", "from_torch"):
        made = getattr(sh.Objective, name)
        assert made is getattr(sh, name) and made.__name__ == name
        objective = sh.Objective(x=np.zeros(1), gradient=lambda x: x)
        assert getattr(objective, name) is made


def test_no_host_is_loaded_before_it_is_asked_for():
    code = "import sys, sparsehess; sparsehess.Objective; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "sparsehess.derivatives.objective" in loaded and "sparsehess.hosts" not in loaded
