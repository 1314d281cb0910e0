"""What commands show: tables, plots, stored results.

Always: nothing is computed here; what is shown, rank 0 shows. Imports errors to eigen.
"""
