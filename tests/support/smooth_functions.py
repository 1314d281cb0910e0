"""Smooth functions of any size with analytic gradients and the exact pattern of their Hessians.

Each constructor takes the wanted number of variables, 12 or more, and comes as near to it as the
function allows. A function is a sum of small ones (`Terms`); gradient, pattern and Hessian all
follow from these, so that a component of the gradient sums the terms of its own variable only, in
a fixed order: it keeps its last bit when variables that it does not depend on move.

Energies and gradients take complex x as well, for the complex step. Hence no `abs` and no order.

Sources, where they are named by letters:

    CUTEst  N. I. M. Gould, D. Orban, Ph. L. Toint, Comput. Optim. Appl. 60 (2015), and its SIF files
    LV      L. Lukšan, J. Vlček, Sparse and partially separable test problems for unconstrained and
            equality constrained optimization, report 767, ICS, Academy of Sciences, Prague, 1999
    MGH     J. J. Moré, B. S. Garbow, K. E. Hillstrom, ACM Trans. Math. Softw. 7 (1981)
    PSPMIN  Ph. L. Toint, report 83/4, FUNDP Namur, 1983
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

STEP = 1e-30  # of complex steps: nothing is subtracted, so it may be as small as one likes


@dataclass(frozen=True, eq=False)
class Function:
    """A function, and a point that is generic: no minimum, and no entry of the Hessian vanishes by chance.

    Attributes
    ----------
    x
        (n,) the point, always the same.
    gradient
        `gradient(x) -> (n,)`, real or complex as x is.
    pattern
        int8 CSR of ones, symmetric, with the diagonal: where the Hessian is not identically zero.
    energy
        `energy(x) -> scalar`, real or complex as x is.
    hessian
        `hessian(x) -> CSR` for real x, exact but for rounding.
    """

    name: str
    x: np.ndarray
    gradient: Callable
    pattern: sp.csr_matrix
    energy: Callable
    hessian: Callable | None = None


@dataclass(frozen=True, eq=False)
class Terms:
    """The sum of one function of k arguments over m places.

    Attributes
    ----------
    variables
        (k, m) the variables that are its arguments; n, one past the last, is a constant zero.
    function
        `function(*arguments) -> (values, slopes)`, where arguments, values and each of the k slopes
        are (m,).
    coupled
        Pairs of arguments whose mixed derivative does not vanish identically; None for all.
    """

    variables: np.ndarray
    function: Callable
    coupled: tuple[tuple[int, int], ...] | None = None

    def __call__(self, padded):
        return self.function(*padded[self.variables])

    @property
    def entries(self) -> np.ndarray:
        """(2, e) the pairs of arguments, either way round and with themselves."""
        own = [(a, a) for a in range(len(self.variables))]
        pairs = itertools.combinations(range(len(own)), 2) if self.coupled is None else self.coupled
        return np.array(own + [ends for a, b in pairs for ends in ((a, b), (b, a))]).T

    def second(self, padded) -> np.ndarray:
        """(e, m) second derivatives of all entries, by complex steps in one argument after the other."""
        rows, cols = self.entries
        arguments = padded[self.variables].astype(complex)
        columns = []
        for step in 1j * STEP * np.eye(len(arguments))[:, :, None]:
            columns.append(np.stack(self.function(*(arguments + step))[1]).imag / STEP)
        return np.stack(columns)[cols, rows]


def partially_separable(name: str, x: np.ndarray, terms: list[Terms]) -> Function:
    """Return the sum of the terms as a function."""
    n = len(x)
    arguments = np.concatenate([t.variables.ravel() for t in terms])
    # A row adds what belongs to its variable, and neither skips nor reorders anything for other x.
    collect = sp.csr_matrix(
        (np.ones(len(arguments)), (arguments, np.arange(len(arguments)))), (n + 1, len(arguments))
    )[:n]
    rows, cols = (np.concatenate([t.variables[t.entries[end]].ravel() for t in terms]) for end in (0, 1))
    inside = (rows < n) & (cols < n)

    def padded(x):
        return np.append(x, x.dtype.type(0))

    def energy(x):
        return sum(t(padded(x))[0].sum() for t in terms)

    def gradient(x):
        return collect @ np.concatenate([slope for t in terms for slope in t(padded(x))[1]])

    def matrix(values):
        return sp.coo_matrix((values[inside], (rows[inside], cols[inside])), (n, n)).tocsr()

    def hessian(x):
        whole = matrix(np.concatenate([t.second(padded(x)).ravel() for t in terms]))
        return (whole + whole.T) / 2

    pattern = matrix(np.ones(len(rows))).astype(np.int8)
    pattern.data[:] = 1
    return Function(name, x, gradient, pattern, energy, hessian)


FUNCTIONS: dict[str, Callable[[int], Function]] = {}


def scalable(make):
    """Enter in the table what returns a point and terms, as a constructor of functions of its name."""

    @functools.wraps(make)
    def constructor(n):
        x, *terms = make(n)
        return partially_separable(make.__name__, x, terms)

    FUNCTIONS[make.__name__] = constructor
    return constructor


# --- points and places -----------------------------------------------------------------


def around(n, centre, spread):
    """Return a point within `spread` of the centre, which is repeated up to n."""
    return np.resize(centre, n) + np.random.default_rng(1).uniform(-spread, spread, n)


def chain(n, k, step=1):
    """Return every run of k variables that begins at a multiple of `step`."""
    return np.arange(k)[:, None] + np.arange(0, n - k + 1, step)


def window(n, *offsets):
    """Return for each variable those at these offsets from it, with zeros around."""
    places = np.add.outer(offsets, np.arange(n))
    return np.where((places < 0) | (places >= n), n, places)


def side(n, dimensions):
    """Return the side of the largest grid with no more than n points, 2 at least."""
    return max(2, int(n ** (1 / dimensions) + 1e-9))


def coordinates(nodes):
    """Return the variables (3 k, m) of nodes (k, m), each of which has three."""
    return (3 * nodes[:, None] + np.arange(3)[:, None]).reshape(3 * len(nodes), -1)


# --- chains ----------------------------------------------------------------------------


@scalable
def chained_rosenbrock(n):
    """LV 1, after Rosenbrock; tridiagonal."""

    def term(a, b):
        r = a**2 - b
        return 100 * r**2 + (a - 1) ** 2, (400 * a * r + 2 * (a - 1), -200 * r)

    return around(n, [-1.2, 1.0], 0.1), Terms(chain(n, 2), term)


@scalable
def chained_wood(n):
    """LV 2, CUTEst CHAINWOO; a tree that hangs on the even variables."""
    n -= n % 2

    def term(a, b, c, d):
        r, s, t, u = a**2 - b, c**2 - d, b + d - 2, b - d
        value = 100 * r**2 + (a - 1) ** 2 + 90 * s**2 + (c - 1) ** 2 + 10 * t**2 + u**2 / 10
        return value, (
            400 * a * r + 2 * (a - 1),
            -200 * r + 20 * t + u / 5,
            360 * c * s + 2 * (c - 1),
            -180 * s + 20 * t - u / 5,
        )

    return around(n, [-3.0, -1.0], 0.3), Terms(chain(n, 4, 2), term, ((0, 1), (2, 3), (1, 3)))


@scalable
def chained_powell(n):
    """LV 3, after Powell's singular function (MGH 13)."""
    n -= n % 2

    def term(a, b, c, d):
        r, s, t, u = a + 10 * b, c - d, b - 2 * c, a - d
        return r**2 + 5 * s**2 + t**4 + 10 * u**4, (
            2 * r + 40 * u**3,
            20 * r + 4 * t**3,
            10 * s - 8 * t**3,
            -10 * s - 40 * u**3,
        )

    x = around(n, [3.0, -1.0, 0.0, 1.0], 0.2)
    return x, Terms(chain(n, 4, 2), term, ((0, 1), (2, 3), (1, 2), (0, 3)))


