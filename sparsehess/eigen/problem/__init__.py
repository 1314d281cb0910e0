"""What is solved: matrices, masses, null spaces, options, factorizations and blocks of vectors.

Always: an `EigenProblem` owns what it has made, and destroys it in order. Imports all packages from errors to
operators.
"""
