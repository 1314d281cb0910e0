"""The resident service: groups of ranks that take jobs from a spool, and the processes of jobs that run code."""