@scalable
def cragg_levy(n):
    """CUTEst CRAGGLVY, PSPMIN 32, LV 4; tridiagonal."""
    n -= n % 2

    def term(a, b, c, d):
        e = np.exp(a)
        r, s, tangent = e - b, b - c, np.tan(c - d)
        t = tangent + c - d
        bend = 4 * t**3 * (2 + tangent**2)
        value = r**4 + 100 * s**6 + t**4 + a**8 + (d - 1) ** 2
        return value, (
            4 * r**3 * e + 8 * a**7,
            -4 * r**3 + 600 * s**5,
            -600 * s**5 + bend,
            -bend + 2 * (d - 1),
        )

    # Neighbours stay apart: at equal ones the powers would leave entries that are zero but for rounding.
    return around(n, [1.0, 2.0], 0.1), Terms(chain(n, 4, 2), term, ((0, 1), (1, 2), (2, 3)))


@scalable
def tridia(n):
    """CUTEst TRIDIA, PSPMIN 8, after Shanno: quadratic, tridiagonal."""
    weight = np.arange(2.0, n + 1)

    def first(a):
        return (a - 1) ** 2, (2 * (a - 1),)

    def term(a, b):
        r = 2 * b - a
        return weight * r**2, (-2 * weight * r, 4 * weight * r)

    return around(n, 1.0, 0.3), Terms(np.array([[0]]), first), Terms(chain(n, 2), term)


