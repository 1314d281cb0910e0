"""Functions of the shapes that are met in practice, of any size: potentials, likelihoods, barriers, multipliers.

They are made as those of `smooth_functions` are, and `SHAPES` has both. Beside a function, a `Shape` says over
which distance each variable bends it, and where it ends.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from support.smooth_functions import (
    FUNCTIONS,
    TURN,
    Function,
    Terms,
    around,
    chain,
    coordinates,
    partially_separable,
    side,
)


@dataclass(frozen=True, eq=False)
class Shape:
    """A function, and what its user knows of its variables.

    Attributes
    ----------
    length
        (n,) how far each variable goes, at the function's own point, before its derivatives change by their size.
    lower
        Where the function ends, below all variables.
    at_zero
        Whether it is smooth around 0, too.
    """

    function: Function
    length: np.ndarray
    lower: float
    at_zero: bool


SHAPES: dict[str, Callable[[int], Shape]] = {}


def shape(name, make, length, lower, at_zero):
    """Enter in the table what `make(n)` returns; `length` is a number, or that of each variable from x."""

    def constructor(n):
        function = make(n)
        known = length(function.x) if callable(length) else length
        return Shape(function, np.broadcast_to(known, function.x.shape).astype(float), lower, at_zero)

    SHAPES[name] = constructor


_SHORTER = {"lennard_jones": 0.1, "cragg_levy": 0.3, "minimal_surface": 0.3, "noncvxu": 0.3, "sparsine": 0.3}
_NOT_AT_ZERO = ("broyden_seven_diagonal", "lennard_jones", "neo_hooke")
for _name, _make in FUNCTIONS.items():
    shape(_name, _make, _SHORTER.get(_name, 1.0), -np.inf, _name not in _NOT_AT_ZERO)


def practical(length=1.0, lower=-np.inf, at_zero=False):
    """Enter in the table what returns a point and terms."""

    def enter(make):
        def function(n):
            x, *terms = make(n)
            return partially_separable(make.__name__, x, terms)

        shape(make.__name__, function, length, lower, at_zero)
        return make

    return enter


def spread(n, low, high):
    """Return a point between two numbers, evenly on a logarithmic scale."""
    return np.exp(np.random.default_rng(2).uniform(np.log(low), np.log(high), n))


def samples(n, k, each=2):
    """Return (k, m) variables of so many samples a variable, and coefficients (k, m)."""
    rng = np.random.default_rng(3)
    chosen = np.stack(
        [(i + np.sort(rng.choice(min(9, n), k, replace=False))) % n for i in range(n)] * each, axis=1
    )
    return chosen, rng.uniform(0.5, 1.5, chosen.shape) * rng.choice([-1, 1], chosen.shape)


def bonds(grid):
    """Return (2, m) the neighbours along each axis of an array of numbers."""
    pairs = []
    for axis in range(grid.ndim):
        line = np.moveaxis(grid, axis, 0)
        pairs.append(np.stack([line[:-1].ravel(), line[1:].ravel()]))
    return np.concatenate(pairs, axis=1)


def distance(*ends):
    """Return the vector and the distance between two points of as many coordinates."""
    half = len(ends) // 2
    way = np.stack(ends[:half]) - np.stack(ends[half:])
    return way, np.sqrt((way**2).sum(axis=0))


def central(law):
    """Return the function of two points that is a law of their distance: `law(r) -> (value, slope)`."""

    def pair(*ends):
        way, r = distance(*ends)
        value, slope = law(r)
        pull = slope / r * way
        return value, (*pull, *-pull)

    return pair


def single(n):
    return np.arange(n)[None]


# --- potentials ------------------------------------------------------------------------


@practical(length=0.3)
def morse_chain(n):
    """Atoms on a line, held at the first."""

    def bond(a, b):
        e = np.exp(-2 * (b - a - 1))
        slope = 4 * e * (1 - e)
        return (1 - e) ** 2, (-slope, slope)

    return (
        around(n, np.arange(n), 0.1),
        Terms(chain(n, 2), bond),
        Terms(np.array([[0]]), lambda a: (a**2, (2 * a,))),
    )


@practical(at_zero=True)
def toda_chain(n):
    """Exponential springs between neighbours."""

    def bond(a, b):
        e = np.exp(b - a)
        return e - b + a, (1 - e, e - 1)

    return around(n, 0.0, 2.0), Terms(chain(n, 2), bond)


@practical(length=0.5)
def coulomb_cluster(n):
    """Charges of both signs in a harmonic trap; every pair in three dimensions."""
    atoms = n // 3
    p = int(np.ceil(atoms ** (1 / 3) - 1e-9))
    sites = 1.2 * np.indices((p, p, p)).reshape(3, -1).T[:atoms] @ TURN
    pairs = np.stack(np.triu_indices(atoms, 1))
    sign = np.where(pairs.sum(axis=0) % 2, -1.0, 1.0)

    def trap(a):
        return a**2 / 2, (a,)

    law = central(lambda r: (sign / r, -sign / r**2))
    return around(3 * atoms, sites.ravel(), 0.15), Terms(coordinates(pairs), law), Terms(single(3 * atoms), trap)


@practical()
def springs(n):
    """A box of nodes in space, held softly, with springs along its edges that are turned and stretched."""
    p = side(n / 3, 3)
    grid = np.arange(p**3).reshape(p, p, p)
    x = around(3 * grid.size, (1.1 * np.indices(grid.shape).reshape(3, -1).T @ TURN).ravel(), 0.1)

    def held(a):
        return 0.01 * a**2, (0.02 * a,)

    law = central(lambda r: ((r - 1) ** 2 / 2, r - 1))
    return x, Terms(coordinates(bonds(grid)), law), Terms(single(len(x)), held)


@practical(length=0.1)
def contacts(n):
    """Spheres in a row, each pressed into the next by some hundredths: (1 - distance)^2.5, in the plane."""
    m = n // 2
    sites = np.stack([0.85 * np.arange(m), 0.1 * np.sin(np.arange(m))], axis=1).ravel()
    pairs = np.stack([np.arange(m - 1), np.arange(1, m)])
    places = (2 * pairs[:, None] + np.arange(2)[:, None]).reshape(4, -1)

    def law(r):
        gap = np.where(r.real < 1, 1 - r, 0)
        return gap**2.5, -2.5 * gap**1.5

    def held(a):
        return 0.05 * a**2, (0.1 * a,)

    return around(2 * m, sites, 0.02), Terms(places, central(law)), Terms(single(2 * m), held)


@practical(at_zero=True)
def phi_four(n):
    """A field on a square lattice, with two wells."""
    p = side(n, 2)
    grid = np.arange(p * p).reshape(p, p)

    def bond(a, b):
        return (a - b) ** 2 / 2, (a - b, b - a)

    def well(a):
        return (a**2 - 1) ** 2 / 4, (a * (a**2 - 1),)

    return around(p * p, [0.9, -0.4], 0.3), Terms(bonds(grid), bond), Terms(single(p * p), well)


@practical(at_zero=True)
def gaussian_kernels(n):
    """Points on a line that repel by Gaussians of their distance, and a well."""
    pairs = np.stack([(i, i + d) for d in (1, 2, 3) for i in range(n - d)], axis=1)

    def kernel(a, b):
        e = np.exp(-((a - b) ** 2) / 2)
        return e, ((b - a) * e, (a - b) * e)

    def well(a):
        return 0.05 * a**2, (0.1 * a,)

    return around(n, 0.7 * np.arange(n), 0.2), Terms(pairs, kernel), Terms(single(n), well)


# --- likelihoods -----------------------------------------------------------------------


@practical(at_zero=True)
def logistic_regression(n):
    """Samples of three features each, with a ridge."""
    chosen, weights = samples(n, 3)
    y = np.sign(weights[0])

    def loss(*theta):
        margin = y * sum(w * t for w, t in zip(weights, theta, strict=True))
        slope = -y / (1 + np.exp(margin))
        return np.log(1 + np.exp(-margin)), [slope * w for w in weights]

    def ridge(a):
        return 0.01 * a**2, (0.02 * a,)

    return around(n, 0.0, 1.0), Terms(chosen, loss), Terms(single(n), ridge)


@practical(at_zero=True)
def poisson_regression(n):
    """Counts with rates exp(w·θ), three features each."""
    chosen, weights = samples(n, 3)
    counts = np.random.default_rng(4).poisson(3.0, chosen.shape[1])

    def loss(*theta):
        eta = sum(w * t for w, t in zip(weights, theta, strict=True))
        rate = np.exp(eta)
        return rate - counts * eta, [(rate - counts) * w for w in weights]

    return around(n, 0.0, 0.8), Terms(chosen, loss)


@practical(at_zero=True)
def robust_regression(n):
    """Student's t of the residuals, not convex, and a ridge."""
    chosen, weights = samples(n, 2)
    y = np.random.default_rng(5).normal(0, 2, chosen.shape[1])

    def loss(a, b):
        r = weights[0] * a + weights[1] * b - y
        slope = 2 * r / (1 + r**2)
        return np.log(1 + r**2), (slope * weights[0], slope * weights[1])

    def ridge(a):
        return 0.1 * a**2, (0.2 * a,)

    return around(n, 0.0, 1.0), Terms(chosen, loss), Terms(single(n), ridge)


