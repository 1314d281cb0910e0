"""JAX: objectives of its functions, patterns by tracing, curvature of its models.

Always: JAX is imported by the first function that needs it, what a release of it lacks is asked for in
`features`, and a pattern is no smaller than the truth at any x. Imports what `hosts` may, and `hosts.learning`.
"""