@scalable
def engval(n):
    """CUTEst ENGVAL1, PSPMIN 31; tridiagonal."""

    def term(a, b):
        r = a**2 + b**2
        return r**2 - 4 * a + 3, (4 * a * r - 4, 4 * b * r)

    return around(n, 2.0, 0.3), Terms(chain(n, 2), term)


@scalable
def toint_gauss(n):
    """CUTEst TOINTGSS, PSPMIN 21; pentadiagonal."""

    def term(a, b, c):
        u, height, width = a - b, 10 / (n - 2) + c**2, 0.1 + c**2
        bell = np.exp(-(u**2) / width)
        slope = 2 * height * bell * u / width
        return height * (2 - bell), (slope, -slope, 2 * c * (2 - bell) - slope * u * c / width)

    return around(n, [2.5, 3.5], 0.1), Terms(chain(n, 3), term)


# --- bands -----------------------------------------------------------------------------


@scalable
def broyden_tridiagonal(n):
    """MGH 30, CUTEst BROYDN3DLS: squares of a tridiagonal system; pentadiagonal."""

    def term(a, b, c):
        r = (3 - 2 * b) * b - a - 2 * c + 1
        return r**2, (-2 * r, 2 * r * (3 - 4 * b), -4 * r)

    return around(n, -1.0, 0.3), Terms(window(n, -1, 0, 1), term)


@scalable
def broyden_banded(n):
    """MGH 31, CUTEst BROYDNBDLS: squares of a system with five bands below and one above."""

    def term(b, *others):
        r = b * (2 + 5 * b**2) + 1 - sum(a * (1 + a) for a in others)
        return r**2, (2 * r * (2 + 15 * b**2), *(-2 * r * (1 + 2 * a) for a in others))

    return around(n, -1.0, 0.3), Terms(window(n, 0, -5, -4, -3, -2, -1, 1), term)


def rounded(r, p=7 / 3):
    """Return |r|^p and its derivative."""
    power = (r**2) ** (p / 2 - 1)
    return power * r**2, p * r * power


@scalable
def generalised_broyden(n):
    """LV 5: powers 7/3 of a tridiagonal system; pentadiagonal, smooth where no residual is zero."""

    def term(a, b, c):
        value, slope = rounded((3 - 2 * b) * b - a - c + 1)
        return value, (-slope, slope * (3 - 4 * b), -slope)

    return around(n, -1.0, 0.1), Terms(window(n, -1, 0, 1), term)


