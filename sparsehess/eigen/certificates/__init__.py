"""What is proven of a spectrum: residuals, inertia, rank, lowest curvature, what dropping entries changes.

Always: no check uses the quantity that it checks. Imports all other parts of eigen.
"""
