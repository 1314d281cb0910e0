"""What outlives a process: batch jobs by the schedulers' own commands, and the resident service."""
