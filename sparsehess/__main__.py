"""`python -m sparsehess`: the command line."""

from sparsehess.cli import main

if __name__ == "__main__":
    main()