@practical(at_zero=True)
def softplus_chain(n):
    """ln(1 + exp(4 (a - b))) of neighbours, and a ridge."""

    def bond(a, b):
        e = np.exp(4 * (a - b))
        slope = 4 * e / (1 + e)
        return np.log(1 + e), (slope, -slope)

    def ridge(a):
        return 0.1 * a**2, (0.2 * a,)

    return around(n, 0.0, 1.0), Terms(chain(n, 2), bond), Terms(single(n), ridge)


@practical(length=0.3, at_zero=True)
def saturating(n):
    """Squares of tanh(a + 2 b - c) less a target, many of them nearly saturated."""

    def loss(a, b, c):
        t = np.tanh(a + 2 * b - c)
        slope = 2 * (t - 0.3) * (1 - t**2)
        return (t - 0.3) ** 2, (slope, 2 * slope, -slope)

    return around(n, 0.0, 1.0), Terms(chain(n, 3), loss)


# --- optimisation ----------------------------------------------------------------------


@practical(length=np.abs, lower=0.0)
def log_barrier(n):
    """A quadratic chain with μ = 1e-6 times the logarithms of its variables, every fifth of them 1e-6 itself."""
    x = around(n, 1.0, 0.5)
    x[::5] *= 1e-6

    def bond(a, b):
        return (a - b) ** 2 / 2, (a - b, b - a)

    def barrier(a):
        return a**2 / 2 - 1e-6 * np.log(a), (a - 1e-6 / a,)

    return x, Terms(chain(n, 2), bond), Terms(single(n), barrier)


