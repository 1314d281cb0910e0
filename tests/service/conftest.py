"""A folder with a problem, a job file and a matrix, for tests of batch jobs.

What starts MPI is imported by the fixture: the process that starts xdist's workers would pass on its marks.
"""

import pytest


@pytest.fixture
def place(tmp_path, monkeypatch):
    from support.batch import write_jobs

    return write_jobs(tmp_path, monkeypatch)
