"""The spool: a folder whose jobs are folders; who may reach them, and how they go from one state to the next."""
