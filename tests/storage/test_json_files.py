"""JSON holds no NaN and no infinity: not as a file, not within the files of results."""

import json

import numpy as np
import pytest

from sparsehess.storage.json_files import write_json
from sparsehess.storage.writers import write_results

FACTS = {"margin": np.inf, "ends": [-np.inf, 1.0], "deep": {"error": (np.nan, np.float64("nan"), 2)}, "name": "x"}
WRITTEN = {"margin": None, "ends": [None, 1.0], "deep": {"error": [None, None, 2]}, "name": "x"}


def strict(text):
    return json.loads(text, parse_constant=pytest.fail)


def test_what_is_no_finite_number_is_null(tmp_path, capsys):
    write_json(tmp_path / "facts.json", FACTS)
    assert strict((tmp_path / "facts.json").read_text()) == WRITTEN
    write_json("-", FACTS)
    assert strict(capsys.readouterr().out) == WRITTEN


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_so_it_is_within_results(folder, comm, suffix):
    path = folder / f"result.{suffix}"
    write_results(path, FACTS, {"eigenvalues": np.zeros(0)}, [], comm)
    if suffix == "npz":
        with np.load(path) as archive:
            assert strict(str(archive["json"])) == WRITTEN
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path) as file:
            assert strict(file.attrs["json"]) == WRITTEN
