"""What models of JAX and PyTorch share: samples dealt to ranks and their weights, Kronecker factors, products.

Always: neither JAX nor PyTorch is imported here; sums over samples are formed over all ranks. Imports what
`hosts` may.
"""
