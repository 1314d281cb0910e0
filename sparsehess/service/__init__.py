"""Jobs that outlive a process: files, batch schedulers, checkpoints, the spool."""
