"""Build libsparsehess.so, its header and its Fortran module, for programs in C, C++ and Fortran."""

import sys

from sparsehess.hosts.capi.build import main

if __name__ == "__main__":
    sys.exit(main())