@scalable
def broyden_seven_diagonal(n):
    """CUTEst BROYDN7D, after Toint (1978): powers 7/3 again, with each variable tied to one n / 2 away."""
    n -= n % 2

    def term(a, b, c):
        value, slope = rounded(1 - a - 2 * c + (3 - b / 2) * b)
        return value, (-slope, slope * (3 - b), -2 * slope)

    def far(a, b):
        value, slope = rounded(a + b)
        return value, (slope, slope)

    return (
        around(n, -3.0, 0.1),  # at the published -1 some residuals are nearly zero, where the power is not smooth
        Terms(window(n, -1, 0, 1), term),
        Terms(np.arange(n).reshape(2, -1), far),
    )


@scalable
def discrete_boundary_value(n):
    """MGH 28, CUTEst MOREBV; pentadiagonal, and stiff."""
    h = 1 / (n + 1)
    t = h * np.arange(1, n + 1)

    def term(a, b, c):
        s = b + t + 1
        r = 2 * b - a - c + h**2 * s**3 / 2
        return r**2, (-2 * r, 2 * r * (2 + 1.5 * h**2 * s**2), -2 * r)

    return around(n, t * (t - 1), 0.1), Terms(window(n, -1, 0, 1), term)


# --- dense rows ------------------------------------------------------------------------


@scalable
def arwhead(n):
    """CUTEst ARWHEAD: an arrow that points downwards."""

    def term(a, b):
        r = a**2 + b**2
        return r**2 - 4 * a + 3, (4 * a * r - 4, 4 * b * r)

    return around(n, 1.0, 0.3), Terms(np.stack([np.arange(n - 1), np.full(n - 1, n - 1)]), term)


@scalable
def liarwhd(n):
    """CUTEst LIARWHD, after Li: an arrow that points upwards."""

    def term(a, b):
        r = a**2 - b
        return 4 * r**2 + (a - 1) ** 2, (16 * a * r + 2 * (a - 1), -8 * r)

    return around(n, 4.0, 0.5), Terms(np.stack([np.arange(n), np.zeros(n, int)]), term)


@scalable
def bdqrtic(n):
    """CUTEst BDQRTIC: an arrow on a band of seven diagonals."""
    weights = (1, 2, 3, 4, 5)

    def term(*arguments):
        line = 3 - 4 * arguments[0]
        r = sum(w * a**2 for w, a in zip(weights, arguments, strict=True))
        slopes = [4 * w * a * r for w, a in zip(weights, arguments, strict=True)]
        slopes[0] = slopes[0] - 8 * line
        return line**2 + r**2, slopes

    return around(n, 1.0, 0.3), Terms(np.vstack([chain(n - 1, 4), np.full(n - 4, n - 1)]), term)


# --- couplings far apart ---------------------------------------------------------------


@scalable
def dixmaan(n):
    """CUTEst DIXMAANG, after Dixon and Maany: i is tied to i + 1, i + n / 3 and i + 2 n / 3."""
    m = n // 3
    n = 3 * m
    places, weight = np.arange(n), np.arange(1, n + 1) / n

    def square(a):
        return weight * a**2, (2 * weight * a,)

    def near(a, b):
        s = b + b**2
        return a**2 * s**2 / 8, (a * s**2 / 4, a**2 * s * (1 + 2 * b) / 4)

    def third(a, b):
        return a**2 * b**4 / 8, (a * b**4 / 4, a**2 * b**3 / 2)

    def ends(a, b):
        w = weight[:m] / 8
        return w * a * b, (w * b, w * a)

    return (
        around(n, 2.0, 0.5),
        Terms(places[None], square),
        Terms(chain(n, 2), near),
        Terms(np.stack([places[: 2 * m], places[m:]]), third),
        Terms(np.stack([places[:m], places[2 * m :]]), ends),
    )


