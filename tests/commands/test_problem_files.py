"""Problems of files, and settings of them."""

import pytest

from sparsehess.commands import problem_files
from sparsehess.errors import InputError


def test_settings_are_literals_or_text():
    assert problem_files.parse_settings(["a=3", "b=[1, 2]", "c=file.pdb", "d="]) == {
        "a": 3,
        "b": [1, 2],
        "c": "file.pdb",
        "d": "",
    }
    with pytest.raises(InputError, match="key=value"):
        problem_files.parse_settings(["nonsense"])
    assert problem_files.is_problem("a/b.py:f") and problem_files.is_problem("p.m:f")
    assert not problem_files.is_problem("m.npz") and not problem_files.is_problem("dir:with/colon.npz")
