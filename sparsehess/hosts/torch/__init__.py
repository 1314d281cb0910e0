"""PyTorch: objectives of its functions, curvature of its models.

Always: PyTorch is imported by the first function that needs it, and the caller's modules are left as they were.
Imports what `hosts` may, and `hosts.learning`.
"""