@scalable
def sparsine(n):
    """CUTEst SPARSINE (Gould, 1995): sines of variables i, 2i, 3i, 5i, 7i and 11i, around the end."""
    number = np.arange(1, n + 1)

    def term(*arguments):
        r = sum(np.sin(a) for a in arguments)
        return number * r**2 / 2, [number * r * np.cos(a) for a in arguments]

    return around(n, 0.5, 0.3), Terms(np.stack([(f * number - 1) % n for f in (1, 2, 3, 5, 7, 11)]), term)


@scalable
def noncvxu(n):
    """CUTEst NONCVXU2 (Gould, 1996): sums of variables i, 3i - 1 and 7i - 2, around the end; indefinite."""
    number = np.arange(1, n + 1)

    def term(a, b, c):
        r = a + b + c
        slope = 2 * r - 4 * np.sin(r)
        return r**2 + 4 * np.cos(r), (slope, slope, slope)

    return around(n, 0.0, 1.0), Terms(np.stack([number - 1, (3 * number - 2) % n, (7 * number - 3) % n]), term)


# --- grids and bodies ------------------------------------------------------------------


@scalable
def minimal_surface(n):
    """CUTEst FMINSRF2, after Griewank and Toint: a surface over the unit square; nine points."""
    p = side(n, 2)
    n, cells = p**2, p - 1
    grid = np.arange(n).reshape(p, p)
    corners = [grid[i : p - 1 + i, j : p - 1 + j].ravel() for i in (0, 1) for j in (0, 1)]
    middle = grid[p // 2 - 1, p // 2 - 1]

    def cell(a, b, c, d):
        u, v = a - d, c - b
        area = np.sqrt(0.5 * cells**2 * (u**2 + v**2) + 1)
        u, v = 50 * u / area, 50 * v / area
        return 100 * area / cells**2, (u, -v, v, -u)

    def anchor(a):
        return 100 * a**2 / n, (200 * a / n,)

    plane = 1 + np.add.outer(8 * np.arange(p), 4 * np.arange(p)).ravel() / cells
    return around(n, plane, 2 / cells), Terms(np.stack(corners), cell), Terms(np.array([[middle]]), anchor)


@scalable
def bratu(n):
    """Energy whose gradient is CUTEst BRATU3D, after Moré, with zeros around; seven points."""
    p = side(n, 3)
    n = p**3
    heat = 6.80812 / (p + 1) ** 2
    points = np.pad(np.arange(n).reshape(p, p, p), 1, constant_values=n)
    lines = [np.moveaxis(points, axis, 0)[:, 1:-1, 1:-1] for axis in range(3)]
    edges = np.concatenate([np.stack([line[:-1].ravel(), line[1:].ravel()]) for line in lines], axis=1)

    def edge(a, b):
        return (a - b) ** 2 / 2, (a - b, b - a)

    def source(a):
        e = heat * np.exp(a)
        return -e, (-e,)

    return around(n, 1.0, 0.5), Terms(edges, edge), Terms(np.arange(n)[None], source)


INNER, OUTER, SKIN = 1.8, 2.33, 0.5  # in σ
TURN = Rotation.from_rotvec([0.8, 0.8, 0.8]).as_matrix()  # the lattice's bonds lie 5° off the planes


@scalable
def lennard_jones(n):
    """A shaken cluster of argon, cut off from 1.8 to 2.33 σ by a polynomial with two derivatives; n / 3 atoms.

    The cut-off lies between two shells of neighbours further apart than the atoms are shaken, and
    the lattice is turned out of the axes: no entry of the pattern is next to nothing by symmetry.
    """
    atoms = n // 3
    cells = int(1.3 * (atoms / 4) ** (1 / 3)) + 3
    corners = np.indices((cells, cells, cells)).reshape(3, 1, -1)
    face = np.array([[0, 0, 0.5, 0.5], [0, 0.5, 0, 0.5], [0, 0.5, 0.5, 0]])[:, :, None]
    sites = 1.56 * (corners + face).reshape(3, -1).T @ TURN
    centre = sites.mean(axis=0) + np.array([0.01, 0.02, 0.03])  # beside the lattice: no two sites are as near
    sites = sites[np.argsort(((sites - centre) ** 2).sum(axis=1), kind="stable")[:atoms]]
    x = around(3 * atoms, sites.ravel(), 0.03)

    def pair(*ends):
        bond = np.stack(ends[:3]) - np.stack(ends[3:])
        r = np.sqrt((bond**2).sum(axis=0))
        t = (r - INNER) / (OUTER - INNER)
        t = np.where(t.real < 0, 0, np.where(t.real > 1, 1, t))
        switch = 1 - t**3 * (10 - 15 * t + 6 * t**2)
        bend = -30 * t**2 * (1 - t) ** 2 / (OUTER - INNER)
        sixth = r**-6.0
        value = 4 * sixth * (sixth - 1)
        slope = -24 * sixth * (2 * sixth - 1) / r
        pull = (slope * switch + value * bend) / r * bond
        return value * switch, (*pull, *-pull)

    positions = x.reshape(-1, 3)
    pairs = cKDTree(positions).query_pairs(OUTER + SKIN, output_type="ndarray").T
    near = ((positions[pairs[0]] - positions[pairs[1]]) ** 2).sum(axis=1) < OUTER**2
    variables = coordinates(pairs)
    # Pairs in the skin add nothing at x; they make the function right where atoms have moved some way.
    return x, Terms(variables[:, near], pair), Terms(variables[:, ~near], pair, ())


@scalable
def neo_hooke(n):
    """A box of rubber, linear tetrahedra, free and strained: μ/2 (tr FᵀF - 3 - 2 ln J) + λ/2 ln² J; n / 3 nodes.

    The material is Simo and Pister's, as in J. Bonet, R. D. Wood, Nonlinear Continuum Mechanics for
    Finite Element Analysis, 2nd ed., 6.4.3. Each cube is six tetrahedra around its diagonal (Kuhn).
    """
    mu, lame = 1.0, 2.0
    nodes = side(n / 3, 3)
    number = np.arange(nodes**3).reshape(nodes, nodes, nodes)
    rest = np.indices(number.shape).reshape(3, -1).T.astype(float)
    elements = []
    for order in itertools.permutations(range(3)):
        path = np.vstack([np.zeros(3, int), np.eye(3, dtype=int)[list(order)].cumsum(axis=0)])
        shifted = [number[tuple(slice(s, nodes - 1 + s) for s in shift)].ravel() for shift in path]
        elements.append(np.stack(shifted))
    elements = np.concatenate(elements, axis=1)  # (4, m)
    edges = rest[elements[1:]] - rest[elements[0]]  # (3, m, 3)
    volume = np.abs(np.linalg.det(edges.transpose(1, 0, 2))) / 6
    inner = np.linalg.inv(edges.transpose(1, 0, 2)).transpose(2, 1, 0)
    shape = np.concatenate([-inner.sum(axis=0, keepdims=True), inner])  # (4, 3, m) gradients of the hats

    def element(*coordinates):
        corners = np.stack(coordinates).reshape(4, 3, -1)
        F = np.einsum("aim,ajm->ijm", corners, shape)
        # The columns of the cofactor matrix J F⁻ᵀ are cross products of those of F.
        cofactor = np.stack([np.cross(F[:, j - 2], F[:, j - 1], axis=0) for j in range(3)], axis=1)
        J = (F[:, 0] * cofactor[:, 0]).sum(axis=0)
        log = np.log(J)
        value = mu / 2 * ((F**2).sum(axis=(0, 1)) - 3 - 2 * log) + lame / 2 * log**2
        stress = mu * F + (lame * log - mu) / J * cofactor
        return volume * value, np.einsum("ijm,ajm->aim", volume * stress, shape).reshape(12, -1)

    strain = np.array([[1.15, 0.2, -0.1], [0.05, 0.9, 0.15], [-0.2, 0.1, 1.05]])
    return around(rest.size, (rest @ strain @ TURN).ravel(), 0.08), Terms(coordinates(elements), element)
