"""What structural engineers ask of matrices: buckling, effective masses, modes on meshes, damped modes.

Always: answers are counted and certified by what stands in eigen, and told in the words of engineers, with signs
and units spelt out. Imports all packages from errors to operators, and eigen.
"""
