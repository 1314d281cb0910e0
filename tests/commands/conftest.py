"""Folders with problems, job files and matrices for the commands of the tests."""

import pytest

from support.batch import place
from support.command_line import write_problems

__all__ = ["place", "problems"]


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    return write_problems(tmp_path_factory.mktemp("cli"))
