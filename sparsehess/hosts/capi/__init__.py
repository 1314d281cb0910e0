"""A C ABI for hosts in C, C++ and Fortran: `python -m sparsehess.hosts.capi.build OUTDIR` makes the library."""
