"""A C ABI for hosts in C, C++ and Fortran: `python -m sparsehess.capi.build OUTDIR` makes the library.

Always: MPI is started and ended on the C side, no Python error crosses the boundary but as a code and a message,
arrays are copied when they are set, and a setter's error reaches all ranks with the next solve. Imports what
`hosts` may.
"""
