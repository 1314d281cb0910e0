"""Folders with problems, job files and matrices for the commands of the tests.

What starts MPI is imported by the fixtures: the process that starts xdist's workers would pass on its marks.
"""

import pytest


@pytest.fixture
def place(tmp_path, monkeypatch):
    from support.batch import write_jobs

    return write_jobs(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    from support.command_line import write_problems

    return write_problems(tmp_path_factory.mktemp("cli"))
