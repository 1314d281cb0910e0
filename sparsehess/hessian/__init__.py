"""Hessians of objectives: patterns detected, entries recovered, assembled, verified; or products alone.

Always: the road is pattern, colouring, differences, recovery, verification, and its stages meet in `assembly` and
`hessian` alone; recovery knows nothing of how columns were evaluated; a Hessian is symmetric to the last bit.
What is saved is told by a `NoJournal`, which saves nothing, or a `Journal`. Imports errors to derivatives.
"""
