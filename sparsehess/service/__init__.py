"""What outlives a process: batch jobs, by the schedulers' own commands. Needs neither MPI nor PETSc."""
