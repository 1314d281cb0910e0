"""What outlives a process: batch jobs by the schedulers' own commands, and the resident service.

Always: a job is a folder that moves between states by renaming, so that no crash loses or doubles one; what a
job may read, take and run is checked before it runs; nothing that one job leaves reaches the next. The command
line is handed in by `cli`. Imports all packages before it, `commands` among them.
"""
