"""What flags of commands on jobs may be, for the command line to say without loading the service."""

# Names of schedulers, in the order in which messages name them.
SCHEDULER_NAMES = ("slurm", "pbs", "flux", "lsf", "local")

# Priorities in a spool go from -PRIORITY_LIMIT to PRIORITY_LIMIT.
PRIORITY_LIMIT = 1000

# What [submit] of a job file says for schedulers alone, and a spool passes over: the same file serves both.
FOR_SCHEDULERS = ("scheduler", "ranks", "account", "queue", "partition", "launcher", "setup", "directive")
