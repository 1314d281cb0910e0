"""Calls of the user's functions that a run takes: for an assembly, or for products with what is not assembled."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sparsehess.derivatives.consistency import least_calls
from sparsehess.derivatives.finite_differences import DIFFERENCES, group_by_size, plan_check, scheme_of
from sparsehess.derivatives.scales import Scales
from sparsehess.runtime.random_numbers import draw_signed

if TYPE_CHECKING:
    from sparsehess.commands.planned_products import Products
    from sparsehess.derivatives.gradient_noise import Noise
    from sparsehess.derivatives.objective import Objective

# Gradients for each colour, or for each fresh product of the check, by scheme.
_PER_COLOR = {"forward": 1, "central": 2, "extrapolated": 4, "complex": 1, "product": 1}
_PER_CHECK = {"forward": 2, "central": 2, "extrapolated": 4, "complex": 2, "product": 1}

# Gradients that measure the noise, at least; and beside them where a pattern is looked for.
_NOISE, _BEFORE_TESTS = 7, 3

# Tests that find a pattern, over log2 of the variables: for each entry of a row, and besides. In the middle of
# what chains, grids, blocks and random graphs took.
_FOR_EACH, _BESIDES = 1.5, 8.0

# So many times less or more tests, and colours, it may be where a pattern is not known.
_TESTS, _COLORS = 2.5, 4.0


@dataclass(frozen=True)
class Measured:
    """What was measured before derivatives are taken, as a run does it.

    Attributes
    ----------
    noise, scales
        Of the gradient, for differences; None where they are none.
    calls
        That took.
    compared
        Calls that compared what the objective gives twice: gradient, products, energy.
    """

    noise: Noise | None
    scales: Scales
    calls: int
    compared: int


@dataclass(frozen=True)
class Calls:
    """Calls of the user's functions, by purpose; `estimated` where it is not known exactly how many.

    Attributes
    ----------
    colors
        None for a sum over elements, and where nothing is assembled.
    scheme
        Scheme of the derivatives.
    derivatives, noise, verification, pattern
        Calls of `function`.
    products
        With the Hessian, where it is not assembled; each takes one call, or two gradients.
    function
        What is counted: `gradient`, `product`, or `energy` where gradients are differences of that.
    less, more
        By how many calls the total may be off; None where nothing bounds it.
    """

    colors: int | None
    scheme: str
    derivatives: int
    noise: int
    verification: int
    pattern: int
    estimated: bool
    products: int | None = None
    function: str = "gradient"
    less: int = 0
    more: int | None = 0

    @property
    def total(self) -> int:
        """Calls for all purposes together."""
        return self.derivatives + self.noise + self.verification + self.pattern

    @property
    def least(self) -> int:
        """No run takes fewer."""
        return self.total - self.less

    @property
    def most(self) -> int | None:
        """No run that ends takes more; None where nothing bounds it."""
        return None if self.more is None else self.total + self.more

    def facts(self) -> dict[str, Any]:
        """Return what JSON says. Not collective."""
        told = asdict(self)
        del told["less"], told["more"]
        return {**told, "total": self.total, "least": self.least, "most": self.most}

    @property
    def bar(self) -> str:
        """The total with its bar in words: "15", "about 75 (50 to 120)"."""
        if not self.estimated:
            return str(self.total)
        if self.most is None and not self.less:
            return f"at least {self.total}"
        if self.most is None:
            return f"about {self.total} ({self.least} at least)"
        return f"about {self.total} ({self.least} to {self.most})"


def count_calls(
    objective: Objective,
    derivative: str,
    colors: int | None,
    verified: bool,
    probed: int = 0,
    measured: Measured | None = None,
    seed: int = 0,
) -> Calls:
    """Count the calls of an objective's functions in one assembly.

    Collective.

    Parameters
    ----------
    colors
        None for a sum over elements: there a sweep over all of them counts as a gradient.
    probed
        Tests that detect the pattern; 0 where it is given.
    measured
        Before; None where nothing was: then the noise takes 7 gradients at least.
    seed
        Of the check.
    """
    scheme = scheme_of(derivative, objective)
    if colors is None:
        kinds = objective.elements or ()
        pieces = max(objective.comm.allgather(max((kind.size for kind in kinds), default=0)))
    else:
        pieces = colors
    differences = scheme in DIFFERENCES
    function, each = _counted(objective, scheme)
    noise = 0 if not differences else _NOISE if measured is None else measured.calls // each
    checks = _PER_CHECK[scheme] * _groups(objective, scheme, measured, seed) if verified else 0
    before = noise + _BEFORE_TESTS if probed and scheme != "product" else 0
    derivatives = each * (pieces * _PER_COLOR[scheme] + (scheme == "forward"))
    found = probed > 0
    less = _part(each * probed, 1 - 1 / _TESTS) + _part(derivatives, 1 - 1 / _COLORS) if found else 0
    columns = each * _PER_COLOR[scheme] * (max(objective.n - pieces, 0)) if found else 0
    more = min(_part(each * probed, _TESTS - 1), each * 2 * objective.n) if found else 0
    unknown = differences and measured is None
    return Calls(
        colors=colors,
        scheme=scheme,
        derivatives=derivatives,
        noise=each * noise,
        verification=each * checks + _compared(objective, verified, measured),
        pattern=each * (probed + before) if found else 0,
        estimated=found or unknown,
        function=function,
        less=less,
        more=None if unknown else more + min(_part(derivatives, _COLORS - 1), columns),
    )


def count_shell_calls(
    objective: Objective, products: Products, verified: bool, measured: Measured | None = None
) -> Calls:
    """Count the calls of an objective's functions where its Hessian is never assembled. Collective."""
    scheme = scheme_of("auto", objective)
    function, each = _counted(objective, scheme)
    per = each * _PER_COLOR[scheme]
    differences = scheme in DIFFERENCES
    noise = 0 if not differences else _NOISE if measured is None else measured.calls // each
    unknown = differences and measured is None
    bounded = products.most is not None and not unknown
    return Calls(
        colors=None,
        scheme=scheme,
        derivatives=per * products.likely,
        noise=each * noise,
        verification=_compared(objective, verified, measured),
        pattern=0,
        estimated=unknown or products.most != products.least,
        products=products.likely,
        function=function,
        less=per * (products.likely - products.least),
        more=per * (products.most - products.likely) if bounded and products.most is not None else None,
    )


def count_probes(n: int, row: float) -> int:
    """Estimate the tests that detect a pattern of n rows with `row` entries each. Not collective."""
    return min(n, math.ceil((_FOR_EACH * row + _BESIDES) * math.log2(max(n, 2))))


def _counted(objective: Objective, scheme: str) -> tuple[str, int]:
    """Return which of the user's functions is called, and how often for one gradient or product."""
    if scheme == "product":
        return "product", 1
    return ("energy", 2 * objective.n) if objective.gradient is None else ("gradient", 1)


def _compared(objective: Objective, verified: bool, measured: Measured | None) -> int:
    """Return the calls that compare what an objective gives twice."""
    if not verified:
        return 0
    return least_calls(objective) if measured is None else measured.compared


def _groups(objective: Objective, scheme: str, measured: Measured | None, seed: int) -> int:
    """Return how many fresh products the check takes: one for each size of steps. Collective."""
    if measured is None or (measured.noise is None and scheme in DIFFERENCES):
        return 1
    check = plan_check(measured.scales, measured.noise, scheme, draw_signed(objective.layout, seed))
    return group_by_size(check.taken, objective.comm)[1]


def _part(number: int, share: float) -> int:
    return math.ceil(number * share)
