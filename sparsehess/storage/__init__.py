"""Everything on disk: atomic files, matrices, vectors, HDF5, checkpoints and locks.

Always: a file is whole or it is not there, nothing is unpickled, and what is read is checked before memory is
taken for it. Imports errors, runtime and pattern.
"""
