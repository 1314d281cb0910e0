"""What outlives a process: checkpoints, batch jobs by the schedulers' own commands, and the resident service."""
