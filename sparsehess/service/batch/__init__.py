"""Batch jobs: scripts, schedulers, and what is remembered of jobs."""
