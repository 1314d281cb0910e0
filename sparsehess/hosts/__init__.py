"""Where objectives and matrices come from other programs: ASE, CasADi, dolfinx, scikit-fem, JAX, PyTorch, and C.

Always: a host is imported by the first function that needs it, and its absence is a `StackError` that says how to
install it; what goes back to a host is of the host's own types. May import all packages up to eigen/certificates;
`learning` is shared by JAX and PyTorch, and hosts are not imported by each other otherwise.
"""
