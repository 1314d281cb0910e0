"""JAX: objectives of its functions, patterns by tracing, curvature of its models.

Imported when asked for alone.
"""
