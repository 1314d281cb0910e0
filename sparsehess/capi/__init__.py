"""The C library by the short name of its build: `python -m sparsehess.capi.build OUTDIR`.

Always: nothing of its own. Imports `hosts.capi` alone.
"""
