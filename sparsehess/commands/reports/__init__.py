"""What commands show: tables, plots, pages, stored results.

Always: nothing is computed here; what is shown, rank 0 shows, and no more is gathered than is drawn; a page needs
no other file, and all text in it is escaped. Imports errors to eigen.
"""
