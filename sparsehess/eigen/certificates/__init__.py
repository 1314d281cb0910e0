"""What is proven of a spectrum: residuals, inertia, rank, lowest curvature, what dropping entries changes.

Always: no check uses the quantity that it checks. Imports all packages from errors to
operators, and all other parts of eigen.
"""
