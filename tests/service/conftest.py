"""A folder with a problem, a job file and a matrix, for tests of batch jobs."""

from support.batch import place

__all__ = ["place"]
