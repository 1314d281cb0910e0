"""The commands behind the command line: arguments in, exit status out.

All are collective and return the same status on every rank. Modules are imported for the command that needs them.
"""

from importlib import import_module

from sparsehess import runtime

_HOME = {
    "eigs": "eigenpairs",
    "inertia": "eigenpairs",
    "check": "eigenpairs",
    "assemble": "hessians",
    "color": "hessians",
    "density": "estimates",
    "trace": "estimates",
    "rank": "estimates",
    "info": "stack",
    "serve": "serve",
    **dict.fromkeys(("plan", "submit", "status", "result", "cancel"), "batch"),
}

# Commands that need real scalars as a whole; of the others the parts that do refuse by themselves.
REAL = ("inertia", "assemble", "density", "trace", "rank", "plan", "serve")

# Commands that need neither MPI nor PETSc: they are for login nodes, and are called without a communicator.
ALONE = ("submit", "status", "result", "cancel")


def is_alone(words: list[str]) -> bool:
    """Return whether a command line needs neither MPI nor PETSc.

    Not collective. So does `serve --ranks`, which starts them and looks after them.
    """
    supervises = words[:1] == ["serve"] and any(word.partition("=")[0] == "--ranks" for word in words)
    return supervises or (bool(words) and words[0] in ALONE)


def run(arguments, options: dict, comm) -> int:
    """Run the command of parsed arguments; return its exit status.

    Collective.

    Parameters
    ----------
    arguments
        Of the command line.
    options
        PETSc options of the solver.
    """
    if arguments.command in REAL and comm is not None:
        runtime.require_real(f"the command {arguments.command}")
    home = import_module(f"sparsehess.commands.{_HOME[arguments.command]}")
    return getattr(home, f"run_{arguments.command}")(arguments, options, comm)