@practical(length=np.abs, lower=0.0)
def entropy(n):
    """Σ x ln x of shares between 1e-4 and 1, and the coupling of neighbours."""

    def own(a):
        log = np.log(a)
        return a * log, (log + 1,)

    def bond(a, b):
        return a * b / 2, (b / 2, a / 2)

    return spread(n, 1e-4, 1), Terms(single(n), own), Terms(chain(n, 2), bond)


@practical(at_zero=True)
def multipliers(n):
    """A sum of exponentials under circles, one a pair of variables, each with its multiplier: a saddle."""
    m = n // 3

    def circle(a, b, multiplier):
        r = a**2 + b**2 - 1
        return multiplier * r, (2 * a * multiplier, 2 * b * multiplier, r)

    def cost(a, b):
        e = np.exp(a - b / 2)
        return e, (e, -e / 2)

    places = np.stack([np.arange(m), m + np.arange(m), 2 * m + np.arange(m)])
    return around(3 * m, 0.8, 0.3), Terms(places, circle), Terms(chain(2 * m, 2), cost)


@practical(at_zero=True)
def penalties(n):
    """A chain in which every fourth bond is 1e8 times as stiff, and squared lengths besides."""
    weight = np.where(np.arange(n - 1) % 4 == 0, 1e8, 1.0)

    def bond(a, b):
        return weight * (a - b) ** 2 / 2, (weight * (a - b), weight * (b - a))

    def own(a):
        return (a**2 - 1) ** 2, (4 * a * (a**2 - 1),)

    return around(n, 1.0, 0.3), Terms(chain(n, 2), bond), Terms(single(n), own)


