"""The commands behind the command line, one function each: arguments in, exit status out.

Always: a command is one entry in `command_table`, and its module is imported when it is run; it is collective,
returns the same status on every rank, and prints on rank 0 alone; nothing here ends a process. Imports all
packages before it, and neither `service` nor `cli`.
"""
