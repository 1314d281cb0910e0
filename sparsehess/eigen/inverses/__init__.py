"""What factors tell of an inverse: entries, samples, the Hessian on constraints, the kind of a stationary point.

Always: no number leaves this package that a singular matrix has made; a matrix that is singular to the accuracy of
its factors is refused, and the message tells on which rows. Entries come with an error, measured at the factors.
Imports all packages from errors to operators, and those of eigen that stand before it.
"""

from sparsehess.eigen.inverses.gaussian_samples import Samples, gaussian_samples
from sparsehess.eigen.inverses.reduced_hessian import ReducedHessian, reduced_hessian
from sparsehess.eigen.inverses.selected_inverse import SelectedInverse, selected_inverse
from sparsehess.eigen.inverses.stationary_point import StationaryPoint, stationary_point

__all__ = [
    "ReducedHessian",
    "Samples",
    "SelectedInverse",
    "StationaryPoint",
    "gaussian_samples",
    "reduced_hessian",
    "selected_inverse",
    "stationary_point",
]