@practical(at_zero=True)
def triple_products(n):
    """Σ x_i x_{i+1} x_{i+2}: its Hessian is zero at 0."""

    def product(a, b, c):
        return a * b * c, (b * c, a * c, a * b)

    return around(n, 0.0, 1.5), Terms(chain(n, 3), product, ((0, 1), (0, 2), (1, 2)))


@practical(at_zero=True)
def bilinear(n):
    """Products of neighbours and a slope: the gradient is large, and the Hessian has no diagonal."""

    def product(a, b):
        return a * b + 3 * a, (b + 3, a)

    return around(n, 0.0, 1.0), Terms(chain(n, 2), product)


@practical(at_zero=True)
def quartic(n):
    """Fourth powers of variables and of differences: its Hessian is zero at 0."""

    def bond(a, b):
        r = a - b
        return r**4, (4 * r**3, -4 * r**3)

    def own(a):
        return a**4, (4 * a**3,)

    return around(n, 1.0, 0.5), Terms(chain(n, 2), bond), Terms(single(n), own)


@practical(at_zero=True)
def linear(n):
    """A slope: its Hessian is zero."""
    slope = np.linspace(0.5, 2.0, n)
    return around(n, 1.0, 0.5), Terms(single(n), lambda a: (slope * a, (slope + 0 * a,)))


@practical(at_zero=True)
def quadratic_chain(n):
    """Springs between neighbours, held at both ends."""

    def bond(a, b):
        return (a - b) ** 2 / 2, (a - b, b - a)

    ends = np.array([[0, n - 1]])
    return around(n, 0.0, 1.0), Terms(chain(n, 2), bond), Terms(ends, lambda a: (a**2 / 2, (a,)))


@practical(length=0.1, at_zero=True)
def total_variation(n):
    """The lengths of steps of a signal, rounded within 0.1, and the distance from data."""

    def bond(a, b):
        r = a - b
        length = np.sqrt(r**2 + 0.01)
        return length, (r / length, -r / length)

    def data(a):
        return a**2 / 4, (a / 2,)

    return around(n, 0.0, 0.5), Terms(chain(n, 2), bond), Terms(single(n), data)


@practical(length=0.5, lower=0.0)
def powers(n):
    """Σ x^1.5 and the products of their roots."""

    def own(a):
        return a**1.5, (1.5 * np.sqrt(a),)

    def bond(a, b):
        root = np.sqrt(a * b)
        return root / 2, (root / (4 * a), root / (4 * b))

    return spread(n, 0.3, 3.0), Terms(single(n), own), Terms(chain(n, 2), bond)


@practical(length=np.abs, lower=0.0)
def ratios(n):
    """Quotients of neighbours, of sizes from 0.01 to 100."""

    def quotient(a, b):
        return a / b, (1 / b, -a / b**2)

    def own(a):
        return 1 / a, (-1 / a**2,)

    return spread(n, 0.01, 100.0), Terms(chain(n, 2), quotient), Terms(single(n), own)


@practical(at_zero=True)
def chained_brown(n):
    """Powers after Brown: p^(q + 1) with p = a² + 0.1 and q = b² + 0.1, and the other way round."""

    def term(a, b):
        p, q = a**2 + 0.1, b**2 + 0.1
        u, v = p ** (q + 1), q ** (p + 1)
        return u + v, (
            2 * a * (u * (q + 1) / p + v * np.log(q)),
            2 * b * (u * np.log(p) + v * (p + 1) / q),
        )

    return around(n, [-0.8, 0.9], 0.1), Terms(chain(n, 2), term)
