"""PyTorch: objectives of its functions, curvature of its models.

Imported when asked for alone.
"""
